//! The job of one region and shard: keeps every view's state current.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use companyos_schemas::Stream;
use companyos_sinks::storage::Storage;
use serde::{Deserialize, Serialize};
use tokio::{
    runtime::Handle,
    task::{Id, JoinError, JoinSet},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, info, warn};

use super::{
    registry::ViewRegistry,
    retired::Deletions,
    shard::Shard,
    stream_log::StreamLog,
    task::{TURNS, TaskError, ViewTask},
};

/// `[views]` of the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ViewsConfig {
    /// Whether views are kept at all.
    pub enabled: bool,
    /// Whether the views that come with the product are made.
    pub built_in: bool,
    /// How often the streams' logs are looked at when there is nothing new.
    #[serde(with = "humantime_serde")]
    pub poll_interval: Duration,
    /// How often the registry of views is looked at.
    #[serde(with = "humantime_serde")]
    pub registry_interval: Duration,
    /// How long the state of a view that was dropped or replaced is kept; longer than any query.
    #[serde(with = "humantime_serde")]
    pub keep_retired: Duration,
}

impl Default for ViewsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            built_in: true,
            poll_interval: Duration::from_millis(100),
            registry_interval: Duration::from_secs(1),
            keep_retired: Duration::from_secs(3600),
        }
    }
}

/// How long a view that failed is left alone.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// What a maintainer works on.
#[derive(Debug, Clone)]
pub struct MaintainerSetup {
    /// Settings.
    pub config: ViewsConfig,
    /// The home region's storage, where the registry is.
    pub home: Storage,
    /// Region.
    pub region: Arc<str>,
    /// The region's storage.
    pub storage: Storage,
    /// Where its old days are, if they are moved away.
    pub archive: Option<Storage>,
    /// Whose rows.
    pub shard: Shard,
}

/// A task whose history was taken in, or why not; false if its stream has no table yet.
type History = Result<(ViewTask, Result<bool, TaskError>), JoinError>;

/// Keeps all views of a region and shard.
pub struct ViewMaintainer {
    setup: MaintainerSetup,
    registry: ViewRegistry,
    looked: Option<Instant>,
    tasks: BTreeMap<String, ViewTask>,
    /// Views whose history is being taken in; the others go on beside it.
    histories: JoinSet<History>,
    /// Their tables, and what stops them when it is dropped.
    building: BTreeMap<Id, (String, DropGuard)>,
    /// Tables whose stream had none when it was last looked.
    absent: BTreeMap<String, Instant>,
    logs: BTreeMap<Stream, StreamLog>,
    /// When views failed, by table: they are opened again after a while.
    failed: BTreeMap<String, Instant>,
    announced: BTreeSet<String>,
    deletions: Deletions,
}

impl ViewMaintainer {
    /// A maintainer that has not looked at anything yet.
    pub fn new(setup: MaintainerSetup) -> Self {
        let registry = ViewRegistry::new(&setup.home);
        Self {
            setup,
            registry,
            looked: None,
            tasks: BTreeMap::new(),
            histories: JoinSet::new(),
            building: BTreeMap::new(),
            absent: BTreeMap::new(),
            logs: BTreeMap::new(),
            failed: BTreeMap::new(),
            announced: BTreeSet::new(),
            deletions: Deletions::default(),
        }
    }

    /// Works until told to stop. Failures of the store are waited out; a view that cannot go on is
    /// left alone, and the others go on.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let worked = tokio::select! {
                () = stop.cancelled() => return,
                worked = self.round() => worked,
            };
            let pause = match worked {
                Ok(true) => continue,
                Ok(false) => self.setup.config.poll_interval,
                Err(error) => {
                    warn!(region = %self.setup.region, shard = self.setup.shard.index, %error, "views wait");
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One look at everything; true if a view moved.
    pub async fn round(&mut self) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        if self.looked.is_none_or(|at| at.elapsed() >= self.setup.config.registry_interval) {
            self.registry.refresh().await?;
            self.looked = Some(Instant::now());
            self.take_on().await?;
            if self.setup.shard.index == 0 {
                let retired = self.registry.retired_since(self.setup.config.keep_retired);
                self.deletions.run(&self.setup.storage, retired).await;
            }
        }
        let mut worked = false;
        while let Some(ended) = self.histories.try_join_next_with_id() {
            worked |= self.took_history(ended).await?;
        }
        let tables: Vec<String> = self.tasks.keys().cloned().collect();
        for table in tables {
            if self.tasks.get(&table).is_some_and(|task| !task.has_history()) {
                self.begin_history(&table);
                continue;
            }
            match self.advance(&table).await {
                Ok(moved) => worked |= moved,
                Err(error) => self.cannot_go_on(table, error).await?,
            }
        }
        if !worked && !self.histories.is_empty() {
            let pause = self.setup.config.poll_interval;
            if let Ok(Some(ended)) = tokio::time::timeout(pause, self.histories.join_next_with_id()).await {
                worked = self.took_history(ended).await?;
            }
            worked |= !self.histories.is_empty();
        }
        Ok(worked)
    }

    /// What to do about a view after an error; transient ones are the caller's to wait out.
    async fn cannot_go_on(
        &mut self,
        table: String,
        error: TaskError,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match error {
            TaskError::Table(error) if error.is_transient() => return Err(error.into()),
            TaskError::Stored(error) if error.is_transient() => return Err(error.into()),
            TaskError::Table(companyos_sinks::delta::DeltaSinkError::Gap { version, .. }) => {
                self.rebuild(&table, version).await?;
            }
            TaskError::Fenced => {
                info!(table, "another worker keeps this shard; starting again from its position");
                self.tasks.remove(&table);
                self.looked = None;
            }
            error => {
                error!(table, %error, "a view cannot go on; it is opened again in a while");
                metrics::counter!("companyos_view_failures_total", "table" => table.clone()).increment(1);
                self.tasks.remove(&table);
                self.failed.insert(table, Instant::now());
            }
        }
        Ok(())
    }

    /// Takes a view's history in beside the others.
    fn begin_history(&mut self, table: &str) {
        if self.absent.get(table).is_some_and(|at| at.elapsed() < self.setup.config.poll_interval) {
            return;
        }
        let Some(mut task) = self.tasks.remove(table) else { return };
        let (stop, runtime) = (CancellationToken::new(), Handle::current());
        let guard = stop.clone().drop_guard();
        // Aggregating takes long at a stretch: on the runtime's threads it would keep events from
        // being taken in.
        let work = move || {
            let done = runtime.block_on(stop.run_until_cancelled(task.take_history()));
            (task, done.unwrap_or(Ok(false)))
        };
        let history = self.histories.spawn(async move {
            // Never closed. A history takes no thread while it waits.
            let _turn = TURNS.acquire().await;
            tokio::task::spawn_blocking(work).await
        });
        self.building.insert(history.id(), (table.to_owned(), guard));
    }

    /// True if the view has its history now.
    async fn took_history(
        &mut self,
        ended: Result<(Id, History), JoinError>,
    ) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        // None if the view is gone.
        let Some((table, _)) = self.building.remove(&id) else { return Ok(false) };
        match ended.and_then(|(_, history)| history) {
            Ok((task, done)) => {
                self.tasks.insert(table.clone(), task);
                match done {
                    Ok(true) => {
                        self.absent.remove(&table);
                        Ok(true)
                    }
                    Ok(false) => {
                        self.absent.insert(table.clone(), Instant::now());
                        self.announce(&table).await;
                        Ok(false)
                    }
                    Err(error) => self.cannot_go_on(table, error).await.map(|()| false),
                }
            }
            Err(error) => {
                error!(table, %error, "taking a view's history in stopped; it is opened again in a while");
                self.failed.insert(table, Instant::now());
                Ok(false)
            }
        }
    }

    /// Opens the views that are new here, and lets go of those that are gone.
    async fn take_on(&mut self) -> Result<(), TaskError> {
        let shard = self.setup.shard;
        self.failed.retain(|_, at| at.elapsed() < OPEN_AGAIN_AFTER);
        let of_here: Vec<_> = self
            .registry
            .generations()
            .filter(|g| g.shards == shard.of && g.regions.contains(self.setup.region.as_ref()))
            .cloned()
            .collect();
        let is_here = |table: &str| of_here.iter().any(|g| g.table == *table);
        self.tasks.retain(|table, _| is_here(table));
        self.building.retain(|_, (table, _)| is_here(table));
        for generation in of_here.iter().cloned() {
            let open = self.tasks.contains_key(&generation.table);
            let building = self.building.values().any(|(table, _)| *table == generation.table);
            if open || building || self.failed.contains_key(&generation.table) {
                continue;
            }
            let table = generation.table.clone();
            let region = self.setup.region.clone();
            match ViewTask::open(generation, region, shard, &self.setup.storage, self.setup.archive.as_ref()).await {
                Ok(task) => {
                    self.tasks.insert(table, task);
                }
                Err(TaskError::Table(error)) if !error.is_transient() => {
                    error!(table, %error, "a view's state table cannot be used");
                    self.failed.insert(table, Instant::now());
                }
                Err(error) => return Err(error),
            }
        }
        let mut columns: BTreeMap<Stream, BTreeSet<String>> = BTreeMap::new();
        for generation in &of_here {
            let plan = &generation.plan;
            columns.entry(plan.stream).or_default().extend(plan.columns.iter().cloned());
        }
        for (stream, columns) in columns {
            let log = self.logs.entry(stream).or_insert_with(|| StreamLog::new(&self.setup.storage, stream, shard));
            log.want(columns.into_iter().collect());
        }
        Ok(())
    }

    async fn advance(&mut self, table: &str) -> Result<bool, TaskError> {
        let Some(task) = self.tasks.get_mut(table) else { return Ok(false) };
        let Some(log) = self.logs.get_mut(&task.generation.plan.stream) else { return Ok(false) };
        let moved = task.follow(log).await?;
        if !moved {
            self.announce(table).await;
        }
        Ok(moved)
    }

    /// Says once that nothing is left to take in: the view is current.
    async fn announce(&mut self, table: &str) {
        let Some(task) = self.tasks.get(table) else { return };
        let done = (self.setup.region.to_string(), self.setup.shard.index);
        if task.generation.ready.contains(&done) || !self.announced.insert(table.to_owned()) {
            return;
        }
        if let Err(error) = self.registry.ready(table, &done.0, done.1).await {
            warn!(table, %error, "cannot say that the view is ready yet");
            self.announced.remove(table);
        }
    }

    /// The log was cleaned up further than the view had read: its state is made anew beside it.
    async fn rebuild(&mut self, table: &str, version: u64) -> Result<(), super::RegistryError> {
        error!(table, version, "the stream's log was cleaned up before the view had read it; building it anew");
        if let Some(task) = self.tasks.remove(table) {
            let generation = task.generation;
            let (sql, regions, shards) = (generation.sql.clone(), generation.regions.clone(), generation.shards);
            self.registry.create(&sql, regions, shards, generation.built_in, true).await?;
            self.failed.insert(table.to_owned(), Instant::now());
            self.looked = None;
        }
        Ok(())
    }
}
