//! One test's world: a topic of its own, tables in a temporary folder, a producer, workers.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use companyos_operators::Sealer;
use companyos_pipelines::{Worker, WorkerConfig, WorkerError, WorkerHealth, WorkerSetup};
use companyos_schemas::{payload_hash, tenancy::Tenancy};
use companyos_sinks::storage::Storage;
use companyos_source_kafka::KafkaConfig;
use deltalake::{
    arrow::{array::RecordBatch, util::display::array_value_to_string},
    datafusion::prelude::SessionContext,
};
use futures::future::join_all;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{Consumer, StreamConsumer},
    message::{Header, Message, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use tokio::{sync::oneshot, task::JoinHandle};

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// See the module.
pub struct World {
    pub bootstrap: String,
    pub topic: String,
    pub tenancy: Arc<Tenancy>,
    pub storages: HashMap<Arc<str>, Storage>,
    _dir: tempfile::TempDir,
    producer: FutureProducer,
}

/// A worker that can be stopped.
pub struct Running {
    pub health: Arc<WorkerHealth>,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<Result<(), WorkerError>>,
}

impl Running {
    /// Stops it the orderly way.
    pub async fn stop(mut self) {
        drop(self.stop.take());
        self.ended.await.unwrap().unwrap();
    }

    /// Waits until it ends by itself, and says why.
    pub async fn failure(self) -> String {
        tokio::time::timeout(PATIENCE, self.ended).await.unwrap().unwrap().unwrap_err().to_string()
    }

    /// Waits until it owns `count` partitions.
    pub async fn owns(&self, count: usize) {
        until(&format!("{count} partitions are assigned"), async || self.health.partitions() == count).await;
    }
}

/// One record to send.
#[derive(Clone, Default)]
pub struct Sent {
    pub partition: Option<i32>,
    pub key: String,
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<(&'static str, String)>,
}

impl From<String> for Sent {
    fn from(payload: String) -> Self {
        Self { key: payload.clone(), payload: Some(payload.into_bytes()), ..Self::default() }
    }
}

/// A product event of tenant `tenant` in `region`, with `note` in its payload.
pub fn event(id: &str, tenant: &str, region: &str, note: &str) -> String {
    let payload = serde_json::json!({ "note": note }).to_string();
    let hash = payload_hash::compute(&payload);
    let now = chrono::Utc::now().to_rfc3339();
    format!(
        r#"{{"event_id":"{id}","occurred_at":"{now}","tenant":"{tenant}","role":"admin","feature":"search","region":"{region}","env":"prod","client":"web/1","pii_classification":"none","payload_hash":"{hash}","payload":{payload}}}"#
    )
}

impl World {
    /// A fresh one on the broker at `bootstrap`, with a topic of four partitions.
    pub async fn new(bootstrap: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let topic = format!("events-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::tempdir().unwrap();
        let root = |name: &str| url::Url::from_directory_path(dir.path().join(name)).unwrap();
        let tenancy: Tenancy = serde_json::from_value(serde_json::json!({
            "home_region": "eu",
            "regions": { "eu": { "storage": root("eu") }, "us": { "storage": root("us") } },
            "tenants": {
                "alpha": { "environments": ["prod", "dev"], "regions": ["eu", "us"] },
                "beta": { "environments": ["prod"], "regions": ["us"] },
            },
        }))
        .unwrap();
        tenancy.validate().unwrap();
        let storages = WorkerSetup::storages(&tenancy).unwrap();
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", bootstrap).set("message.max.bytes", "16000000");
        create_topic(&client.create().unwrap(), &topic).await.unwrap();
        let producer = client.set("enable.idempotence", "true").set("linger.ms", "2").create().unwrap();
        Self { bootstrap: bootstrap.to_owned(), topic, tenancy: Arc::new(tenancy), storages, _dir: dir, producer }
    }

    /// Deletes the topic and creates it again.
    pub async fn make_topic_anew(&self) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().unwrap();
        admin.delete_topics(&[&self.topic], &AdminOptions::new()).await.unwrap();
        until("the old topic is gone", async || create_topic(&admin, &self.topic).await.is_ok()).await;
    }

    /// Sends records and returns where they ended up, once the broker has them all.
    pub async fn send<S: Into<Sent>>(&self, records: impl IntoIterator<Item = S>) -> Vec<(i32, i64)> {
        let sends = records.into_iter().map(|record| {
            let sent: Sent = record.into();
            async move {
                let headers = sent
                    .headers
                    .iter()
                    .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
                let mut record = FutureRecord::to(&self.topic).key(&sent.key).headers(headers);
                record.payload = sent.payload.as_deref();
                record.partition = sent.partition;
                let delivery = self.producer.send(record, PATIENCE).await.unwrap();
                (delivery.partition, delivery.offset)
            }
        });
        join_all(sends).await
    }

    /// The first `count` records of another topic.
    pub async fn read_topic(&self, topic: &str, count: usize) -> Vec<Vec<u8>> {
        let consumer: StreamConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", format!("{topic}-reader"))
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        consumer.subscribe(&[topic]).unwrap();
        let mut records = Vec::new();
        while records.len() < count {
            let record = tokio::time::timeout(PATIENCE, consumer.recv()).await.unwrap().unwrap();
            records.push(record.payload().unwrap_or_default().to_vec());
        }
        records
    }

    /// Starts a worker with a quick commit interval.
    pub async fn worker(&self) -> Running {
        self.worker_with(|_| {}).await
    }

    /// Starts a worker after `change` has had a go at its set-up.
    pub async fn worker_with(&self, change: impl FnOnce(&mut WorkerSetup)) -> Running {
        let spec = format!("name: {0}\nstream: product_events\ntopics: [{0}]\n", self.topic);
        let mut setup = WorkerSetup {
            pipelines: vec![serde_yaml_ng::from_str(&spec).unwrap()],
            group: "companyos".to_owned(),
            config: WorkerConfig {
                commit_interval: Duration::from_millis(200),
                quarantine_topic: format!("{}-quarantine", self.topic),
                ..WorkerConfig::default()
            },
            kafka: KafkaConfig {
                brokers: self.bootstrap.clone(),
                settings: BTreeMap::from([("session.timeout.ms".to_owned(), "6000".to_owned())]),
                ..KafkaConfig::default()
            },
            tenancy: self.tenancy.clone(),
            redactor: None,
            sealer: Some(Arc::new(Sealer::new("test", [7; 32]))),
            storages: self.storages.clone(),
        };
        change(&mut setup);
        let worker = Worker::start(setup).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let health = worker.health();
        let ended = tokio::spawn(worker.run(async {
            let _ = stopped.await;
        }));
        Running { health, stop: Some(stop), ended }
    }

    /// Runs SQL over the tables of all regions, each known by its name and as `NAME_REGION`; a table
    /// that does not exist yet has the columns it will have. Cells as text.
    pub async fn sql(&self, sql: &str) -> Vec<Vec<String>> {
        let context = SessionContext::new();
        for table in ["product_events", "quarantine"] {
            let mut all = None;
            for (region, storage) in &self.storages {
                let frame = match storage.load_table(table).await.unwrap() {
                    Some(delta) => context.read_table(delta.table_provider().await.unwrap()).unwrap(),
                    None => {
                        let schema = match table {
                            "quarantine" => companyos_schemas::quarantine::table_schema(),
                            _ => {
                                companyos_schemas::arrow_schema::table_schema(companyos_schemas::Stream::ProductEvents)
                            }
                        };
                        context.read_batch(RecordBatch::new_empty(schema)).unwrap()
                    }
                };
                context.register_table(format!("{table}_{region}"), frame.clone().into_view()).unwrap();
                all = Some(match all {
                    None => frame,
                    Some(other) => frame.union_by_name(other).unwrap(),
                });
            }
            context.register_table(table, all.unwrap().into_view()).unwrap();
        }
        let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
        let mut rows = Vec::new();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let cells = batch.columns().iter().map(|c| array_value_to_string(c, row).unwrap());
                rows.push(cells.collect());
            }
        }
        rows
    }

    /// The single number a query answers.
    pub async fn count(&self, sql: &str) -> u64 {
        self.sql(sql).await[0][0].parse().unwrap()
    }

    /// Waits until `rows` rows and quarantined events are stored, then checks that no id is stored twice.
    pub async fn settled(&self, rows: u64, quarantined: u64) {
        let mut seen = (0, 0);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            seen = (
                self.count("SELECT count(*) FROM product_events").await,
                self.count("SELECT count(*) FROM quarantine").await,
            );
            if seen.0 >= rows && seen.1 >= quarantined {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(seen, (rows, quarantined), "rows and quarantined events");
        let twice = "SELECT tenant, event_id FROM product_events GROUP BY 1, 2 HAVING count(*) > 1";
        assert_eq!(self.sql(twice).await, Vec::<Vec<String>>::new(), "events stored twice");
    }
}

async fn create_topic(
    admin: &AdminClient<DefaultClientContext>,
    topic: &str,
) -> Result<(), rdkafka::types::RDKafkaErrorCode> {
    let new = NewTopic::new(topic, 4, TopicReplication::Fixed(1)).set("max.message.bytes", "16000000");
    let results = admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
    results.into_iter().try_for_each(|result| result.map(|_| ()).map_err(|(_, code)| code))
}

/// Polls `condition` until it holds.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "gave up waiting until {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
