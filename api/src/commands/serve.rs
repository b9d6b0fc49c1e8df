//! Serving one role in a process: configuration, telemetry, signals, then the role until told to stop.

use std::{process::ExitCode, sync::Arc};

use anyhow::Result;

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
    let outcome = role(Context { config: Arc::new(config), readiness, shutdown: shutdown.clone() }).await;
    shutdown.cancel();
    tokio::task::spawn_blocking(move || telemetry.finish()).await?;
    outcome.map(|()| ExitCode::SUCCESS)
}
