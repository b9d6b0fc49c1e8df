//! Runs the tasks: once on demand, or each on its own interval until told to stop.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use backon::{ExponentialBuilder, Retryable};
use chrono::{DateTime, Utc};
use companyos_schemas::tenancy::Tenancy;
use companyos_sinks::storage::Storage;
use futures::{FutureExt, StreamExt, future::join_all};
use object_store::path::Path;
use tokio::sync::Semaphore;
use tracing::{debug, error, warn};

use crate::{
    MaintenanceConfig, MaintenanceError, Outcome, PlaceKind, Report, Task, TaskReport, Work, archive::Archiver,
    checkpoint, cluster, compact, live_table::LiveTable, log_cleanup, retention, vacuum,
};

/// A region and its roots.
#[derive(Debug, Clone)]
pub struct RegionStorage {
    /// Region name.
    pub region: String,
    /// Where its tables are.
    pub hot: Storage,
    /// Where old days go, if it has an archive.
    pub archive: Option<Storage>,
}

impl RegionStorage {
    /// Opens the roots of every configured region.
    pub fn open_all(tenancy: &Tenancy) -> Result<Vec<Self>, MaintenanceError> {
        tenancy
            .regions
            .iter()
            .map(|(name, region)| {
                Ok(Self {
                    region: name.clone(),
                    hot: Storage::for_region(region)?,
                    archive: Storage::archive_of(region)?,
                })
            })
            .collect()
    }
}

/// Looks after the tables of some regions. Any number may run at once, on the same tables.
pub struct Maintainer {
    config: MaintenanceConfig,
    regions: Vec<RegionStorage>,
    clock: Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>,
    /// Tasks that hold rows in memory take turns, so that their bounds do not add up.
    heavy: Semaphore,
}

/// One root of one region.
struct Place<'a> {
    region: &'a RegionStorage,
    kind: PlaceKind,
    storage: &'a Storage,
}

impl Maintainer {
    /// Checks the configuration.
    pub fn new(config: MaintenanceConfig, regions: Vec<RegionStorage>) -> Result<Self, MaintenanceError> {
        config.validate()?;
        Ok(Self { config, regions, clock: Arc::new(Utc::now), heavy: Semaphore::new(1) })
    }

    /// Uses another clock to decide how old days, files and log entries are.
    pub fn with_clock(mut self, clock: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The tables there is something to do for: those configured, or all found below the roots.
    pub async fn tables(&self) -> Result<BTreeSet<String>, MaintenanceError> {
        let mut tables = BTreeSet::new();
        for place in self.places(Task::Vacuum) {
            tables.extend(self.tables_at(&place).await?);
        }
        Ok(tables)
    }

    /// Runs the given tasks (those enabled of them) once on every table, in the order of
    /// [`Task::ALL`]; one report a table.
    pub async fn run_all_once(&self, tasks: &[Task]) -> Result<Vec<Report>, MaintenanceError> {
        let mut reports = Vec::new();
        for table in self.tables().await? {
            let mut report = Report { table, tasks: Vec::new() };
            for task in Task::ALL.into_iter().filter(|t| tasks.contains(t)) {
                report.tasks.extend(self.run_task(task, &report.table).await);
            }
            reports.push(report);
        }
        Ok(reports)
    }

    /// Runs every enabled task once on one table, in all regions.
    pub async fn run_once(&self, table: &str) -> Report {
        let mut tasks = Vec::new();
        for task in Task::ALL {
            tasks.extend(self.run_task(task, table).await);
        }
        Report { table: table.to_owned(), tasks }
    }

    /// Runs one task once on one table, in all regions; empty if it is not enabled.
    pub async fn run_task(&self, task: Task, table: &str) -> Vec<TaskReport> {
        let mut reports = Vec::new();
        if !self.is_enabled(task) {
            return reports;
        }
        for place in self.places(task) {
            reports.push(self.attempt(task, &place, table).await);
        }
        reports
    }

    /// Runs every enabled task on its interval until `shutdown` completes. Tasks are dropped where
    /// they stand: each can be run again from any point.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        let loops = join_all(Task::ALL.into_iter().filter(|t| self.is_enabled(*t)).map(|task| self.run_loop(task)));
        tokio::select! {
            () = shutdown => debug!("maintenance stopped"),
            _ = loops => {}
        }
    }

    async fn run_loop(&self, task: Task) {
        loop {
            let stretch = 1.0 + self.config.jitter * rand::random::<f64>();
            tokio::time::sleep(self.interval(task).mul_f64(stretch)).await;
            for place in self.places(task) {
                match self.tables_at(&place).await {
                    Ok(tables) => {
                        for table in tables {
                            self.attempt(task, &place, &table).await;
                        }
                    }
                    Err(error) => error!(%task, region = place.region.region, %error, "cannot list tables"),
                }
            }
        }
    }

    /// One task on one table: tried again on conflicts and store failures, never panicking out.
    async fn attempt(&self, task: Task, place: &Place<'_>, table: &str) -> TaskReport {
        let _turn = match task {
            Task::Compaction | Task::Cluster | Task::Archive => self.heavy.acquire().await.ok(),
            _ => None,
        };
        let (started_at, started) = (Utc::now(), Instant::now());
        let mut retries = 0;
        let backoff = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(30))
            .with_max_times(self.config.max_retries);
        let outcome = (|| self.run_task_at(task, place, table))
            .retry(backoff)
            .when(MaintenanceError::is_transient)
            .notify(|error, pause| {
                retries += 1;
                debug!(%task, table, %error, ?pause, "trying again");
            });
        let outcome = match std::panic::AssertUnwindSafe(outcome).catch_unwind().await {
            Ok(Ok(work)) => Outcome::Done(work),
            Ok(Err(error)) => Outcome::Failed { error: error.to_string() },
            // A library's panic must not end the other tasks.
            Err(_) => Outcome::Failed { error: "the task panicked".to_owned() },
        };
        let elapsed = started.elapsed();
        record(task, &outcome, elapsed);
        if let Outcome::Failed { error } = &outcome {
            warn!(%task, region = place.region.region, table, error, "maintenance task failed");
        }
        TaskReport {
            task,
            region: place.region.region.clone(),
            place: place.kind,
            table: table.to_owned(),
            started_at,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            retries,
            outcome,
        }
    }

    async fn run_task_at(&self, task: Task, place: &Place<'_>, table: &str) -> Result<Work, MaintenanceError> {
        let now = (self.clock)();
        let config = &self.config;
        if is_view_state(table) && !matches!(task, Task::Checkpoint | Task::LogCleanup | Task::Vacuum) {
            return Ok(Work::default());
        }
        match task {
            Task::Checkpoint => {
                checkpoint::run(place.storage, (&place.region.region, place.kind), table, &config.checkpoint).await
            }
            Task::LogCleanup => log_cleanup::run(place.storage, table, &config.log_cleanup, now).await,
            Task::Vacuum => vacuum::run(place.storage, table, &config.vacuum, now).await,
            Task::Archive => {
                let Some(archive) = &place.region.archive else { return Ok(Work::default()) };
                let (hot, region) = (place.storage, place.region.region.as_str());
                Archiver { hot, archive, region, table, config: &config.archive, now }.run().await
            }
            Task::Compaction | Task::Cluster | Task::Retention => {
                let Some(live) = LiveTable::open(place.storage, table).await? else { return Ok(Work::default()) };
                match task {
                    Task::Compaction => compact::run(&live, &config.compaction, now).await,
                    Task::Cluster => cluster::run(&live, &config.cluster, &config.compaction, now.date_naive()).await,
                    _ => retention::run(&live, &place.region.region, &config.retention.rules, now.date_naive()).await,
                }
            }
        }
    }

    /// The roots a task works on: archives hold files that never change, so only log, vacuum and
    /// retention have work there.
    fn places(&self, task: Task) -> Vec<Place<'_>> {
        let in_archive = !matches!(task, Task::Compaction | Task::Cluster | Task::Archive);
        let mut places = Vec::new();
        for region in &self.regions {
            places.push(Place { region, kind: PlaceKind::Hot, storage: &region.hot });
            if let (true, Some(archive)) = (in_archive, &region.archive) {
                places.push(Place { region, kind: PlaceKind::Archive, storage: archive });
            }
        }
        places
    }

    async fn tables_at(&self, place: &Place<'_>) -> Result<Vec<String>, MaintenanceError> {
        if !self.config.tables.is_empty() {
            return Ok(self.config.tables.clone());
        }
        let store = place.storage.store();
        let fail = |source| MaintenanceError::Object { path: "/".to_owned(), source };
        let folders = match store.list_with_delimiter(None).await {
            Ok(listed) => listed.common_prefixes,
            // A local root that nobody has written to yet.
            Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(fail(error)),
        };
        let mut tables = Vec::new();
        for folder in folders {
            let Some(name) = folder.filename().map(str::to_owned) else { continue };
            if name.starts_with(['_', '.']) {
                continue;
            }
            let log = Path::from(format!("{name}/_delta_log"));
            if store.list(Some(&log)).next().await.transpose().map_err(fail)?.is_some() {
                tables.push(name);
            }
        }
        Ok(tables)
    }

    fn is_enabled(&self, task: Task) -> bool {
        let c = &self.config;
        match task {
            Task::Compaction => c.compaction.enabled,
            Task::Cluster => c.cluster.enabled,
            Task::Retention => c.retention.enabled && !c.retention.rules.is_empty(),
            // Unfinished moves are settled even where nothing new is to be moved.
            Task::Archive => c.archive.enabled && self.regions.iter().any(|r| r.archive.is_some()),
            Task::Checkpoint => c.checkpoint.enabled,
            Task::LogCleanup => c.log_cleanup.enabled,
            Task::Vacuum => c.vacuum.enabled,
        }
    }

    fn interval(&self, task: Task) -> Duration {
        let c = &self.config;
        match task {
            Task::Compaction => c.compaction.interval,
            Task::Cluster => c.cluster.interval,
            Task::Retention => c.retention.interval,
            Task::Archive => c.archive.interval,
            Task::Checkpoint => c.checkpoint.interval,
            Task::LogCleanup => c.log_cleanup.interval,
            Task::Vacuum => c.vacuum.interval,
        }
    }
}

/// State of a view is folded by the view's owner, and means nothing outside its own table.
fn is_view_state(table: &str) -> bool {
    table.starts_with("view_")
}

fn record(task: Task, outcome: &Outcome, elapsed: Duration) {
    let result = match outcome {
        Outcome::Done(_) => "done",
        Outcome::Failed { .. } => "failed",
    };
    metrics::counter!("companyos_maintenance_runs_total", "task" => task.name(), "result" => result).increment(1);
    metrics::histogram!("companyos_maintenance_run_seconds", "task" => task.name()).record(elapsed.as_secs_f64());
    if let Outcome::Done(work) = outcome {
        let add = |name: &'static str, value: u64| metrics::counter!(name, "task" => task.name()).increment(value);
        add("companyos_maintenance_commits_total", work.commits);
        add("companyos_maintenance_files_removed_total", work.files_removed);
        add("companyos_maintenance_files_added_total", work.files_added);
        add("companyos_maintenance_bytes_removed_total", work.bytes_removed);
        add("companyos_maintenance_bytes_added_total", work.bytes_added);
        add("companyos_maintenance_rows_total", work.rows);
    }
}
