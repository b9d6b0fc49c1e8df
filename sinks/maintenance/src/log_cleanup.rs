//! Log clean-up: entries below a checkpoint go once they are older than the retention, so that
//! anyone who follows the log entry by entry and lags less than that finds every entry.

use chrono::{DateTime, Utc};
use companyos_sinks::storage::Storage;
use deltalake::{DeltaTableError, protocol::checkpoints::cleanup_expired_logs_for};
use tracing::info;

use crate::{LogCleanupConfig, MaintenanceError, Work, checkpoint::last_checkpoint};

/// Removes log entries and checkpoints that are both expired and below the last checkpoint.
pub(crate) async fn run(
    storage: &Storage,
    name: &str,
    config: &LogCleanupConfig,
    now: DateTime<Utc>,
) -> Result<Work, MaintenanceError> {
    let Some(checkpoint) = last_checkpoint(storage, name).await? else { return Ok(Work::default()) };
    let cutoff = now.timestamp_millis() - i64::try_from(config.retention.as_millis()).unwrap_or(i64::MAX);
    let log_store = storage.log_store(name);
    let latest = match log_store.get_latest_version(checkpoint).await {
        Ok(version) => version,
        // Another maintainer's older checkpoint became the hint last; the next one mends it.
        Err(DeltaTableError::InvalidVersion(_)) => return Ok(Work::default()),
        Err(error) => return Err(MaintenanceError::delta(name, error)),
    };
    // Nothing above this version goes, and readers of it keep a checkpoint to start from.
    let keep = checkpoint.min(latest.saturating_sub(config.keep_versions));
    let removed = cleanup_expired_logs_for(keep, log_store.as_ref(), cutoff, None)
        .await
        .map_err(|e| MaintenanceError::delta(name, e))?;
    if removed > 0 {
        info!(table = name, removed, below = keep, "old log entries removed");
    }
    Ok(Work { files_removed: removed as u64, version: Some(checkpoint), ..Default::default() })
}
