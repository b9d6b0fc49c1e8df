//! A run: rounds of events and disturbance, each checked to the last event.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use companyos_maintenance::{Maintainer, MaintenanceConfig, RegionStorage};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use xtask::kafka::{KafkaCluster, KafkaOptions};

use crate::{action::Action, fleet::Fleet, ledger::Ledger, tables::Tables, tenancy::tenancy, worker::WEATHER_FILE};

#[derive(Args)]
pub(crate) struct Options {
    /// Rounds; the first eight hold each disturbance once.
    #[arg(long, default_value_t = 50)]
    rounds: usize,
    /// Repeats the same disturbances and events.
    #[arg(long)]
    seed: Option<u64>,
    /// Events a round.
    #[arg(long, default_value_t = 2000)]
    events: usize,
    /// Workers to begin with.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Keep the tables and logs in this folder; a temporary one that is removed on success if none.
    #[arg(long)]
    data: Option<PathBuf>,
}

const TOPIC: &str = "chaos-events";
const PARTITIONS: i32 = 6;
const MOST_WORKERS: usize = 4;
/// How long a round may take to have everything stored.
const PATIENCE: Duration = Duration::from_secs(180);
/// Percentage of store calls that fail while the store is broken.
const STORM: u32 = 20;

struct Run {
    data: PathBuf,
    cluster: Arc<KafkaCluster>,
    fleet: Fleet,
    ledger: Ledger,
    tables: Tables,
    random: fastrand::Rng,
    events: usize,
}

/// Runs all rounds; an error is a failed promise or a harness that could not work.
pub(crate) async fn run(options: Options) -> Result<()> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}, {} rounds of {} events", options.rounds, options.events);
    let (data, temporary) = match options.data.clone() {
        Some(dir) => {
            std::fs::create_dir_all(&dir)?;
            (dir.canonicalize()?, None)
        }
        None => {
            let dir = tempfile::Builder::new().prefix("companyos-chaos-").tempdir()?;
            (dir.path().to_owned(), Some(dir))
        }
    };
    let outcome = rounds(options, seed, data).await;
    if outcome.is_err()
        && let Some(dir) = temporary
    {
        println!("seed {seed}; tables and logs stay in {}", dir.keep().display());
    }
    outcome
}

async fn rounds(options: Options, seed: u64, data: PathBuf) -> Result<()> {
    let mut run = Run::prepare(&options, seed, data).await?;
    let started = Instant::now();
    let mut done: BTreeMap<String, usize> = BTreeMap::new();
    for (number, action) in Action::plan(options.rounds, &mut run.random).into_iter().enumerate() {
        let began = Instant::now();
        run.round(action).await.with_context(|| format!("seed {seed}, round {}, {action}", number + 1))?;
        *done.entry(action.to_string()).or_default() += 1;
        println!(
            "round {:>3} {:<24} {:>6.1} s, {} workers, {} events and {} quarantined, each once",
            number + 1,
            action.to_string(),
            began.elapsed().as_secs_f64(),
            run.fleet.len(),
            run.ledger.good.len(),
            run.ledger.bad.len(),
        );
    }
    while run.fleet.len() > 0 {
        run.fleet.stop(0).await?;
    }
    run.check().await?;
    println!(
        "seed {seed}: {} rounds in {:.0} s ({}), {} events and {} quarantined events each stored exactly once",
        options.rounds,
        started.elapsed().as_secs_f64(),
        done.iter().map(|(action, times)| format!("{action} ×{times}")).collect::<Vec<_>>().join(", "),
        run.ledger.good.len(),
        run.ledger.bad.len(),
    );
    Ok(())
}

/// Compacts and checkpoints beside the writers for as long as the process lives.
fn maintain(data: &Path) -> Result<()> {
    let mut config = MaintenanceConfig::default();
    config.compaction.interval = Duration::from_secs(2);
    config.compaction.min_age = Duration::from_secs(1);
    config.checkpoint.interval = Duration::from_secs(2);
    config.checkpoint.every_commits = 20;
    let maintainer = Maintainer::new(config, RegionStorage::open_all(&tenancy(data)?)?)?;
    tokio::spawn(async move { maintainer.run(std::future::pending()).await });
    Ok(())
}

impl Run {
    async fn prepare(options: &Options, seed: u64, data: PathBuf) -> Result<Self> {
        let cluster = tokio::task::spawn_blocking(|| KafkaCluster::start(KafkaOptions::default())).await??;
        let bootstrap = cluster.bootstrap().to_owned();
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &bootstrap).create()?;
        let topic = NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(1));
        for result in admin.create_topics([&topic], &AdminOptions::new()).await? {
            result.map_err(|(topic, code)| anyhow::anyhow!("topic {topic}: {code}"))?;
        }
        let mut fleet = Fleet::new(data.clone(), bootstrap.clone(), seed);
        for _ in 0..options.workers.max(1) {
            fleet.start()?;
        }
        maintain(&data)?;
        Ok(Self {
            tables: Tables::open(&tenancy(&data)?)?,
            ledger: Ledger::new(&bootstrap, TOPIC, seed)?,
            random: fastrand::Rng::with_seed(seed),
            cluster: Arc::new(cluster),
            fleet,
            data,
            events: options.events,
        })
    }

    async fn round(&mut self, action: Action) -> Result<()> {
        self.ledger.send(self.events / 2, Duration::from_secs(1)).await?;
        let victim = self.random.usize(..self.fleet.len());
        let rest = self.events - self.events / 2;
        let over = Duration::from_secs(2);
        match action {
            Action::KillWorker => {
                self.fleet.kill(victim)?;
                self.fleet.start()?;
                self.ledger.send(rest, over).await?;
            }
            Action::Zombie => {
                if self.fleet.len() == 1 {
                    self.fleet.start()?;
                }
                self.fleet.pause(victim)?;
                self.ledger.send(rest, over).await?;
                // Its partitions have moved when the others have stored what was in them.
                self.check().await?;
                self.fleet.wake_all()?;
                self.ledger.send(self.events / 4, Duration::from_secs(1)).await?;
            }
            Action::CrashBroker => {
                self.broker(|cluster| cluster.kill(1)).await?;
                self.broker(|cluster| cluster.restart(1)).await?;
                self.ledger.send(rest, over).await?;
            }
            Action::RestartBroker => {
                self.broker(|cluster| cluster.stop(1)).await?;
                self.broker(|cluster| cluster.restart(1)).await?;
                self.ledger.send(rest, over).await?;
            }
            Action::AddWorker => {
                if self.fleet.len() >= MOST_WORKERS {
                    self.fleet.stop(victim).await?;
                }
                self.fleet.start()?;
                self.ledger.send(rest, over).await?;
            }
            Action::RemoveWorker => {
                if self.fleet.len() == 1 {
                    self.fleet.start()?;
                }
                self.fleet.stop(victim).await?;
                self.ledger.send(rest, over).await?;
            }
            Action::BreakStore => {
                self.weather(STORM)?;
                self.ledger.send(rest, over).await?;
                self.weather(0)?;
            }
            Action::KillWhileStoreFails => {
                self.weather(STORM)?;
                self.ledger.send(rest / 2, over / 2).await?;
                self.fleet.kill(victim)?;
                self.fleet.start()?;
                self.ledger.send(rest / 2, over).await?;
                self.weather(0)?;
            }
        }
        self.check().await
    }

    fn weather(&self, percent: u32) -> Result<()> {
        // Renamed into place, so that no worker reads half a number.
        let next = self.data.join(format!("{WEATHER_FILE}.next"));
        std::fs::write(&next, percent.to_string())?;
        Ok(std::fs::rename(next, self.data.join(WEATHER_FILE))?)
    }

    async fn broker(&self, act: impl FnOnce(&KafkaCluster) -> Result<()> + Send + 'static) -> Result<()> {
        let cluster = self.cluster.clone();
        tokio::task::spawn_blocking(move || act(&cluster)).await?
    }

    /// Waits until as much is stored as was sent, then compares every id.
    async fn check(&mut self) -> Result<()> {
        let wanted = (self.ledger.good.len(), self.ledger.bad.len());
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.fleet.check()?;
            let stored = self.tables.counts().await?;
            if stored.0 >= wanted.0 && stored.1 >= wanted.1 {
                break;
            }
            if Instant::now() > deadline {
                bail!("stored {stored:?} of {wanted:?} events and quarantined events after {PATIENCE:?}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        compare("events", &self.ledger.good, &self.tables.ids(false).await?)?;
        compare("quarantined events", &self.ledger.bad, &self.tables.ids(true).await?)
    }
}

fn compare(what: &str, sent: &HashSet<String>, stored: &HashMap<String, usize>) -> Result<()> {
    let some = |ids: Vec<&String>| ids.into_iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    let missing: Vec<_> = sent.iter().filter(|id| !stored.contains_key(*id)).collect();
    let doubled: Vec<_> = stored.iter().filter(|(_, times)| **times > 1).map(|(id, _)| id).collect();
    let strange: Vec<_> = stored.keys().filter(|id| !sent.contains(*id)).collect();
    if missing.is_empty() && doubled.is_empty() && strange.is_empty() {
        return Ok(());
    }
    bail!(
        "{what}: {} missing ({}), {} stored more than once ({}), {} never sent ({})",
        missing.len(),
        some(missing.clone()),
        doubled.len(),
        some(doubled.clone()),
        strange.len(),
        some(strange.clone()),
    )
}
