//! How to reach Kafka: a few defaults that the engine relies on, and any librdkafka setting.

use std::{collections::BTreeMap, fmt};

use rdkafka::ClientConfig;
use serde::{Deserialize, Serialize};

/// `[kafka]` of the configuration.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// A stable name for this process makes its group membership static: a restart within
    /// `session.timeout.ms` moves no partitions. None means dynamic membership.
    pub instance_id: Option<String>,
    /// Any librdkafka setting (SASL, TLS, fetch sizes, …). They win over the engine's defaults,
    /// except those exactly-once depends on.
    #[serde(skip_serializing)]
    pub settings: BTreeMap<String, String>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self { brokers: "127.0.0.1:9092".to_owned(), instance_id: None, settings: BTreeMap::new() }
    }
}

// Settings hold passwords, so only their names are shown.
impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("instance_id", &self.instance_id)
            .field("settings", &self.settings.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl KafkaConfig {
    /// Settings common to every client of this cluster.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        for (key, value) in &self.settings {
            config.set(key, value);
        }
        config
    }

    /// Settings of a consumer in `group`.
    pub(crate) fn consumer(&self, group: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "10000")
            .set("statistics.interval.ms", "5000")
            // Bounds what librdkafka holds ahead of us, whatever the number of partitions.
            .set("queued.max.messages.kbytes", "32768")
            .set("fetch.max.bytes", "16777216")
            // A full queue is looked at again after this long; the default of a second would be the pace.
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.wait.max.ms", "50")
            .set("auto.offset.reset", "earliest");
        if let Some(id) = &self.instance_id {
            config.set("group.instance.id", id);
        }
        for (key, value) in &self.settings {
            config.set(key, value);
        }
        // Positions live in the tables; nothing else may move them.
        config.set("group.id", group).set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        config
    }
}
