//! Configuration of maintenance, with defaults that are safe to run beside live writers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::zorder_key::MAX_COLUMNS;

const MIB: u64 = 1024 * 1024;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Maintenance, as configured under `[maintenance]`. Durations are texts such as `5m` or `7days`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaintenanceConfig {
    /// Tables to look after; empty means every table found below a region's root.
    pub tables: Vec<String>,
    /// Each interval is stretched by a random share of itself up to this (0 to 1), so that
    /// several maintainers and tasks do not march in step.
    pub jitter: f64,
    /// How often a task that met a conflict or a failing store is tried again within one run.
    pub max_retries: usize,
    /// Checkpoints of the Delta log.
    pub checkpoint: CheckpointConfig,
    /// Removal of old log entries.
    pub log_cleanup: LogCleanupConfig,
    /// Merging of small files.
    pub compaction: CompactionConfig,
    /// Clustering of closed days along a Z-order curve.
    pub cluster: ClusterConfig,
    /// Deletion of whole days that are past their retention.
    pub retention: RetentionConfig,
    /// Moving of old days to the region's archive.
    pub archive: ArchiveConfig,
    /// Deletion of files no version within reach refers to.
    pub vacuum: VacuumConfig,
}

impl Default for MaintenanceConfig {
    fn default() -> Self {
        Self {
            tables: Vec::new(),
            jitter: 0.2,
            max_retries: 5,
            checkpoint: CheckpointConfig::default(),
            log_cleanup: LogCleanupConfig::default(),
            compaction: CompactionConfig::default(),
            cluster: ClusterConfig::default(),
            retention: RetentionConfig::default(),
            archive: ArchiveConfig::default(),
            vacuum: VacuumConfig::default(),
        }
    }
}

/// Checkpoints of the Delta log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Whether the task runs.
    pub enabled: bool,
    /// How often it looks.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// A checkpoint is written once this many commits follow the last one.
    pub every_commits: u64,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { enabled: true, interval: Duration::from_secs(30), every_commits: 100 }
    }
}

/// Removal of old log entries.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogCleanupConfig {
    /// Whether the task runs.
    pub enabled: bool,
    /// How often.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Log entries younger than this stay, whatever the checkpoints: streaming readers and writers
    /// follow the log entry by entry. Less than an hour needs `force`.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    /// The newest this many versions stay whatever their age, so that even a forced retention does
    /// not cut off a writer that is a few commits behind.
    pub keep_versions: u64,
    /// Accept a retention below an hour.
    pub force: bool,
}

impl Default for LogCleanupConfig {
    fn default() -> Self {
        Self { enabled: true, interval: HOUR, retention: 7 * DAY, keep_versions: 1000, force: false }
    }
}

/// Merging of small files.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompactionConfig {
    /// Whether the task runs.
    pub enabled: bool,
    /// How often.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Size to merge up to, in bytes; also bounds the task's memory, to about three times this.
    pub target_bytes: u64,
    /// Fewest files worth merging.
    pub min_files: usize,
    /// Files younger than this are left alone.
    #[serde(with = "humantime_serde")]
    pub min_age: Duration,
    /// Most input bytes rewritten in one run of one table.
    pub max_bytes_per_run: u64,
    /// zstd level of the merged files, 1 to 22.
    pub zstd_level: i32,
}

impl Default for CompactionConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: Duration::from_secs(300),
            target_bytes: 64 * MIB,
            min_files: 4,
            min_age: Duration::from_secs(60),
            max_bytes_per_run: 2048 * MIB,
            zstd_level: 3,
        }
    }
}

/// Clustering of closed days along a Z-order curve, off unless columns are named.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterConfig {
    /// Whether the task runs.
    pub enabled: bool,
    /// How often.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Columns to cluster by, such as `feature` and `occurred_at`. Tables that lack one of them
    /// are left alone.
    pub columns: Vec<String>,
    /// Days younger than this many days are left to compaction.
    pub after_days: u32,
    /// Most input bytes sorted at once; a larger day is clustered in several runs.
    pub max_bytes_per_run: u64,
    /// Memory of the sort; beyond it the sort spills to the system's temporary folder.
    pub sort_memory_bytes: u64,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            interval: 6 * HOUR,
            columns: Vec::new(),
            after_days: 1,
            max_bytes_per_run: 1024 * MIB,
            sort_memory_bytes: 128 * MIB,
        }
    }
}

/// Deletion of whole days that are past their retention, from hot tables and archives.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionConfig {
    /// Whether the task runs.
    pub enabled: bool,
    /// How often.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Which days to keep. The rule that names the most wins; of equals, the one that keeps less.
    /// Rows no rule speaks of are kept.
    pub rules: Vec<RetentionRule>,
}

impl Default for RetentionConfig {
    fn default() -> Self {
        Self { enabled: true, interval: HOUR, rules: Vec::new() }
    }
}

/// How long rows are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionRule {
    /// Only in this region.
    #[serde(default)]
    pub region: Option<String>,
    /// Only in this table.
    #[serde(default)]
    pub table: Option<String>,
    /// Only rows of this tenant, in tables partitioned by tenant.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Full days to keep before today (UTC); at least 1.
    pub retention_days: u32,
}

/// Moving of old days to the region's archive.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ArchiveConfig {
    /// Whether the task runs (in regions that have an archive).
    pub enabled: bool,
    /// How often.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Days older than this many days are moved; 0 moves nothing.
    pub after_days: u32,
    /// Tables to archive; empty means all.
    pub tables: Vec<String>,
    /// Most bytes moved in one commit; a larger day takes several.
    pub max_bytes_per_commit: u64,
    /// Most bytes moved in one run of one table.
    pub max_bytes_per_run: u64,
    /// An unfinished move that nobody worked on for this long is taken over.
    #[serde(with = "humantime_serde")]
    pub take_over_after: Duration,
}

impl Default for ArchiveConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            interval: 6 * HOUR,
            after_days: 0,
            tables: Vec::new(),
            max_bytes_per_commit: 1024 * MIB,
            max_bytes_per_run: 16 * 1024 * MIB,
            take_over_after: HOUR,
        }
    }
}

/// Deletion of files no version within reach refers to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VacuumConfig {
    /// Whether the task runs.
    pub enabled: bool,
    /// How often.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Files removed from the table stay this long: readers of older versions need them. Less than
    /// 7 days needs `force`. More than the table's `delta.deletedFileRetentionDuration` (7 days by
    /// default) is refused by the task, as the log forgets removed files after that.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    /// Files no log entry names stay this long after they were stored, or for `retention` if that
    /// is longer: they may belong to a commit under way. Never less than an hour.
    #[serde(with = "humantime_serde")]
    pub orphan_age: Duration,
    /// Accept a retention below 7 days.
    pub force: bool,
}

impl Default for VacuumConfig {
    fn default() -> Self {
        Self { enabled: true, interval: 12 * HOUR, retention: 7 * DAY, orphan_age: 7 * DAY, force: false }
    }
}

/// A value that would break a promise of maintenance.
#[derive(Debug, thiserror::Error)]
#[error("maintenance.{field}: {problem}")]
pub struct ConfigError {
    /// Key below `[maintenance]`.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl MaintenanceConfig {
    /// Checks bounds; [`crate::Maintainer::new`] calls it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |field, problem: &str| Err(ConfigError { field, problem: problem.to_owned() });
        if !(0.0..=1.0).contains(&self.jitter) {
            return refuse("jitter", "must lie between 0 and 1");
        }
        if self.checkpoint.every_commits == 0 {
            return refuse("checkpoint.every_commits", "must be at least 1");
        }
        if self.log_cleanup.retention < HOUR && !self.log_cleanup.force {
            return refuse(
                "log_cleanup.retention",
                "less than 1h can cut off running writers; set force to accept that",
            );
        }
        if !(MIB / 1024..=1024 * MIB).contains(&self.compaction.target_bytes) {
            return refuse("compaction.target_bytes", "must lie between 1 KiB and 1 GiB");
        }
        if self.compaction.min_files < 2 {
            return refuse("compaction.min_files", "must be at least 2");
        }
        if !(1..=22).contains(&self.compaction.zstd_level) {
            return refuse("compaction.zstd_level", "must lie between 1 and 22");
        }
        if self.cluster.enabled && self.cluster.columns.is_empty() {
            return refuse("cluster.columns", "must name at least one column when clustering is enabled");
        }
        if self.cluster.columns.len() > MAX_COLUMNS {
            return refuse("cluster.columns", "must name at most 4 columns");
        }
        if self.cluster.sort_memory_bytes < 16 * MIB {
            return refuse("cluster.sort_memory_bytes", "must be at least 16 MiB");
        }
        if self.retention.rules.iter().any(|rule| rule.retention_days == 0) {
            return refuse("retention.rules.retention_days", "must be at least 1");
        }
        if self.vacuum.retention < 7 * DAY && !self.vacuum.force {
            return refuse("vacuum.retention", "less than 7days can break running readers; set force to accept that");
        }
        if self.vacuum.orphan_age < HOUR {
            return refuse("vacuum.orphan_age", "less than 1h can delete the files of a commit under way");
        }
        if self.log_cleanup.keep_versions == 0 {
            return refuse("log_cleanup.keep_versions", "must be at least 1");
        }
        for (field, interval) in [
            ("checkpoint.interval", self.checkpoint.interval),
            ("log_cleanup.interval", self.log_cleanup.interval),
            ("compaction.interval", self.compaction.interval),
            ("cluster.interval", self.cluster.interval),
            ("retention.interval", self.retention.interval),
            ("archive.interval", self.archive.interval),
            ("vacuum.interval", self.vacuum.interval),
        ] {
            if interval < Duration::from_millis(10) {
                return refuse(field, "must be at least 10ms");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_dangerous_values_are_refused_by_name() {
        MaintenanceConfig::default().validate().unwrap();
        let refused = |text: &str| {
            let config: MaintenanceConfig = toml::from_str(text).unwrap();
            config.validate().unwrap_err().field
        };
        assert_eq!(refused("[vacuum]\nretention = '1h'"), "vacuum.retention");
        assert_eq!(refused("[log_cleanup]\nretention = '1m'"), "log_cleanup.retention");
        assert_eq!(refused("[[retention.rules]]\nretention_days = 0"), "retention.rules.retention_days");
        assert_eq!(refused("[vacuum]\norphan_age = '10m'\nforce = true"), "vacuum.orphan_age");
        assert_eq!(refused("[cluster]\ncolumns = ['a', 'b', 'c', 'd', 'e']"), "cluster.columns");
        let forced: MaintenanceConfig = toml::from_str("[vacuum]\nretention = '1h'\nforce = true").unwrap();
        forced.validate().unwrap();
        assert!(toml::from_str::<MaintenanceConfig>("vaccum = 1").unwrap_err().to_string().contains("vaccum"));
    }

    #[test]
    fn what_is_written_can_be_read_again() {
        let text = toml::to_string(&MaintenanceConfig::default()).unwrap();
        let back: MaintenanceConfig = toml::from_str(&text).unwrap();
        assert_eq!(toml::to_string(&back).unwrap(), text);
    }
}
