//! Views over real tables: whatever happens between commits, each view equals the batch query over
//! the version of the stream's table it says it stands at.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{
        ArrayRef, Date32Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
        new_null_array,
    },
    datatypes::DataType,
    util::display::{ArrayFormatter, FormatOptions},
};
use companyos_maintenance::{Maintainer, MaintenanceConfig, RegionStorage, Task, announce_erasure, erase};
use companyos_pipelines::views::{MaintainerSetup, Shard, ViewMaintainer, ViewRegistry, ViewsConfig};
use companyos_schemas::{Stream, arrow_schema};
use companyos_sinks::{
    delta::{DeltaSink, FileOptions, PartitionRows, RoutedBatch, TableEpoch, TableSpec},
    storage::Storage,
};
use companyos_views::ReadInput;
use deltalake::datafusion::{
    physical_plan::collect,
    prelude::{SessionConfig, SessionContext},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use url::Url;

const VIEW: &str = "CREATE OR REPLACE MATERIALIZED VIEW adoption AS SELECT feature, tumble(interval '1 day') AS day, \
                    count(*) AS n, count(DISTINCT user_id) AS users, last_value(role ORDER BY occurred_at) AS last_role \
                    FROM product_events GROUP BY feature, tumble(interval '1 day')";
const BATCH: &str = "SELECT tenant, env, region, feature, date_bin(interval '1 day', occurred_at) AS day, count(*) AS n, \
                     count(DISTINCT user_id) AS users, last_value(role ORDER BY occurred_at, _topic, _partition, _offset, \
                     _index) AS last_role FROM events GROUP BY 1, 2, 3, 4, 5";
const SESSIONS: &str = "CREATE MATERIALIZED VIEW sessions AS SELECT user_id, session(interval '10 minutes') AS began, \
                        count(*) AS n FROM product_events GROUP BY user_id, session(interval '10 minutes')";
const SESSIONS_BATCH: &str = "SELECT tenant, env, region, user_id, min(occurred_at) AS began, count(*) AS n FROM (SELECT \
    *, sum(b) OVER (PARTITION BY tenant, env, region, user_id ORDER BY occurred_at ROWS UNBOUNDED PRECEDING) AS s FROM \
    (SELECT *, CASE WHEN occurred_at - lag(occurred_at) OVER (PARTITION BY tenant, env, region, user_id ORDER BY \
    occurred_at) <= interval '10 minutes' THEN 0 ELSE 1 END AS b FROM events)) GROUP BY tenant, env, region, user_id, s";

struct World {
    _dir: tempfile::TempDir,
    storage: Storage,
    rng: StdRng,
    offset: i64,
    sink: Option<DeltaSink>,
    /// Events are of some days before it and a day after.
    start: i64,
}

impl World {
    fn new(seed: u64) -> Self {
        println!("seed {seed}");
        let dir = tempfile::tempdir().unwrap();
        let url = Url::from_directory_path(dir.path()).unwrap();
        let storage = Storage::open(&url, &BTreeMap::new()).unwrap();
        Self {
            _dir: dir,
            storage,
            rng: StdRng::seed_from_u64(seed),
            offset: 0,
            sink: None,
            start: 1_709_157_600_000_000,
        }
    }

    fn setup(&self, index: u32, of: u32) -> MaintainerSetup {
        MaintainerSetup {
            config: ViewsConfig { registry_interval: Duration::ZERO, ..ViewsConfig::default() },
            home: self.storage.clone(),
            region: Arc::from("eu"),
            storage: self.storage.clone(),
            archive: None,
            shard: Shard { index, of },
        }
    }

    fn maintainers(&self, of: u32) -> Vec<ViewMaintainer> {
        (0..of).map(|index| ViewMaintainer::new(self.setup(index, of))).collect()
    }

    /// Folders of state tables that hold files.
    fn state_files(&self) -> BTreeSet<String> {
        let mut tables = BTreeSet::new();
        for entry in std::fs::read_dir(self._dir.path()).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with("view_") && std::fs::read_dir(entry.path().join("_delta_log")).unwrap().next().is_some()
            {
                tables.insert(name);
            }
        }
        tables
    }

    async fn create(&self, sql: &str, shards: u32) {
        let mut registry = ViewRegistry::new(&self.storage);
        registry.create(sql, BTreeSet::from(["eu".to_owned()]), shards, false, false).await.unwrap();
    }

    /// One commit to the stream's table: late, early and tied events of four tenants.
    async fn write(&mut self, rows: usize) {
        if self.sink.is_none() {
            let spec = TableSpec {
                name: "product_events".into(),
                schema: arrow_schema::table_schema(Stream::ProductEvents),
                partition_columns: arrow_schema::PARTITION_COLUMNS.map(str::to_owned).to_vec(),
            };
            self.sink = Some(DeltaSink::open(&self.storage, spec, FileOptions::default()).await.unwrap());
        }
        let batch = self.events(rows);
        let column = |name: &str| batch.column_by_name(name).unwrap().clone();
        let (tenants, days) = (column("tenant"), column("day"));
        let text = |array: &ArrayRef, row| {
            ArrayFormatter::try_new(array, &FormatOptions::default()).unwrap().value(row).to_string()
        };
        let mut groups: BTreeMap<Vec<Arc<str>>, Vec<u32>> = BTreeMap::new();
        for row in 0..rows {
            let values = vec![Arc::from(text(&tenants, row)), Arc::from("eu"), Arc::from(text(&days, row))];
            groups.entry(values).or_default().push(row as u32);
        }
        let expected = (self.offset > 0).then(|| self.offset - 1);
        self.offset += rows as i64;
        let rows = RoutedBatch { batch, groups: groups.into_iter().collect() };
        let part = PartitionRows { app_id: "p/t/0".into(), expected, last: self.offset - 1, rows: vec![rows] };
        let sink = self.sink.as_mut().unwrap();
        let done = sink.commit(TableEpoch { epoch: 0, parts: vec![part] }).await.unwrap();
        assert!(done.fenced.is_empty());
    }

    fn events(&mut self, rows: usize) -> RecordBatch {
        let start = self.start;
        let rng = &mut self.rng;
        let schema = arrow_schema::table_schema(Stream::ProductEvents);
        let times: Vec<i64> = (0..rows).map(|_| start + rng.random_range(-3 * 1440..1440) * 60_000_000).collect();
        let mut words = |of: &[&str]| -> ArrayRef {
            Arc::new(StringArray::from_iter_values((0..rows).map(|_| of[rng.random_range(0..of.len())].to_owned())))
        };
        let offset = self.offset;
        let columns = schema.fields().iter().map(|field| -> ArrayRef {
            match field.name().as_str() {
                "tenant" => words(&["alpha", "beta", "gamma", "delta"]),
                "region" => words(&["eu"]),
                "env" => words(&["prod", "staging"]),
                "user_id" => words(&["u1", "u2", "u3", "u4", "u5"]),
                "feature" => words(&["search", "export"]),
                "role" => words(&["admin", "viewer"]),
                "occurred_at" | "_ingested_at" => {
                    Arc::new(TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC"))
                }
                "day" => {
                    Arc::new(Date32Array::from_iter_values(times.iter().map(|t| t.div_euclid(86_400_000_000) as i32)))
                }
                "_offset" => Arc::new(Int64Array::from_iter_values((0..rows as i64).map(|i| offset + i))),
                "_partition" | "_index" => Arc::new(Int32Array::from(vec![0; rows])),
                _ if field.data_type() == &DataType::Utf8 && !field.is_nullable() => words(&["x"]),
                _ => new_null_array(field.data_type(), rows),
            }
        });
        RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
    }

    /// The view as it is read, and the batch query over the stream's table, both now.
    async fn both(&self, view: &str, batch: &str) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
        let mut registry = ViewRegistry::new(&self.storage);
        registry.refresh().await.unwrap();
        let generation = registry.views()[view].current.clone().expect("the view is ready");
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        let state = self.storage.load_table(&generation.table).await.unwrap().unwrap();
        let input = ReadInput { state: state.table_provider().await.unwrap(), dimension: None };
        let plan = generation.plan.read(&context, input, None, &[]).await.unwrap();
        let ours = rows_of(&collect(plan, context.task_ctx()).await.unwrap());
        let events = self.storage.load_table("product_events").await.unwrap().unwrap();
        context.register_table("events", events.table_provider().await.unwrap()).unwrap();
        let batch = rows_of(&context.sql(batch).await.unwrap().collect().await.unwrap());
        (ours, batch)
    }

    async fn assert_current(&self, view: &str, batch: &str) {
        let (ours, batch) = self.both(view, batch).await;
        assert!(!batch.is_empty());
        assert_eq!(ours, batch);
    }
}

fn rows_of(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("∅");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        rows.extend(
            (0..batch.num_rows()).map(|row| columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>()),
        );
    }
    rows.sort();
    rows
}

async fn settle(maintainers: &mut [ViewMaintainer]) {
    loop {
        let mut moved = false;
        for maintainer in maintainers.iter_mut() {
            moved |= maintainer.round().await.unwrap();
        }
        if !moved {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_and_live_commits_meet_without_gap_or_overlap() {
    let mut world = World::new(1);
    for _ in 0..3 {
        world.write(50).await;
    }
    world.create(VIEW, 2).await;
    let mut maintainers = world.maintainers(2);
    settle(&mut maintainers).await;
    world.assert_current("adoption", BATCH).await;
    for _ in 0..40 {
        world.write(20).await;
        if world.rng.random_bool(0.7) {
            settle(&mut maintainers).await;
        }
        if world.rng.random_bool(0.3) {
            // A crash: what was not committed is forgotten, the rest is found in the table.
            maintainers = world.maintainers(2);
        }
        if world.rng.random_bool(0.2) {
            // A zombie beside the owner: whoever is late must not count twice.
            let mut zombies = world.maintainers(2);
            for zombie in &mut zombies {
                zombie.round().await.unwrap();
            }
            settle(&mut maintainers).await;
        }
    }
    settle(&mut maintainers).await;
    world.assert_current("adoption", BATCH).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_of_the_stream_changes_nothing() {
    let mut world = World::new(2);
    world.create(VIEW, 1).await;
    world.create(SESSIONS, 1).await;
    world.write(100).await;
    let mut maintainers = world.maintainers(1);
    settle(&mut maintainers).await;
    for _ in 0..30 {
        world.write(30).await;
        settle(&mut maintainers).await;
    }
    let mut config = MaintenanceConfig::default();
    config.compaction.min_age = Duration::ZERO;
    let regions = vec![RegionStorage { region: "eu".into(), hot: world.storage.clone(), archive: None }];
    let maintenance = Maintainer::new(config, regions).unwrap();
    let reports = maintenance.run_all_once(&[Task::Compaction, Task::Checkpoint]).await.unwrap();
    assert!(reports.iter().all(|r| r.failures().next().is_none()), "{reports:?}");
    settle(&mut maintainers).await;
    world.assert_current("adoption", BATCH).await;
    world.assert_current("sessions", SESSIONS_BATCH).await;
    world.write(30).await;
    settle(&mut maintainers).await;
    world.assert_current("adoption", BATCH).await;
    world.assert_current("sessions", SESSIONS_BATCH).await;
    let state = ViewRegistry::new(&world.storage);
    let mut state = state;
    state.refresh().await.unwrap();
    let table = state.views()["adoption"].current.as_ref().unwrap().table.clone();
    let table = world.storage.load_table(&table).await.unwrap().unwrap();
    let files = table.snapshot().unwrap().log_data().num_files();
    assert!(files < 15, "{files} state files after 32 commits: state is not folded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_view_is_built_beside_the_old_one() {
    let mut world = World::new(3);
    world.write(80).await;
    world.create(VIEW, 1).await;
    let mut maintainers = world.maintainers(1);
    settle(&mut maintainers).await;
    world.assert_current("adoption", BATCH).await;
    let changed = VIEW.replace("GROUP BY feature,", "WHERE role = 'admin' GROUP BY feature,");
    world.create(&changed, 1).await;
    // Not built yet: the old one is read.
    world.assert_current("adoption", BATCH).await;
    settle(&mut maintainers).await;
    settle(&mut maintainers).await;
    let batch = BATCH.replace("FROM events", "FROM events WHERE role = 'admin'");
    world.assert_current("adoption", &batch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn archived_days_are_part_of_a_views_history_and_of_what_is_erased() {
    let mut world = World::new(9);
    let archive = tempfile::tempdir().unwrap();
    let url = Url::from_directory_path(archive.path()).unwrap();
    let archive = Storage::open(&url, &BTreeMap::new()).unwrap();
    world.write(200).await;
    world.create(SESSIONS, 1).await;
    let mut setup = world.setup(0, 1);
    setup.archive = Some(archive.clone());
    let mut maintainers = vec![ViewMaintainer::new(setup)];
    settle(&mut maintainers).await;
    world.assert_current("sessions", SESSIONS_BATCH).await;
    let (whole, _) = world.both("sessions", SESSIONS_BATCH).await;
    let mut config = MaintenanceConfig::default();
    config.archive.after_days = 30;
    let regions =
        vec![RegionStorage { region: "eu".into(), hot: world.storage.clone(), archive: Some(archive.clone()) }];
    let maintenance = Maintainer::new(config, regions).unwrap();
    let reports = maintenance.run_all_once(&[Task::Archive]).await.unwrap();
    assert!(reports.iter().all(|r| r.failures().next().is_none()), "{reports:?}");
    settle(&mut maintainers).await;
    let (ours, hot) = world.both("sessions", SESSIONS_BATCH).await;
    assert!(hot.is_empty(), "all days are old");
    assert_eq!(ours, whole, "rows that move stay in the view");
    // Made after the move, beside events of a day that is archived already.
    world.write(40).await;
    world.create(&SESSIONS.replace("sessions AS", "late AS"), 1).await;
    settle(&mut maintainers).await;
    let (kept, _) = world.both("sessions", SESSIONS_BATCH).await;
    let (late, _) = world.both("late", SESSIONS_BATCH).await;
    assert_eq!(late, kept);
    // The user's rows are in both roots; then somebody's that are in the archive only.
    let alphas = |rows: &[Vec<String>], user: &str| rows.iter().filter(|r| r[0] == "alpha" && r[3] == user).count();
    assert!(alphas(&kept, "u3") > 0);
    for root in [&archive, &world.storage] {
        erase(root, "product_events", "alpha", "user_id", "u3").await.unwrap();
    }
    settle(&mut maintainers).await;
    assert!(alphas(&kept, "u2") > 0);
    assert!(erase(&archive, "product_events", "alpha", "user_id", "u2").await.unwrap().rows > 0);
    erase(&world.storage, "product_events", "alpha", "user_id", "u2").await.unwrap();
    announce_erasure(&world.storage, "product_events", "alpha").await.unwrap();
    settle(&mut maintainers).await;
    let left: Vec<_> = kept.into_iter().filter(|r| !(r[0] == "alpha" && (r[3] == "u3" || r[3] == "u2"))).collect();
    for view in ["sessions", "late"] {
        assert_eq!(world.both(view, SESSIONS_BATCH).await.0, left, "{view}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn state_of_views_that_are_gone_is_deleted_after_a_while() {
    let mut world = World::new(7);
    world.write(50).await;
    world.create(VIEW, 2).await;
    let mut maintainers = world.maintainers(2);
    settle(&mut maintainers).await;
    let changed = VIEW.replace("GROUP BY feature,", "WHERE role = 'admin' GROUP BY feature,");
    world.create(&changed, 2).await;
    settle(&mut maintainers).await;
    settle(&mut maintainers).await;
    assert_eq!(world.state_files().len(), 2, "readers may be at the old table still");
    let soon = |index| {
        let mut setup = world.setup(index, 2);
        setup.config.keep_retired = Duration::ZERO;
        ViewMaintainer::new(setup)
    };
    let mut maintainers = vec![soon(0), soon(1)];
    settle(&mut maintainers).await;
    assert_eq!(world.state_files().len(), 1);
    let batch = BATCH.replace("FROM events", "FROM events WHERE role = 'admin'");
    world.assert_current("adoption", &batch).await;
    // The first definition once more: it starts from the history, not from what was there.
    world.create(VIEW, 2).await;
    settle(&mut maintainers).await;
    settle(&mut maintainers).await;
    world.assert_current("adoption", BATCH).await;
    assert_eq!(world.state_files().len(), 1);
    ViewRegistry::new(&world.storage).drop_view("adoption").await.unwrap();
    settle(&mut maintainers).await;
    assert!(world.state_files().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_beyond_the_retention_are_let_go() {
    const SQL: &str = "CREATE MATERIALIZED VIEW adoption WITH (retention = '30 days') AS SELECT \
                       tumble(interval '1 day') AS day, count(*) AS n FROM product_events \
                       GROUP BY tumble(interval '1 day')";
    let mut world = World::new(8);
    world.create(SQL, 1).await;
    let mut maintainers = world.maintainers(1);
    // All events are of 2024 but those of the last commits.
    for commit in 0..30 {
        if commit == 20 {
            world.start = chrono::Utc::now().timestamp_micros();
        }
        world.write(20).await;
        settle(&mut maintainers).await;
    }
    let kept = "SELECT tenant, env, region, date_bin(interval '1 day', occurred_at) AS day, count(*) AS n FROM events \
                WHERE occurred_at >= now() - interval '30 days' GROUP BY 1, 2, 3, 4";
    world.assert_current("adoption", kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_of_a_stream_without_events_is_ready_and_starts_with_the_first() {
    let mut world = World::new(4);
    world.create(VIEW, 1).await;
    let mut maintainers = world.maintainers(1);
    settle(&mut maintainers).await;
    let mut registry = ViewRegistry::new(&world.storage);
    registry.refresh().await.unwrap();
    assert!(registry.views()["adoption"].current.is_some());
    world.write(10).await;
    settle(&mut maintainers).await;
    world.assert_current("adoption", BATCH).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_user_is_out_of_every_view() {
    let mut world = World::new(6);
    world.create(VIEW, 2).await;
    world.create(SESSIONS, 2).await;
    world.write(100).await;
    let mut maintainers = world.maintainers(2);
    settle(&mut maintainers).await;
    for _ in 0..5 {
        world.write(60).await;
        settle(&mut maintainers).await;
    }
    // Rows before and after the erasure that the views have not taken in yet.
    world.write(60).await;
    let done = erase(&world.storage, "product_events", "alpha", "user_id", "u3").await.unwrap();
    assert!(done.rows > 10, "{done:?}");
    world.write(60).await;
    settle(&mut maintainers).await;
    world.assert_current("adoption", BATCH).await;
    world.assert_current("sessions", SESSIONS_BATCH).await;
    let again = erase(&world.storage, "product_events", "nobody", "user_id", "u3").await.unwrap();
    assert_eq!((again.rows, again.version), (0, None));
    let (sessions, _) = world.both("sessions", SESSIONS_BATCH).await;
    assert!(sessions.iter().any(|row| row[0] == "beta" && row[3] == "u3"), "another tenant's u3 stays");
    world.write(60).await;
    settle(&mut maintainers).await;
    world.assert_current("adoption", BATCH).await;
}
