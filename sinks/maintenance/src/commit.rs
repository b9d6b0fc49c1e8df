//! Committing changes that remove files, beside appenders and other maintainers.
//!
//! delta-rs' own conflict check lets two rewrites of the same file both commit: it looks at the
//! winners' `remove` actions only where `dataChange` is true, and a rewrite's never are. Two
//! compactions at once would each add the same rows, and a deletion that lost to a compaction
//! would leave the rows alive in the compacted file. So changes are committed here:
//!
//! - Every log entry after the version the plan was read from is looked at before the next
//!   version is written. If one removes or re-adds a file this change removes, changes the
//!   table's metadata or protocol, or moves this change's position, the change fails with
//!   [`MaintenanceError::Conflict`] and the caller plans anew. Appends never conflict.
//! - A lost reply is no unknown: the entry carries an id that is searched for in the log.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use chrono::Utc;
use deltalake::{
    DeltaTableError,
    kernel::{
        Action, Add, Remove, Transaction,
        transaction::{CommitData, TransactionError},
    },
    logstore::{CommitOrBytes, LogStoreRef},
    protocol::DeltaOperation,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::{MaintenanceError, live_table::LiveTable};

/// A change to commit, planned on one version of a table.
pub(crate) struct Change {
    pub removes: Vec<Remove>,
    pub adds: Vec<Add>,
    pub position: Option<Position>,
    pub operation: DeltaOperation,
    /// Lineage for the commit's metadata.
    pub lineage: Value,
}

/// A compare-and-swap on a `txn` version.
pub(crate) struct Position {
    pub app_id: String,
    /// The version to set. The one it replaces is that of the plan's table version.
    pub version: i64,
}

/// How long a store may refuse a log entry before the task gives up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// Commits the change on top of `table`, and returns the version that holds it.
pub(crate) async fn commit(table: &LiveTable, change: Change) -> Result<u64, MaintenanceError> {
    let id = Uuid::new_v4();
    let started = Instant::now();
    let attempt = Attempt {
        table: &table.name,
        log_store: &table.log_store,
        id: id.to_string(),
        removed: change.removes.iter().map(|r| r.path.clone()).collect(),
        app_id: change.position.as_ref().map(|p| p.app_id.clone()),
    };
    let entry = encode(&table.name, change, id)?;
    let mut version = table.version;
    attempt.check_no_gap(version).await?;
    let mut backoff = ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .build();
    loop {
        match attempt.catch_up(&mut version).await {
            Ok(Some(ours)) => return Ok(ours),
            Ok(None) => {}
            Err(error) if matches!(error, MaintenanceError::Delta { .. }) && started.elapsed() < GIVE_UP_AFTER => {
                pause(&mut backoff, &table.name, &error).await;
                continue;
            }
            Err(error) => return Err(error),
        }
        let bytes = CommitOrBytes::LogBytes(entry.clone());
        match table.log_store.write_commit_entry(version + 1, bytes, id).await {
            Ok(()) => {
                debug!(table = %table.name, version = version + 1, "committed");
                return Ok(version + 1);
            }
            Err(TransactionError::VersionAlreadyExists(_)) => {
                metrics::counter!("companyos_maintenance_commit_races_total").increment(1);
            }
            Err(error) => {
                let error = MaintenanceError::delta(&table.name, error.into());
                if started.elapsed() > GIVE_UP_AFTER {
                    return Err(error);
                }
                // It may have been written all the same; catching up tells.
                pause(&mut backoff, &table.name, &error).await;
            }
        }
    }
}

async fn pause(backoff: &mut impl Iterator<Item = Duration>, table: &str, error: &MaintenanceError) {
    let pause = backoff.next().unwrap_or(Duration::from_secs(5));
    warn!(%table, %error, ?pause, "the log did not answer; trying again");
    tokio::time::sleep(pause).await;
}

fn encode(table: &str, change: Change, id: Uuid) -> Result<Bytes, MaintenanceError> {
    let removes = change.removes.into_iter().map(Action::Remove);
    let actions = removes.chain(change.adds.into_iter().map(Action::Add)).collect();
    let mut lineage = change.lineage;
    if let Value::Object(fields) = &mut lineage {
        fields.insert("commit".to_owned(), json!(id));
    }
    let info: HashMap<String, Value> =
        [("isBlindAppend".to_owned(), json!(false)), ("companyos".to_owned(), lineage)].into();
    let now = Utc::now().timestamp_millis();
    let positions = change
        .position
        .into_iter()
        .map(|p| Transaction::new_with_last_update(p.app_id, p.version, Some(now)))
        .collect();
    CommitData::new(actions, change.operation, info, positions)
        .get_bytes()
        .map_err(|e| MaintenanceError::delta(table, DeltaTableError::from(e)))
}

struct Attempt<'a> {
    table: &'a str,
    log_store: &'a LogStoreRef,
    id: String,
    removed: HashSet<String>,
    app_id: Option<String>,
}

#[derive(Deserialize)]
struct LogLine {
    add: Option<Add>,
    remove: Option<Remove>,
    txn: Option<Transaction>,
    #[serde(rename = "metaData")]
    metadata: Option<serde::de::IgnoredAny>,
    protocol: Option<serde::de::IgnoredAny>,
}

impl Attempt<'_> {
    /// Reads on to the end of the log. The version of our own entry, if it is there.
    async fn catch_up(&self, version: &mut u64) -> Result<Option<u64>, MaintenanceError> {
        loop {
            let next = *version + 1;
            let entry = self.log_store.read_commit_entry(next).await;
            let Some(entry) = entry.map_err(|e| MaintenanceError::delta(self.table, e))? else { return Ok(None) };
            if std::str::from_utf8(&entry).is_ok_and(|text| text.contains(&self.id)) {
                return Ok(Some(next));
            }
            if let Some(problem) = self.conflict(&entry, next)? {
                metrics::counter!("companyos_maintenance_conflicts_total").increment(1);
                return Err(MaintenanceError::Conflict { table: self.table.to_owned(), version: next, problem });
            }
            *version = next;
        }
    }

    fn conflict(&self, entry: &Bytes, version: u64) -> Result<Option<&'static str>, MaintenanceError> {
        for line in entry.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let line: LogLine = serde_json::from_slice(line).map_err(|e| MaintenanceError::Unsupported {
                table: self.table.to_owned(),
                problem: format!("log entry {version} is not readable: {e}"),
            })?;
            if line.metadata.is_some() || line.protocol.is_some() {
                return Ok(Some("changed the table's metadata"));
            }
            if line.remove.is_some_and(|r| self.removed.contains(&r.path)) {
                return Ok(Some("removed a file this change removes"));
            }
            if line.add.is_some_and(|a| self.removed.contains(&a.path)) {
                return Ok(Some("added a file this change removes"));
            }
            if line.txn.is_some_and(|t| self.app_id.as_ref() == Some(&t.app_id)) {
                return Ok(Some("moved this change's position"));
            }
        }
        Ok(None)
    }

    /// A plan so old that log entries after it were cleaned up must not be committed: the missing
    /// next entry would look like the end of the log.
    async fn check_no_gap(&self, version: u64) -> Result<(), MaintenanceError> {
        match self.log_store.get_latest_version(version).await {
            Ok(_) => Ok(()),
            Err(DeltaTableError::InvalidVersion(_)) => Err(MaintenanceError::Conflict {
                table: self.table.to_owned(),
                version,
                problem: "was cleaned up from the log",
            }),
            Err(error) => Err(MaintenanceError::delta(self.table, error)),
        }
    }
}
