//! `companyos demo`: the whole data path in one process, with two tenants whose events keep coming.
//!
//! Everything is embedded and local: a broker on SQLite, tables in a folder, tokens made for this
//! run. Stopping it finishes what was accepted and commits what is held; the next run goes on with
//! the same data.

mod events;
mod generator;
mod setup;
mod status;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use companyos_source_broker::{BrokerOptions, BrokerStorage, EmbeddedBroker};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::broker::create_topics;
use crate::{
    roles, shutdown,
    telemetry::{self, Admin, Readiness, Telemetry},
};
use generator::{Generator, Totals};
use setup::Setup;

/// How the demo runs.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder of the broker's file, the tables and the configuration
    #[arg(long, default_value = ".companyos/demo")]
    data: PathBuf,
    /// Stop by itself after this long, such as 30s
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    run_for: Option<Duration>,
    /// Take any free ports instead of trying the usual ones first
    #[arg(long)]
    any_ports: bool,
    /// Events per second, over both tenants
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=5000))]
    rate: u32,
    /// Log as the roles would, not warnings only
    #[arg(long, short)]
    verbose: bool,
}

const PARTITIONS: i32 = 2;
/// How long the roles may take to be ready.
const START: Duration = Duration::from_secs(60);
/// How long one of them may take to stop.
const STOP: Duration = Duration::from_secs(45);

/// Runs until Ctrl-C, SIGTERM or the end of `--for`.
pub async fn run(args: DemoArgs) -> Result<ExitCode> {
    let stop = shutdown::on_signals()?;
    let setup = Setup::prepare(&args.data, args.any_ports).await?;
    let mut telemetry_config = setup.config.telemetry.clone();
    if !args.verbose {
        "warn".clone_into(&mut telemetry_config.log_filter);
    }
    let telemetry = Telemetry::install(&telemetry_config, "demo")?;
    let broker = start_broker(&setup).await?;
    let outcome = with_broker(&args, setup, &telemetry, &broker, &stop).await;
    broker.shutdown().await;
    tokio::task::spawn_blocking(move || telemetry.finish()).await?;
    outcome.map(|totals| {
        println!("stopped: {} events accepted, all of them in Kafka's file or the tables", totals.accepted());
        ExitCode::SUCCESS
    })
}

async fn start_broker(setup: &Setup) -> Result<EmbeddedBroker> {
    let storage = BrokerStorage::Sqlite(setup.data.join("broker.db"));
    let listen = setup.broker_listen;
    let options = BrokerOptions { storage, listen, ..Default::default() };
    let broker = EmbeddedBroker::start(options).await.context("the embedded broker does not start")?;
    create_topics(&broker, PARTITIONS).await?;
    Ok(broker)
}

async fn with_broker(
    args: &DemoArgs,
    mut setup: Setup,
    telemetry: &Telemetry,
    broker: &EmbeddedBroker,
    stop: &CancellationToken,
) -> Result<Arc<Totals>> {
    setup.config.kafka.brokers = broker.bootstrap();
    setup.write_config()?;
    let readiness = Readiness::default();
    let ending = CancellationToken::new();
    let admin = Admin { metrics: telemetry.metrics(), readiness: readiness.clone() };
    telemetry::serve_on(setup.admin, admin, ending.clone())?;
    let config = Arc::new(setup.config.clone());
    let context = |shutdown: &CancellationToken| roles::Context {
        config: config.clone(),
        readiness: readiness.clone(),
        shutdown: shutdown.clone(),
    };

    // Stopped one after the other, from the source on: each finishes what the one before gave it.
    let mut stages = Vec::new();
    let gateway = CancellationToken::new();
    stages.push(Stage::start("gateway", &gateway, stop, roles::gateway::serve(context(&gateway), setup.gateway)));
    let worker = CancellationToken::new();
    stages.push(Stage::start("worker", &worker, stop, roles::worker::run(context(&worker))));
    let query = CancellationToken::new();
    stages.push(Stage::start("query", &query, stop, roles::query::serve(context(&query), setup.query)));
    let maintain = CancellationToken::new();
    stages.push(Stage::start("maintain", &maintain, stop, roles::maintain::run(context(&maintain))));

    let totals = Arc::new(Totals::default());
    let ready = tokio::select! {
        ready = until_ready(&readiness, stages.len()) => ready,
        () = stop.cancelled() => false,
    };
    if ready {
        setup.welcome.print();
        let generator = Generator::new(&setup.welcome, &config.kafka, args.rate, totals.clone())?;
        tokio::select! {
            () = generator.run() => {}
            () = status::show(telemetry.metrics(), totals.clone()) => {}
            () = end_of(args.run_for) => {}
            () = stop.cancelled() => {}
        }
    } else if !stop.is_cancelled() {
        for (role, problem) in readiness.ask().await {
            eprintln!("{role}: {}", problem.unwrap_or_else(|| "ready".to_owned()));
        }
    }
    println!("stopping: finishing what was accepted …");
    let mut outcome = Ok(());
    for stage in stages {
        outcome = outcome.and(stage.stop().await);
    }
    ending.cancel();
    outcome?;
    anyhow::ensure!(ready || stop.is_cancelled(), "the roles were not ready within {} s", START.as_secs());
    Ok(totals)
}

/// A role running in the background.
struct Stage {
    name: &'static str,
    shutdown: CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl Stage {
    /// A role that ends before it was told to ends the demo.
    fn start(
        name: &'static str,
        shutdown: &CancellationToken,
        stop: &CancellationToken,
        role: impl Future<Output = Result<()>> + Send + 'static,
    ) -> Self {
        let stop = stop.clone();
        let task = tokio::spawn(async move {
            let outcome = role.await;
            stop.cancel();
            outcome
        });
        Self { name, shutdown: shutdown.clone(), task }
    }

    async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(STOP, self.task).await;
        let ended = ended.with_context(|| format!("{} did not stop within {} s", self.name, STOP.as_secs()))?;
        ended.with_context(|| format!("{} ended badly", self.name))?.with_context(|| self.name.to_owned())
    }
}

async fn until_ready(readiness: &Readiness, roles: usize) -> bool {
    let ready = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            let answers = readiness.ask().await;
            if answers.len() == roles && answers.iter().all(|(_, problem)| problem.is_none()) {
                return;
            }
        }
    };
    tokio::time::timeout(START, ready).await.is_ok()
}

async fn end_of(run_for: Option<Duration>) {
    match run_for {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
