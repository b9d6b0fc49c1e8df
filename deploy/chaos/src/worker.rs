//! A worker of a run: the product's own worker over a store with weather.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Result;
use clap::Args;
use companyos_operators::Sealer;
use companyos_pipelines::{Worker, WorkerConfig, WorkerSetup};
use companyos_source_kafka::KafkaConfig;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    faulty_store::{FaultyStore, Weather},
    tenancy::tenancy,
};

const PIPELINE: &str = "name: chaos\nstream: product_events\ntopics: [chaos-events]\n";
/// File below the data folder with the percentage of store calls that fail.
pub(crate) const WEATHER_FILE: &str = "store-faults-percent";

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    bootstrap: String,
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    seed: u64,
    /// Static membership: the group waits for this name to come back.
    #[arg(long)]
    instance: Option<String>,
}

/// Works until SIGTERM.
pub(crate) async fn work(options: Options) -> Result<()> {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .with_env_filter("info,buoyant_kernel=warn,delta_kernel=warn,deltalake=warn")
        .init();
    let tenancy = Arc::new(tenancy(&options.data)?);
    let weather = Weather::watch(options.data.join(WEATHER_FILE), options.seed);
    let storages = WorkerSetup::storages(&tenancy)?
        .into_iter()
        .map(|(region, storage)| {
            let weather = weather.clone();
            (region, storage.map_store(|store| Arc::new(FaultyStore::new(store, weather))))
        })
        .collect();
    let worker = Worker::start(WorkerSetup {
        pipelines: vec![serde_yaml_ng::from_str(PIPELINE)?],
        group: "companyos".to_owned(),
        config: WorkerConfig {
            commit_interval: Duration::from_millis(200),
            quarantine_topic: String::new(),
            ..WorkerConfig::default()
        },
        kafka: KafkaConfig {
            brokers: options.bootstrap,
            instance_id: options.instance,
            settings: BTreeMap::from([
                ("session.timeout.ms".to_owned(), "6000".to_owned()),
                ("reconnect.backoff.max.ms".to_owned(), "1000".to_owned()),
            ]),
        },
        tenancy,
        redactor: None,
        sealer: Some(Arc::new(Sealer::new("chaos", [9; 32]))),
        storages,
    })
    .await?;
    let mut terminate = signal(SignalKind::terminate())?;
    worker
        .run(async move {
            terminate.recv().await;
        })
        .await?;
    Ok(())
}
