//! Vacuum: deletes files that no version within the retention refers to, and orphans of attempts
//! that never committed.
//!
//! delta-rs plans; the plan is checked against the newest version before anything is deleted, and
//! nothing is written to the log, so that vacuum never competes with writers for versions.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use companyos_sinks::storage::Storage;
use deltalake::operations::vacuum::{Clock, VacuumMode};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use tracing::info;

use crate::{MaintenanceError, VacuumConfig, Work, live_table::LiveTable};

/// Deletes what nobody needs any more.
pub(crate) async fn run(
    storage: &Storage,
    name: &str,
    config: &VacuumConfig,
    now: DateTime<Utc>,
) -> Result<Work, MaintenanceError> {
    let Some(table) = LiveTable::open(storage, name).await? else { return Ok(Work::default()) };
    check_tombstones(&table, config.retention)?;
    // Removed files go by the time of their removal, orphans by their age in the store.
    let mut plan = BTreeSet::new();
    if config.retention < config.orphan_age {
        plan.extend(dry_run(&table, VacuumMode::Lite, config.retention, now).await?);
    }
    plan.extend(dry_run(&table, VacuumMode::Full, config.retention.max(config.orphan_age), now).await?);
    let mut work = Work { version: Some(table.version), ..Default::default() };
    if plan.is_empty() {
        return Ok(work);
    }
    // A file may have been committed between the plan's version and its listing.
    let Some(latest) = LiveTable::open(storage, name).await? else { return Ok(work) };
    let live: HashSet<Path> = latest.files.iter().map(|f| f.object_path()).collect();
    let doomed: Vec<Path> = plan
        .iter()
        .map(|p| Path::parse(p).unwrap_or_else(|_| Path::from(p.as_str())))
        .filter(|p| !live.contains(p))
        .collect();
    let store = latest.log_store.object_store(None);
    let deleted: Vec<Path> = store
        .delete_stream(stream::iter(doomed).map(Ok).boxed())
        .filter_map(|result| async {
            match result {
                // Another maintainer was faster.
                Err(object_store::Error::NotFound { .. }) => None,
                other => Some(other),
            }
        })
        .try_collect()
        .await
        .map_err(|source| MaintenanceError::Object { path: name.to_owned(), source })?;
    work.files_removed = deleted.len() as u64;
    info!(table = name, files = deleted.len(), "vacuumed");
    Ok(work)
}

async fn dry_run(
    table: &LiveTable,
    mode: VacuumMode,
    age: Duration,
    now: DateTime<Utc>,
) -> Result<Vec<String>, MaintenanceError> {
    let (_, plan) = table
        .delta()
        .clone()
        .vacuum()
        .with_mode(mode)
        .with_clock(Arc::new(FixedClock(now.timestamp_millis())))
        .with_retention_period(chrono::Duration::from_std(age).unwrap_or(chrono::Duration::MAX))
        // The lower bound is our own configuration's, which also covers tables of other writers.
        .with_enforce_retention_duration(false)
        .with_dry_run(true)
        .await
        .map_err(|e| MaintenanceError::delta(&table.name, e))?;
    Ok(plan.files_deleted)
}

#[derive(Debug)]
struct FixedClock(i64);

impl Clock for FixedClock {
    fn current_timestamp_millis(&self) -> i64 {
        self.0
    }
}

/// Checkpoints forget removed files after the table's own retention; from then on a removed file
/// looks like an orphan and would go by its age alone, earlier than this task's retention says.
fn check_tombstones(table: &LiveTable, retention: Duration) -> Result<(), MaintenanceError> {
    let state = table.delta().snapshot().map_err(|e| MaintenanceError::delta(&table.name, e))?;
    let kept = state.table_config().deleted_file_retention_duration.unwrap_or(Duration::from_secs(7 * 24 * 3600));
    match retention <= kept {
        true => Ok(()),
        false => Err(MaintenanceError::Unsupported {
            table: table.name.clone(),
            problem: format!(
                "keeps removed files on record for {kept:?} only (delta.deletedFileRetentionDuration), \
                 less than maintenance.vacuum.retention {retention:?}"
            ),
        }),
    }
}
