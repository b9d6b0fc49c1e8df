//! `[tasks]` of the configuration.

use std::{collections::BTreeMap, time::Duration};

use companyos_sinks::webhook::WebhookConfig;
use serde::{Deserialize, Serialize};

/// How jobs that follow the tables' logs are run.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TasksConfig {
    /// Whether this worker runs any.
    pub enabled: bool,
    /// Shards of tenants. State is kept by shard, so a change starts all operators anew.
    pub shards: u32,
    /// Topic whose partitions stand for the shards; made if missing.
    pub topic: String,
    /// How often a log is looked at when there is nothing new.
    #[serde(with = "humantime_serde")]
    pub poll_interval: Duration,
    /// How long an operator works at most before its state is written. What it puts out is written
    /// and delivered at once.
    #[serde(with = "humantime_serde")]
    pub checkpoint_interval: Duration,
    /// Bytes of new files read in one go, per operator, region and shard.
    pub round_max_bytes: u64,
    /// Snapshots of changes after which all of the state is written again.
    pub full_every: usize,
    /// Topics by kind of notice; kinds that are not here go to no topic.
    pub topics: BTreeMap<String, String>,
    /// Topic for notices that a webhook did not take; empty drops them (they are in the tables).
    pub dead_letter_topic: String,
    /// Receivers of notices.
    pub webhooks: Vec<WebhookConfig>,
}

impl Default for TasksConfig {
    fn default() -> Self {
        let topic = |kind: &str, topic: &str| (kind.to_owned(), topic.to_owned());
        Self {
            enabled: true,
            shards: 4,
            topic: "companyos_tasks".to_owned(),
            poll_interval: Duration::from_millis(100),
            checkpoint_interval: Duration::from_secs(10),
            round_max_bytes: 32 << 20,
            full_every: 16,
            topics: BTreeMap::from([
                topic("slo_alert", "slo_alerts"),
                topic("view_alert", "view_alerts"),
                topic("detection", "findings"),
            ]),
            dead_letter_topic: "webhook_dead_letters".to_owned(),
            webhooks: Vec::new(),
        }
    }
}
