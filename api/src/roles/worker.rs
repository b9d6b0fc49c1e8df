//! The worker role: pipelines from the configuration to running members, and the shards' jobs beside
//! them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use anyhow::{Result, bail};
use companyos_pipelines::{
    PipelineSpec, Worker, WorkerSetup,
    alerts::alert_jobs,
    detections::detect_operators,
    slo::slo_operators,
    tasks::{JobFactory, NoticeRouter, OperatorJob, ShardTasks, TasksSetup, send_to_webhooks},
    views::{ViewRegistry, view_jobs},
};
use companyos_sinks::{checkpoint::NoticeSink, storage::Storage};

use super::Context;
use crate::config::Config;

/// Runs the pipelines until told to stop, then commits what is held.
pub async fn run(context: Context) -> Result<()> {
    let worker = start(&context).await?;
    let tasks = start_tasks(&context).await?;
    let outcome = worker.run(context.shutdown.clone().cancelled_owned()).await;
    if let Some(tasks) = tasks {
        tasks.stop().await;
    }
    Ok(outcome?)
}

/// Starts the jobs of the shards this process will own.
async fn start_tasks(context: &Context) -> Result<Option<ShardTasks>> {
    let config = &context.config;
    if !config.tasks.enabled {
        return Ok(None);
    }
    let storages = WorkerSetup::storages(&config.tenancy)?;
    let mut jobs: Vec<(String, JobFactory)> = Vec::new();
    if config.views.enabled {
        let mut archives = HashMap::new();
        for (name, region) in &config.tenancy.regions {
            archives.extend(Storage::archive_of(region)?.map(|storage| (Arc::from(name.as_str()), storage)));
        }
        jobs.push(("views".to_owned(), view_jobs(&config.views, archives)));
        if let (true, Some(home)) = (config.views.built_in, storages.get(config.tenancy.home_region.as_str())) {
            let regions = config.tenancy.regions.keys().cloned().collect();
            tokio::spawn(make_built_in_views(home.clone(), regions, config.tasks.shards, context.shutdown.clone()));
        }
    }
    let notices: Arc<dyn NoticeSink> = Arc::new(NoticeRouter::new(&config.kafka.source(), &config.tasks)?);
    if config.views.enabled && config.alerts.enabled {
        jobs.push(("alerts".to_owned(), alert_jobs(config.alerts.load()?, notices.clone())));
    }
    if !config.slo.paths.is_empty() {
        let make = slo_operators(&config.slo, context.shutdown.clone());
        jobs.push(("slo".to_owned(), OperatorJob::factory(make, &config.tasks, notices.clone())));
    }
    if config.detect.enabled {
        if config.dlp.enabled && config.dlp.keys.is_none() {
            tracing::warn!(
                "dlp.keys is not set: users named by e-mail address are all masked alike, and detections that tell \
                 users apart take them for one; `[dlp.keys]` gives each a token of its own"
            );
        }
        let make = detect_operators(&config.detect, context.shutdown.clone())?;
        jobs.push(("detect".to_owned(), OperatorJob::factory(make, &config.tasks, notices)));
    }
    let setup = TasksSetup {
        config: config.tasks.clone(),
        group: config.kafka.group.clone(),
        kafka: config.kafka.source(),
        storages,
        home_region: Arc::from(config.tenancy.home_region.as_str()),
        jobs,
    };
    let tasks = ShardTasks::start(setup).await?;
    // After the tasks, which make the topics.
    send_to_webhooks(&config.kafka.source(), &config.kafka.group, &config.tasks, &context.shutdown)?;
    Ok(Some(tasks))
}

/// The views that come with the product are made in the background: a store that is away must not
/// keep events from being taken in.
async fn make_built_in_views(
    home: Storage,
    regions: BTreeSet<String>,
    shards: u32,
    stop: tokio_util::sync::CancellationToken,
) {
    let mut registry = ViewRegistry::new(&home);
    loop {
        match registry.create_built_in(&regions, shards).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "built-in views cannot be made yet"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
    }
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
