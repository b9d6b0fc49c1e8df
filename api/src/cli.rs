//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    broker::BrokerArgs, demo::DemoArgs, detect::DetectCommand, dimension::DimensionCommand, dlp::DlpCommand,
    erase::EraseArgs, maintain::MaintainArgs, pipeline::PipelineCommand, quarantine::QuarantineCommand,
    replay::ReplayArgs, schemas::SchemasCommand, simulate::SimulateCommand, slo::SloCommand, sql::SqlArgs,
    token::TokenCommand,
};

/// Events in, governed tables out, queried by SQL.
#[derive(Debug, Parser)]
#[command(name = "companyos", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where the configuration is.
#[derive(Debug, Clone, Args)]
pub struct ConfigArgs {
    /// TOML file; without one the defaults and COMPANYOS_* variables hold
    #[arg(long, env = "COMPANYOS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Roles and tools.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run everything in one process, with two tenants and a stream of events
    Demo(DemoArgs),
    /// Run the embedded Kafka broker, for local work
    Broker(BrokerArgs),
    /// Serve the HTTP event gateway
    Gateway(ConfigArgs),
    /// Run the pipelines: Kafka in, Delta tables out
    Worker(ConfigArgs),
    /// Serve SQL over HTTP
    Query(ConfigArgs),
    /// Ask in SQL
    Sql(SqlArgs),
    /// Compact, checkpoint, retain, archive and vacuum the tables
    Maintain(MaintainArgs),
    /// Make, list, show, drop and rebuild materialized views
    #[command(subcommand)]
    Pipeline(PipelineCommand),
    /// Load, list and drop dimensions: tables that views join and queries read
    #[command(subcommand)]
    Dimension(DimensionCommand),
    /// Judge OpenSLO files, report on services
    #[command(subcommand)]
    Slo(SloCommand),
    /// Judge detection rules, try them on events or on what is stored
    #[command(subcommand)]
    Detect(DetectCommand),
    /// Send an attack's events and see whether it is found
    #[command(subcommand)]
    Simulate(SimulateCommand),
    /// Send a file's rows as events
    Replay(ReplayArgs),
    /// Look at refused events, release or purge them
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Take a person's rows out of the tables and the views
    Erase(EraseArgs),
    /// Judge data loss prevention on your own data
    #[command(subcommand)]
    Dlp(DlpCommand),
    /// Check or print event schemas
    #[command(subcommand)]
    Schemas(SchemasCommand),
    /// Make access tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
}

/// Configuration tools.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read file and environment and say whether they can be used
    Check(ConfigArgs),
}
