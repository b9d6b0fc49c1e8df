//! Tables to maintain: real Delta tables in temporary folders, written by the real sink, read back
//! by DataFusion over delta-rs.

#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod faults;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, LazyLock},
};

use arrow::{
    array::{Array, AsArray, Int64Array, RecordBatch, StringArray},
    compute::cast,
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
};
use chrono::{DateTime, Utc};
use companyos_maintenance::{Maintainer, MaintenanceConfig, Manifest, RegionStorage, Report, TableView};
use companyos_sinks::{
    delta::{DeltaSink, FileOptions, PartitionRows, RoutedBatch, TableEpoch, TableSpec},
    storage::Storage,
};
use datafusion::prelude::SessionContext;
use deltalake::DeltaTable;
use tempfile::TempDir;
use url::Url;

pub const TABLE: &str = "product_events";

/// The clock of every test: a while after whatever it writes.
pub fn now() -> DateTime<Utc> {
    static NOW: LazyLock<DateTime<Utc>> = LazyLock::new(|| Utc::now() + chrono::Duration::hours(2));
    *NOW
}

/// The day this many days before [`now`].
pub fn day(age: i64) -> String {
    (now().date_naive() - chrono::Duration::days(age)).to_string()
}

/// A region with both roots in a temporary folder.
pub struct World {
    pub region: &'static str,
    dir: TempDir,
    pub hot: Storage,
    pub archive: Storage,
}

impl World {
    pub fn new(region: &'static str) -> Self {
        Self::at(region, tempfile::tempdir().unwrap())
    }

    /// The same files in another place.
    pub fn copy(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy_folder(self.dir.path(), dir.path());
        Self::at(self.region, dir)
    }

    fn at(region: &'static str, dir: TempDir) -> Self {
        let open = |name: &str| {
            let root = dir.path().join(name);
            std::fs::create_dir_all(&root).unwrap();
            Storage::open(&Url::from_directory_path(root).unwrap(), &BTreeMap::new()).unwrap()
        };
        let (hot, archive) = (open("hot"), open("archive"));
        Self { region, dir, hot, archive }
    }

    pub fn hot_folder(&self) -> std::path::PathBuf {
        self.dir.path().join("hot").join(TABLE)
    }

    pub fn archive_root(&self) -> std::path::PathBuf {
        self.dir.path().join("archive")
    }

    pub fn region(&self) -> RegionStorage {
        RegionStorage { region: self.region.into(), hot: self.hot.clone(), archive: Some(self.archive.clone()) }
    }

    /// The region with a store that fails by a plan.
    pub fn faulty_region(&self, faults: &Arc<faults::Faults>) -> RegionStorage {
        RegionStorage { region: self.region.into(), hot: faults.on(&self.hot), archive: Some(faults.on(&self.archive)) }
    }

    pub fn maintainer(&self, config: MaintenanceConfig) -> Maintainer {
        Maintainer::new(config, vec![self.region()]).unwrap().with_clock(now)
    }

    /// Rows of hot and archive together, as a reader at this moment sees them.
    pub async fn rows(&self) -> BTreeMap<String, usize> {
        let view = TableView::open(&self.hot, Some(&self.archive), TABLE).await.unwrap();
        rows_of(&view).await
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &to.join(entry.file_name())),
            false => std::fs::copy(entry.path(), to.join(entry.file_name())).map(|_| ()).unwrap(),
        }
    }
}

/// Everything on, every bound as short as it goes.
pub fn eager() -> MaintenanceConfig {
    toml::from_str(
        "max_retries = 30
         [checkpoint]
         every_commits = 5
         [log_cleanup]
         retention = '0s'
         keep_versions = 20
         force = true
         [compaction]
         min_age = '0s'
         min_files = 2
         [cluster]
         enabled = true
         columns = ['feature', 'seq']
         after_days = 1
         [archive]
         after_days = 10
         take_over_after = '1day'
         [vacuum]
         retention = '0s'
         orphan_age = '1day'
         force = true",
    )
    .unwrap()
}

pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("event_id", DataType::Utf8, false),
        Field::new("tenant", DataType::Utf8, false),
        Field::new("region", DataType::Utf8, false),
        Field::new("day", DataType::Date32, false),
        Field::new("feature", DataType::Utf8, true),
        Field::new("seq", DataType::Int64, false),
    ]))
}

pub fn spec() -> TableSpec {
    TableSpec {
        name: TABLE.into(),
        schema: schema(),
        partition_columns: ["tenant", "region", "day"].map(String::from).into(),
    }
}

/// An appender: one epoch is one commit, with the positions of `partitions` source partitions.
pub struct Appender {
    pub sink: DeltaSink,
    name: &'static str,
    region: &'static str,
    partitions: usize,
    epoch: u64,
    /// Every event committed, with its tenant and day.
    pub written: BTreeMap<String, (String, String)>,
}

impl Appender {
    pub async fn open(world: &World, name: &'static str, partitions: usize) -> Self {
        let sink = DeltaSink::open(&world.hot, spec(), FileOptions::default()).await.unwrap();
        Self { sink, name, region: world.region, partitions, epoch: 0, written: BTreeMap::new() }
    }

    pub fn app_ids(&self) -> Vec<Arc<str>> {
        (0..self.partitions).map(|p| format!("{}/topic/{p}", self.name).into()).collect()
    }

    /// The position every source partition should have.
    pub fn position(&self) -> Option<i64> {
        self.epoch.checked_sub(1).map(|epoch| epoch as i64)
    }

    /// Commits a few rows of each tenant for each of these days.
    pub async fn append(&mut self, days: &[String]) {
        let mut parts = Vec::new();
        for (n, app_id) in self.app_ids().into_iter().enumerate() {
            let mut groups: BTreeMap<(String, String), Vec<u32>> = BTreeMap::new();
            let (mut ids, mut tenants, mut of_day) = (Vec::new(), Vec::new(), Vec::new());
            for day in days {
                for tenant in ["alpha", "beta"] {
                    for k in 0..2 {
                        let row = ids.len() as u32;
                        groups.entry((tenant.into(), day.clone())).or_default().push(row);
                        ids.push(format!("{}-{}-{n}-{}-{day}-{tenant}-{k}", self.region, self.name, self.epoch));
                        tenants.push(tenant.to_owned());
                        of_day.push(day.clone());
                    }
                }
            }
            for ((id, tenant), day) in ids.iter().zip(&tenants).zip(&of_day) {
                self.written.insert(id.clone(), (tenant.clone(), day.clone()));
            }
            let batch = batch(&ids, &tenants, self.region, &of_day, self.epoch as i64);
            let groups = groups
                .into_iter()
                .map(|((tenant, day), rows)| (vec![tenant.into(), self.region.into(), day.into()], rows))
                .collect();
            parts.push(PartitionRows {
                app_id,
                expected: self.position(),
                last: self.epoch as i64,
                rows: vec![RoutedBatch { batch, groups }],
            });
        }
        let done = self.sink.commit(TableEpoch { epoch: self.epoch, parts }).await.unwrap();
        assert!(done.fenced.is_empty() && done.version.is_some(), "{done:?}");
        self.epoch += 1;
    }
}

fn batch(ids: &[String], tenants: &[String], region: &str, days: &[String], epoch: i64) -> RecordBatch {
    let text = |values: &[String]| Arc::new(StringArray::from_iter_values(values)) as Arc<dyn Array>;
    let features: Vec<String> = (0..ids.len()).map(|row| format!("feature-{}", row % 3)).collect();
    let seq = Int64Array::from_iter_values((0..ids.len() as i64).map(|row| epoch * 1000 + row));
    RecordBatch::try_new(
        schema(),
        vec![
            text(ids),
            text(tenants),
            text(&vec![region.to_owned(); ids.len()]),
            cast(&text(days), &DataType::Date32).unwrap(),
            text(&features),
            Arc::new(seq),
        ],
    )
    .unwrap()
}

/// How often each event is in the table as of this version.
pub async fn rows_in(table: &DeltaTable) -> BTreeMap<String, usize> {
    count(table, &BTreeSet::new()).await
}

/// The same over both roots, without the archive files that hot still has.
pub async fn rows_of(view: &TableView) -> BTreeMap<String, usize> {
    let mut rows = match &view.hot {
        Some(hot) => rows_in(hot).await,
        None => BTreeMap::new(),
    };
    if let Some(archive) = &view.archive {
        for (id, n) in count(archive, &view.unsettled).await {
            *rows.entry(id).or_default() += n;
        }
    }
    rows
}

async fn count(table: &DeltaTable, without: &BTreeSet<String>) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let files: Vec<String> = table.snapshot().unwrap().log_data().iter().map(|f| f.path().into_owned()).collect();
    if without.is_empty() {
        let provider = table.table_provider().await.unwrap();
        let frame = SessionContext::new().read_table(provider).unwrap();
        let frame = frame.select_columns(&["event_id", "seq"]).unwrap();
        let mut rows = 0;
        for batch in frame.collect().await.unwrap() {
            let ids = cast(batch.column(0), &DataType::Utf8).unwrap();
            for id in ids.as_string::<i32>().iter() {
                *found.entry(id.unwrap().to_owned()).or_default() += 1;
            }
            rows += batch.column(1).as_primitive::<Int64Type>().len();
        }
        // The statistics in the log say the same as the files.
        let logged: usize = table.snapshot().unwrap().log_data().iter().map(|f| f.num_records().unwrap()).sum();
        assert_eq!(logged, rows, "numRecords of {files:?}");
        return found;
    }
    let store = table.log_store().object_store(None);
    for path in files.into_iter().filter(|f| !without.contains(f)) {
        use object_store::ObjectStoreExt;
        let object = store.get(&object_store::path::Path::from(path)).await.unwrap().bytes().await.unwrap();
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(object, 1024).unwrap();
        for batch in reader {
            for id in batch.unwrap().column_by_name("event_id").unwrap().as_string::<i32>().iter() {
                *found.entry(id.unwrap().to_owned()).or_default() += 1;
            }
        }
    }
    found
}

/// Each of these once, and nothing else.
pub fn assert_once<'a>(found: &BTreeMap<String, usize>, wanted: impl IntoIterator<Item = &'a String>) {
    let wanted: BTreeSet<&String> = wanted.into_iter().collect();
    let missing: Vec<_> = wanted.iter().filter(|id| !found.contains_key(**id)).take(5).collect();
    let extra: Vec<_> = found.keys().filter(|id| !wanted.contains(id)).take(5).collect();
    let doubled: Vec<_> = found.iter().filter(|(_, n)| **n > 1).take(5).collect();
    assert!(
        missing.is_empty() && extra.is_empty() && doubled.is_empty(),
        "missing {missing:?}, extra {extra:?}, doubled {doubled:?}"
    );
}

pub fn assert_clean(report: &Report) {
    let failures: Vec<_> = report.failures().collect();
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Paths of all live files of a table.
pub async fn files(storage: &Storage) -> BTreeSet<String> {
    let Some(table) = storage.load_table(TABLE).await.unwrap() else { return BTreeSet::new() };
    table.snapshot().unwrap().log_data().iter().map(|f| f.path().into_owned()).collect()
}

/// All settled manifests of the table, oldest first within a partition.
pub fn manifests(world: &World) -> Vec<Manifest> {
    fn walk(folder: &Path, found: &mut Vec<Manifest>) {
        let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            match path.is_dir() {
                true => walk(&path, found),
                false => found.push(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()),
            }
        }
    }
    let mut found = Vec::new();
    walk(&world.archive_root().join("_manifests").join(TABLE), &mut found);
    found
}
