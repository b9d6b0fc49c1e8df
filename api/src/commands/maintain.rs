//! `companyos maintain`: as a role that keeps at it, or once and done.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use companyos_maintenance::{Maintainer, Outcome, RegionStorage, Report, Task};

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
    /// With --once, only this task; repeatable
    #[arg(long = "task", requires = "once", value_name = "TASK")]
    tasks: Vec<Task>,
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
    let chosen: Vec<Task> = Task::ALL.into_iter().filter(|t| args.tasks.is_empty() || args.tasks.contains(t)).collect();
    let maintainer = Maintainer::new(config.maintenance.clone(), RegionStorage::open_all(&config.tenancy)?)?;
    let mut failed = false;
    for report in maintainer.run_all_once(&chosen).await? {
        failed |= report.failures().next().is_some();
        match args.json {
            true => println!("{}", serde_json::to_string(&report)?),
            false => show(&report),
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
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
