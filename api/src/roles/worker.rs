//! The worker role: pipelines from the configuration to running members.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use companyos_pipelines::{PipelineSpec, Worker, WorkerSetup};
use tempfile::TempDir;

use super::Context;
use crate::config::{Config, DEFAULT_GROUP};

/// Runs the pipelines until told to stop, then commits what is held.
pub async fn run(context: Context) -> Result<()> {
    start(&context).await?.run(context.shutdown.clone().cancelled_owned()).await?;
    Ok(())
}

/// Starts the members and registers their check.
pub async fn start(context: &Context) -> Result<Worker> {
    let config = &context.config;
    let inline = InlinePipelines::write(config)?;
    let mut worker = config.worker.clone();
    if let Some(inline) = &inline {
        if worker.pipelines_dir.is_some() {
            bail!("worker.pipelines_dir and [[pipelines]] cannot be used together");
        }
        worker.pipelines_dir = Some(inline.dir.path().to_owned());
        if worker.pipelines.is_empty() {
            worker.pipelines.clone_from(&inline.names);
        }
    }
    let sealer = config.quarantine.sealer()?.map(Arc::new);
    if sealer.is_none() {
        tracing::warn!("quarantine.key is not set: quarantined events can be released only while Kafka has them");
    }
    if config.kafka.group != DEFAULT_GROUP {
        tracing::warn!(
            group = config.kafka.group,
            "kafka.group has no effect yet: groups are named companyos.PIPELINE"
        );
    }
    let setup = WorkerSetup {
        config: worker,
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

/// `[[pipelines]]` as the files the pipelines crate reads. They are read at the worker's start;
/// the folder goes with this value.
struct InlinePipelines {
    dir: TempDir,
    names: Vec<String>,
}

impl InlinePipelines {
    fn write(config: &Config) -> Result<Option<Self>> {
        if config.pipelines.is_empty() {
            return Ok(None);
        }
        let dir = tempfile::tempdir().context("[[pipelines]]")?;
        let mut names: Vec<String> = Vec::new();
        for section in &config.pipelines {
            let spec = PipelineSpec {
                name: section.name.clone().unwrap_or_else(|| section.stream.name().to_owned()),
                stream: section.stream,
                topics: section.topics.clone(),
                decode: section.decode.clone(),
                dedup: section.dedup.clone(),
                dlp: section.dlp,
            };
            if names.contains(&spec.name) {
                bail!("pipelines: two are named {:?}; give each a name", spec.name);
            }
            let path = dir.path().join(format!("{}.yaml", names.len()));
            std::fs::write(path, serde_yaml_ng::to_string(&spec)?).context("[[pipelines]]")?;
            names.push(spec.name);
        }
        Ok(Some(Self { dir, names }))
    }
}
