//! Settings of one partition's chain.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use companyos_schemas::Stream;
use serde::{Deserialize, Serialize};

/// Everything a chain must know about itself.
#[derive(Debug, Clone)]
pub struct ChainConfig {
    /// Contract of the events.
    pub stream: Stream,
    /// Topic they come from.
    pub topic: Arc<str>,
    /// Partition they come from.
    pub partition: i32,
    /// How bytes become columns.
    pub decode: DecodeConfig,
    /// How duplicates are found.
    pub dedup: DedupConfig,
}

/// Limits and defaults of the decoder.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DecodeConfig {
    /// How far `occurred_at` may be after the record's timestamp, in seconds.
    pub max_future_skew_seconds: u64,
    /// How far `occurred_at` may be before the record's timestamp, in days.
    pub max_age_days: u64,
    /// Longest record value that is read, in bytes.
    pub max_event_bytes: usize,
    /// Most objects and arrays inside one another, the event itself included.
    pub max_depth: usize,
    /// Most events in a record that holds a JSON array.
    pub max_events_per_record: usize,
    /// Values for fields an event lacks, by field name.
    pub defaults: BTreeMap<String, String>,
}

impl Default for DecodeConfig {
    fn default() -> Self {
        Self {
            max_future_skew_seconds: 600,
            max_age_days: 400,
            max_event_bytes: 1 << 20,
            max_depth: 64,
            max_events_per_record: 10_000,
            defaults: BTreeMap::new(),
        }
    }
}

/// Horizon and memory of the duplicate filter.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DedupConfig {
    /// How long an event id is remembered after its first arrival, in seconds; zero turns the
    /// filter off. Ids leave in steps of an eighth of the horizon, never before it.
    pub horizon_seconds: u64,
    /// Ids kept in memory per partition, at 17 to 34 bytes each; beyond them ids go to a local file,
    /// with two bytes each left in memory.
    pub max_entries: usize,
    /// Folder for those files; the system's temporary folder if not set. The files have no name, so
    /// a crash leaves nothing behind.
    pub spill_dir: Option<PathBuf>,
}

impl Default for DedupConfig {
    fn default() -> Self {
        // Seven eighths of 2^20 slots: the most a 17 MiB hash table holds before it doubles.
        Self { horizon_seconds: 3_600, max_entries: 917_504, spill_dir: None }
    }
}
