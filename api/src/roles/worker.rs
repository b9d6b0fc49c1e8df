//! The worker role: pipelines from the configuration to running members.

use std::sync::Arc;

use anyhow::{Result, bail};
use companyos_pipelines::{PipelineSpec, Worker, WorkerSetup};

use super::Context;
use crate::config::Config;

/// Runs the pipelines until told to stop, then commits what is held.
pub async fn run(context: Context) -> Result<()> {
    start(&context).await?.run(context.shutdown.clone().cancelled_owned()).await?;
    Ok(())
}

/// Starts the members and registers their check.
pub async fn start(context: &Context) -> Result<Worker> {
    let config = &context.config;
    let sealer = config.quarantine.sealer()?.map(Arc::new);
    if sealer.is_none() {
        tracing::warn!("quarantine.key is not set: quarantined events can be released only while Kafka has them");
    }
    let setup = WorkerSetup {
        config: config.worker.clone(),
        pipelines: pipelines(config)?,
        group: config.kafka.group.clone(),
        kafka: config.kafka.source(),
        tenancy: config.shared_tenancy(),
        redactor: config.redactor()?.map(Arc::new),
        sealer,
        storages: WorkerSetup::storages(&config.tenancy)?,
    };
    let worker = Worker::start(setup).await?;
    let (health, max_wait) = (worker.health(), config.telemetry.max_commit_age);
    context.readiness.add("worker", move || std::future::ready(health.ready(max_wait)));
    Ok(worker)
}

/// `[[pipelines]]` where there are any, else the built-in ones and those in `worker.pipelines_dir`; of
/// these the ones that `worker.pipelines` names.
fn pipelines(config: &Config) -> Result<Vec<PipelineSpec>> {
    if config.pipelines.is_empty() {
        return Ok(config.worker.load_pipelines()?);
    }
    if config.worker.pipelines_dir.is_some() {
        bail!("worker.pipelines_dir and [[pipelines]] cannot be used together");
    }
    let mut specs: Vec<PipelineSpec> = Vec::new();
    for spec in config.pipelines.iter().cloned().map(PipelineSpec::complete) {
        if specs.iter().any(|other| other.name == spec.name) {
            bail!("pipelines: two are named {:?}; give each a name", spec.name);
        }
        specs.push(spec);
    }
    Ok(PipelineSpec::select(specs, &config.worker.pipelines)?)
}
