//! A broker, a region's storage with a stream's table, and workers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::{Duration, Instant},
};

use companyos_pipelines::tasks::{OperatorJob, ShardTasks, TasksConfig, TasksSetup};
use companyos_schemas::{Stream, arrow_schema};
use companyos_sinks::{
    checkpoint::{NoticeError, NoticeSink, OutgoingNotice},
    delta::{DeltaSink, FileOptions, PartitionRows, RoutedBatch, TableEpoch, TableSpec},
    storage::Storage,
};
use companyos_source_broker::{BrokerOptions, EmbeddedBroker};
use companyos_source_kafka::KafkaConfig;
use deltalake::{
    arrow::{
        array::{ArrayRef, AsArray, Date32Array, Int64Array, RecordBatch, StringArray, new_null_array},
        compute::cast,
        datatypes::{DataType, Int64Type},
    },
    datafusion::prelude::SessionContext,
};
use tokio::sync::Mutex as AsyncMutex;

use crate::{counting::Counting, flaky::FlakyStore};

pub const SHARDS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Default)]
struct Collected(Mutex<BTreeSet<String>>);

#[async_trait::async_trait]
impl NoticeSink for Collected {
    async fn send(&self, notices: &[OutgoingNotice]) -> Result<(), NoticeError> {
        self.0.lock().unwrap().extend(notices.iter().map(|n| n.id.clone()));
        Ok(())
    }
}

pub struct World {
    broker: EmbeddedBroker,
    storage: Storage,
    sink: AsyncMutex<DeltaSink>,
    notices: Arc<Collected>,
    _dir: tempfile::TempDir,
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = url::Url::from_directory_path(dir.path()).unwrap();
        let storage = Storage::open(&url, &BTreeMap::new()).unwrap();
        let spec = TableSpec {
            name: Stream::ProductEvents.name().to_owned(),
            schema: arrow_schema::table_schema(Stream::ProductEvents),
            partition_columns: arrow_schema::PARTITION_COLUMNS.map(str::to_owned).to_vec(),
        };
        let sink = DeltaSink::open(&storage, spec, FileOptions::default()).await.unwrap();
        Self {
            broker: EmbeddedBroker::start(BrokerOptions::default()).await.unwrap(),
            storage,
            sink: AsyncMutex::new(sink),
            notices: Arc::default(),
            _dir: dir,
        }
    }

    /// Commits rows of a tenant, numbered for the commit's position.
    pub async fn append(&self, sequence: i64, tenant: &str, rows: usize) {
        let schema = arrow_schema::table_schema(Stream::ProductEvents);
        let columns = schema.fields().iter().map(|field| -> ArrayRef {
            match (field.name().as_str(), field.data_type()) {
                ("tenant", _) => Arc::new(StringArray::from(vec![tenant; rows])),
                (_, ty) if field.is_nullable() => new_null_array(ty, rows),
                (_, DataType::Utf8) => Arc::new(StringArray::from(vec!["x"; rows])),
                (_, DataType::Date32) => Arc::new(Date32Array::from(vec![20_000; rows])),
                (_, ty) => cast(&Int64Array::from(vec![1; rows]), ty).unwrap(),
            }
        });
        let batch = RecordBatch::try_new(schema.clone(), columns.collect()).unwrap();
        let values = [tenant, "x", "2024-10-04"].map(Arc::from).to_vec();
        let routed = RoutedBatch { batch, groups: vec![(values, (0..rows as u32).collect())] };
        let expected = (sequence > 0).then(|| sequence - 1);
        let part = PartitionRows { app_id: "test".into(), expected, last: sequence, rows: vec![routed] };
        let done = self.sink.lock().await.commit(TableEpoch { epoch: 1, parts: vec![part] }).await.unwrap();
        assert_eq!(done.rows, rows);
    }

    pub async fn worker(&self) -> ShardTasks {
        self.worker_on(self.storage.clone()).await
    }

    /// A worker whose store fails every so often, and the count of its failures.
    pub async fn flaky_worker(&self, seed: u64) -> (ShardTasks, Arc<AtomicU64>) {
        let failures = Arc::new(AtomicU64::new(0));
        let counted = failures.clone();
        let storage = self
            .storage
            .clone()
            .map_store(|inner| Arc::new(FlakyStore { inner, seed, calls: AtomicU64::new(0), failures: counted }));
        (self.worker_on(storage).await, failures)
    }

    async fn worker_on(&self, storage: Storage) -> ShardTasks {
        let config = TasksConfig {
            shards: SHARDS,
            poll_interval: Duration::from_millis(20),
            checkpoint_interval: Duration::from_millis(200),
            full_every: 3,
            ..TasksConfig::default()
        };
        let make = Arc::new(|_: &_| Ok(Box::new(Counting::new()) as Box<dyn companyos_stream::ShardOperator>));
        let job = OperatorJob::factory(make, &config, self.notices.clone());
        let setup = TasksSetup {
            config,
            group: "companyos".to_owned(),
            kafka: KafkaConfig {
                brokers: self.broker.bootstrap(),
                settings: BTreeMap::from([("session.timeout.ms".to_owned(), "6000".to_owned())]),
                ..KafkaConfig::default()
            },
            storages: HashMap::from([(Arc::from("eu"), storage)]),
            home_region: Arc::from("eu"),
            jobs: vec![("counting".to_owned(), job)],
        };
        ShardTasks::start(setup).await.unwrap()
    }

    /// Tenants and running counts, sorted.
    pub async fn counted(&self) -> Vec<(String, i64)> {
        let Some(table) = self.storage.load_table("counted").await.unwrap() else { return Vec::new() };
        let context = SessionContext::new();
        let frame = context.read_table(table.table_provider().await.unwrap()).unwrap();
        let mut rows = Vec::new();
        for batch in frame.select_columns(&["tenant", "n"]).unwrap().collect().await.unwrap() {
            let tenants = cast(batch.column(0), &DataType::Utf8).unwrap();
            let counts = batch.column(1).as_primitive::<Int64Type>();
            let tenants = tenants.as_string::<i32>();
            rows.extend((0..batch.num_rows()).map(|row| (tenants.value(row).to_owned(), counts.value(row))));
        }
        rows.sort();
        rows
    }

    pub fn notice_ids(&self) -> BTreeSet<String> {
        self.notices.0.lock().unwrap().clone()
    }
}

/// Polls `condition` until it holds.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
