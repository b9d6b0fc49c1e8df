//! A broker, a folder for files, and a reader of what lies in a topic.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use companyos_source_broker::{BrokerOptions, EmbeddedBroker};
use companyos_source_replay::{ReplayError, ReplayOptions, ReplaySummary, replay};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Headers, OwnedMessage},
};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub const PARTITIONS: i32 = 3;
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Maps `{"id": …, "at": …}` rows, and rows of the same columns.
pub const MAP: &str = r#"
stream: product_events
fields:
  event_id: id
  occurred_at: at
  tenant: { const: acme }
  role: { const: editor }
  feature: { const: search }
  region: { const: eu-west-1 }
  env: { const: prod }
  client: { const: web }
  pii_classification: { const: none }
"#;

pub struct World {
    broker: EmbeddedBroker,
    pub dir: TempDir,
}

impl World {
    pub async fn start() -> Self {
        let broker = EmbeddedBroker::start(BrokerOptions::default()).await.unwrap();
        for topic in ["product_events", "security_signals"] {
            assert!(broker.create_topic(topic, PARTITIONS).await.unwrap());
        }
        Self { broker, dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Options for a file of the folder and [`MAP`].
    pub fn options(&self, file: &Path) -> ReplayOptions {
        self.options_by(file, &self.write("map.yaml", MAP))
    }

    pub fn options_by(&self, file: &Path, map: &Path) -> ReplayOptions {
        let mut options = ReplayOptions::new(file, map, self.broker.bootstrap());
        options.state_dir = Some(self.path("state"));
        options.progress = false;
        options
    }

    /// Every record of a topic, by partition and offset.
    pub async fn records(&self, topic: &str) -> Vec<OwnedMessage> {
        let (servers, topic) = (self.broker.bootstrap(), topic.to_owned());
        tokio::task::spawn_blocking(move || read_all(&servers, &topic)).await.unwrap()
    }

    /// Ids of the events in `product_events`, sorted, repeated ones repeated.
    pub async fn event_ids(&self) -> Vec<String> {
        let id = |r: &OwnedMessage| body(r)["event_id"].as_str().unwrap().to_owned();
        let mut ids: Vec<String> = self.records("product_events").await.iter().map(id).collect();
        ids.sort();
        ids
    }
}

pub async fn run(options: ReplayOptions) -> Result<ReplaySummary, ReplayError> {
    let replaying = replay(options, CancellationToken::new());
    tokio::time::timeout(DEADLINE, replaying).await.expect("the replay does not end")
}

pub fn body(record: &OwnedMessage) -> Value {
    serde_json::from_slice(record.payload().unwrap()).unwrap()
}

/// Why a row was sent as it is, if it was.
pub fn problem(record: &OwnedMessage) -> Option<String> {
    let header = record.headers()?.iter().find(|h| h.key == "companyos-replay-problem")?;
    Some(String::from_utf8(header.value.unwrap().to_vec()).unwrap())
}

/// `{"id": "r-0000", "at": …}` and so on, a second apart.
pub fn ndjson(rows: std::ops::Range<usize>) -> String {
    rows.map(|i| format!("{{\"id\":\"r-{i:04}\",\"at\":{},\"n\":{i}}}\n", 1_700_000_000 + i)).collect()
}

pub fn ids(rows: std::ops::Range<usize>) -> Vec<String> {
    rows.map(|i| format!("r-{i:04}")).collect()
}

fn read_all(servers: &str, topic: &str) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", "check")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    let mut expected = 0;
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        let (low, high) = consumer.fetch_watermarks(topic, partition, DEADLINE).unwrap();
        expected += usize::try_from(high - low).unwrap();
    }
    consumer.assign(&list).unwrap();
    let started = Instant::now();
    let mut records = Vec::new();
    while records.len() < expected {
        assert!(started.elapsed() < DEADLINE, "{} of {expected} records in {topic}", records.len());
        if let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) {
            records.push(record.detach());
        }
    }
    records.sort_by_key(|r| (r.partition(), r.offset()));
    records
}
