//! Serving one role in a process: configuration, telemetry, signals, then the role until told to stop.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Result, anyhow};

use crate::{
    cli::ConfigArgs,
    config::Config,
    roles::Context,
    shutdown,
    telemetry::{self, Admin, Readiness, Telemetry},
};

/// Runs `role` until SIGINT or SIGTERM; a role that ends in order ends the process with 0.
pub async fn run<F>(name: &'static str, args: &ConfigArgs, role: impl FnOnce(Context) -> F) -> Result<ExitCode>
where
    F: Future<Output = Result<()>>,
{
    let config = Config::load(args.config.as_deref())?;
    let telemetry = Telemetry::install(&config.telemetry, name)?;
    let shutdown = shutdown::on_signals()?;
    let readiness = Readiness::default();
    let admin = Admin { metrics: telemetry.metrics(), readiness: readiness.clone() };
    telemetry::serve(&config.telemetry.listen, admin, shutdown.clone()).await?;
    let stuck = async {
        shutdown.cancelled().await;
        tokio::time::sleep(STOP).await;
    };
    let outcome = tokio::select! {
        outcome = role(Context { config: Arc::new(config), readiness, shutdown: shutdown.clone() }) => outcome,
        () = stuck => Err(anyhow!("{name} did not stop within {} s", STOP.as_secs())),
    };
    shutdown.cancel();
    tokio::task::spawn_blocking(move || telemetry.finish()).await?;
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Longer than any role's own grace, so that only a stuck one meets it.
const STOP: Duration = Duration::from_secs(90);
