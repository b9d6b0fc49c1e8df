//! One module per command; here only which is which.

pub mod broker;
pub mod config;
pub mod demo;
pub mod detect;
pub mod dimension;
pub mod dlp;
pub mod erase;
pub mod maintain;
pub mod pipeline;
pub mod quarantine;
pub mod replay;
pub mod schemas;
pub mod serve;
pub mod simulate;
pub mod slo;
pub mod sql;
pub mod token;

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    cli::{Cli, Command, ConfigCommand},
    roles,
};

/// Runs the command; the code is what the process ends with.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Gateway(args) => serve::run("gateway", &args, roles::gateway::run).await,
        Command::Detect(command) => detect::run(command).await,
        Command::Slo(command) => slo::run(command).await,
        Command::Simulate(command) => simulate::run(command).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Broker(args) => broker::run(args).await,
        Command::Query(args) => serve::run("query", &args, roles::query::run).await,
        Command::Sql(args) => sql::run(args).await,
        Command::Worker(args) => serve::run("worker", &args, roles::worker::run).await,
        Command::Maintain(args) => maintain::run(args).await,
        Command::Pipeline(command) => pipeline::run(command).await,
        Command::Dimension(command) => dimension::run(command).await,
        Command::Replay(args) => replay::run(args).await,
        Command::Quarantine(command) => quarantine::run(command).await,
        Command::Erase(args) => erase::run(args).await,
        Command::Dlp(command) => dlp::run(command).await,
        Command::Schemas(command) => schemas::run(command),
        Command::Token(command) => token::run(command),
        Command::Config(ConfigCommand::Check(args)) => config::check(&args),
    }
}
