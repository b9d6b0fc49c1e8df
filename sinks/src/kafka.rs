//! The Kafka sink: quarantine rows and alerts as records, each keyed so that a reader can drop the
//! repeats a crash may cause (at least once; the tables are what is exactly once).

use std::{collections::BTreeMap, time::Duration};

use futures::future::try_join_all;
use rdkafka::{
    ClientConfig,
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer},
};

/// An idempotent producer to any topics of one cluster.
#[derive(Clone)]
pub struct KafkaSink {
    producer: FutureProducer,
}

/// One record to send.
#[derive(Debug)]
pub struct OutgoingRecord {
    /// Key; equal keys keep their order.
    pub key: String,
    /// Value.
    pub payload: Vec<u8>,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
}

/// A record Kafka did not take.
#[derive(Debug, thiserror::Error)]
#[error("topic {topic}: {source}")]
pub struct KafkaSinkError {
    topic: String,
    source: KafkaError,
}

impl KafkaSink {
    /// Connects lazily; `settings` are librdkafka's and override the defaults.
    pub fn new(brokers: &str, settings: &BTreeMap<String, String>) -> Result<Self, KafkaSinkError> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "zstd")
            // As Java clients do: equal keys go to one partition, whoever sends them.
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5");
        for (key, value) in settings {
            config.set(key, value);
        }
        let producer = config.create().map_err(|source| KafkaSinkError { topic: "(producer)".to_owned(), source })?;
        Ok(Self { producer })
    }

    /// Sends the records and returns when the brokers have all of them.
    pub async fn send_all(&self, topic: &str, records: Vec<OutgoingRecord>) -> Result<(), KafkaSinkError> {
        for chunk in records.chunks(IN_FLIGHT) {
            try_join_all(chunk.iter().map(|record| self.send(topic, record))).await?;
        }
        Ok(())
    }

    async fn send(&self, topic: &str, record: &OutgoingRecord) -> Result<(), KafkaSinkError> {
        let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_str()) })
        });
        let outgoing = FutureRecord::to(topic).key(&record.key).payload(&record.payload).headers(headers);
        self.producer
            .send(outgoing, SEND_TIMEOUT)
            .await
            .map(|_| ())
            .map_err(|(source, _)| KafkaSinkError { topic: topic.to_owned(), source })
    }

    /// Waits until what was handed over is sent.
    pub fn flush(&self, timeout: Duration) -> Result<(), KafkaSinkError> {
        self.producer.flush(timeout).map_err(|source| KafkaSinkError { topic: "(flush)".to_owned(), source })
    }
}

const IN_FLIGHT: usize = 1000;
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
