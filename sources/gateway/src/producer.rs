//! The Kafka side: an idempotent producer that says of each record whether all replicas have it.

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    message::OwnedHeaders,
    producer::{FutureProducer, FutureRecord, Producer, future_producer::Delivery},
};

use crate::{GatewayError, ProducerConfig};

/// When a client should come back after Kafka could not be reached.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Room for key, headers and protocol around an event.
const RECORD_OVERHEAD: usize = 64 * 1024;
/// How long a broker may take to answer the readiness check.
const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// Settings the promise behind a 202 rests on, by every name librdkafka knows them.
const RESERVED: [&str; 4] =
    ["enable.idempotence", "acks", "request.required.acks", "max.in.flight.requests.per.connection"];

/// The producer, replaced by a fresh one should librdkafka declare it unusable.
pub struct EventProducer {
    settings: ClientConfig,
    queue_timeout: Duration,
    current: RwLock<FutureProducer>,
}

/// One event on its way.
pub struct OutgoingRecord<'a> {
    pub topic: &'a str,
    pub key: &'a str,
    pub value: &'a [u8],
    pub timestamp_ms: i64,
    pub headers: OwnedHeaders,
}

/// Why a record is not in Kafka, as far as we know.
#[derive(Debug)]
pub enum Undelivered {
    /// The broker takes no records of this size.
    TooLarge,
    /// No acknowledgement in time, or no room in the queue.
    Unavailable(KafkaError),
}

impl EventProducer {
    /// Connects in the background; a broker that is down shows when something is sent.
    pub fn new(config: &ProducerConfig, max_event_bytes: usize) -> Result<Self, GatewayError> {
        if let Some(key) = config.kafka.keys().find(|key| RESERVED.contains(&key.as_str())) {
            return Err(GatewayError::ReservedSetting { key: key.clone() });
        }
        let mut settings = ClientConfig::new();
        settings
            .set("bootstrap.servers", &config.bootstrap_servers)
            .set("client.id", "companyos-gateway")
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "zstd")
            // As Java clients do: an event that is sent both ways meets its duplicate in one partition.
            .set("partitioner", "murmur2_random")
            .set("linger.ms", config.linger.as_millis().to_string())
            .set("message.timeout.ms", config.delivery_timeout.as_millis().to_string())
            .set("queue.buffering.max.kbytes", config.queue_kib.to_string())
            // An id longer than the event allows would be in the key a second time.
            .set("message.max.bytes", (2 * max_event_bytes + RECORD_OVERHEAD).to_string());
        for (key, value) in &config.kafka {
            settings.set(key, value);
        }
        let current = RwLock::new(settings.create().map_err(GatewayError::Producer)?);
        Ok(Self { settings, queue_timeout: config.queue_timeout, current })
    }

    /// Sends one record and waits until every in-sync replica has it.
    pub async fn send(&self, record: OutgoingRecord<'_>) -> Result<Delivery, Undelivered> {
        let producer = self.current.read().clone();
        let OutgoingRecord { topic, key, value, timestamp_ms, headers } = record;
        let record = FutureRecord::to(topic).key(key).payload(value).timestamp(timestamp_ms).headers(headers);
        producer.send(record, self.queue_timeout).await.map_err(|(error, _)| {
            self.replace_if_dead(&producer);
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => Undelivered::TooLarge,
                _ => Undelivered::Unavailable(error),
            }
        })
    }

    /// An idempotent producer that met a fatal error refuses everything from then on.
    fn replace_if_dead(&self, failed: &FutureProducer) {
        let Some((code, reason)) = failed.client().fatal_error() else { return };
        let mut current = self.current.write();
        if current.client().fatal_error().is_none() {
            return;
        }
        match self.settings.create() {
            Ok(fresh) => {
                tracing::error!(?code, reason, "the Kafka producer met a fatal error and was replaced");
                *current = fresh;
            }
            Err(error) => tracing::error!(%error, ?code, reason, "the Kafka producer met a fatal error"),
        }
    }

    /// Whether a broker answers.
    pub async fn ask(self: &Arc<Self>, topic: &str) -> Result<Result<(), KafkaError>, GatewayError> {
        let (producer, topic) = (self.current.read().clone(), topic.to_owned());
        let fetch = move || producer.client().fetch_metadata(Some(&topic), READY_TIMEOUT).map(|_| ());
        Ok(tokio::task::spawn_blocking(fetch).await?)
    }

    /// Waits until nothing is queued any more.
    pub async fn flush(self: &Arc<Self>, timeout: Duration) -> Result<(), GatewayError> {
        let producer = self.current.read().clone();
        tokio::task::spawn_blocking(move || producer.flush(timeout)).await?.map_err(GatewayError::Flush)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn settings_pass_through_except_those_that_would_lose_events() {
        let with = |key: &str, value: &str| {
            let kafka = BTreeMap::from([(key.to_owned(), value.to_owned())]);
            EventProducer::new(&ProducerConfig { kafka, ..ProducerConfig::default() }, 1024).map(|p| p.settings)
        };
        assert_eq!(with("compression.type", "lz4").unwrap().get("compression.type"), Some("lz4"));
        assert!(matches!(with("acks", "1"), Err(GatewayError::ReservedSetting { .. })));
        assert!(matches!(with("no.such.setting", "1"), Err(GatewayError::Producer(_))));
    }
}
