//! `companyos maintain`: as a role that keeps at it, or once and done.

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::Result;
use clap::Args;
use companyos_maintenance::{Maintainer, Outcome, RegionStorage, Report};
use companyos_schemas::{Stream, quarantine};

use super::serve;
use crate::{cli::ConfigArgs, config::Config, roles, telemetry};

/// How to maintain.
#[derive(Debug, Args)]
pub struct MaintainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Run every task once, report, and end; 1 if one failed
    #[arg(long)]
    once: bool,
    /// With --once, print the report as JSON
    #[arg(long, requires = "once")]
    json: bool,
}

/// Runs maintenance.
pub async fn run(args: MaintainArgs) -> Result<ExitCode> {
    if !args.once {
        return serve::run("maintain", &args.config, roles::maintain::run).await;
    }
    telemetry::log_warnings();
    let config = Config::load(args.config.config.as_deref())?;
    let tables = tables(&config);
    let maintainer = Maintainer::new(config.maintenance.clone(), RegionStorage::open_all(&config.tenancy)?)?;
    let mut failed = false;
    for table in tables {
        let report = maintainer.run_once(&table).await;
        failed |= report.failures().next().is_some();
        match args.json {
            true => println!("{}", serde_json::to_string(&report)?),
            false => show(&report),
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The configured tables, or all that this product writes.
fn tables(config: &Config) -> BTreeSet<String> {
    if !config.maintenance.tables.is_empty() {
        return config.maintenance.tables.iter().cloned().collect();
    }
    let own = [quarantine::TABLE, quarantine::ACTIONS_TABLE];
    Stream::ALL.iter().map(|s| s.name()).chain(own).map(str::to_owned).collect()
}

fn show(report: &Report) {
    for task in &report.tasks {
        let place = format!("{} {} {:?}", report.table, task.region, task.place).to_lowercase();
        match &task.outcome {
            Outcome::Failed { error } => println!("{place}: {} failed: {error}", task.task),
            // No table there, or nothing to do: not worth a line.
            Outcome::Done(work) if work.commits == 0 && work.files_removed == 0 => {}
            Outcome::Done(work) => println!(
                "{place}: {}: {} files ({} bytes) replaced by {} ({} bytes), {} rows, {} commits, {} ms",
                task.task,
                work.files_removed,
                work.bytes_removed,
                work.files_added,
                work.bytes_added,
                work.rows,
                work.commits,
                task.elapsed_ms
            ),
        }
    }
}
