//! `companyos slo`: judge OpenSLO files, and report on a service.

use std::{
    io::{ErrorKind, Write, stdout},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Result;
use arrow::array::RecordBatch;
use clap::{Args, Subcommand};
use companyos_schemas::access::Scope;
use companyos_slo::{check::check_path, report::report};
use futures::TryStreamExt;

use super::sql::Source;
use crate::{cli::ConfigArgs, config::Config, telemetry};

/// What to do with SLOs.
#[derive(Debug, Subcommand)]
pub enum SloCommand {
    /// Say which OpenSLO objects of a file or folder load and run here, and why others do not; 1 if any does not
    Check(CheckArgs),
    /// Budget, burn rates and last alerts of a service
    Report(ReportArgs),
}

/// What to check.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// File or folder
    path: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What to report on.
#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Service
    service: String,
    /// Whose service
    #[arg(long)]
    tenant: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn run(command: SloCommand) -> Result<ExitCode> {
    telemetry::log_warnings();
    match command {
        SloCommand::Check(args) => {
            let report = check_path(&args.path);
            print(&match args.json {
                true => serde_json::to_string_pretty(&report)?,
                false => report.table(),
            })?;
            Ok(if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        SloCommand::Report(args) => {
            let config = Config::load(args.config.config.as_deref())?;
            let scope = Scope { tenant: args.tenant, envs: None, regions: None };
            let source = Source::storage(&config, scope)?;
            let service = args.service.replace('\'', "''");
            let burn = format!(
                "SELECT * FROM slo_burn WHERE service = '{service}' AND evaluated_at > now() - interval '7 days' \
                 ORDER BY evaluated_at DESC LIMIT 20000"
            );
            let alerts = format!("SELECT * FROM slo_alerts WHERE service = '{service}' ORDER BY at DESC LIMIT 200");
            let (burn, alerts) = (rows(&source, &burn).await?, rows(&source, &alerts).await?);
            let report = report(&args.service, &burn, &alerts);
            print(&match args.json {
                true => serde_json::to_string_pretty(&report)?,
                false => report.render().trim_end().to_owned(),
            })?;
            Ok(if report.slos.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
    }
}

async fn rows(source: &Source, sql: &str) -> Result<Vec<RecordBatch>> {
    source.ask(sql).await?.batches.try_collect().await
}

/// Prints text and a line's end; a reader that has seen enough is no fault.
fn print(text: &str) -> Result<()> {
    match writeln!(stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
