//! The commit protocol: files first, then one log entry that makes them and the positions visible
//! together, guarded by a compare-and-swap on the positions.
//!
//! Promises:
//! - A partition's rows are in a commit only if the table stood exactly where they continue from.
//!   A worker that lost the partition finds another position and leaves the rows out (fenced).
//! - A reply that was lost is not an unknown: every log entry carries a commit id, and when the
//!   version is taken the winner is read. If it is ours, the commit happened.
//! - A log entry is only ever written at the version after the last one absorbed.
//!
//! Appends are blind (they read no rows), so another writer's commit in between never invalidates
//! them; only its `txn` actions matter. Nothing here removes files, so nothing has to re-plan.

use std::{sync::Arc, time::Duration, time::Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use deltalake::{
    DeltaTableError,
    kernel::{
        Action, Add, Transaction,
        transaction::{CommitData, TransactionError},
    },
    logstore::CommitOrBytes,
    protocol::{DeltaOperation, SaveMode},
};
use serde::Deserialize;
use serde_json::json;
use tracing::{debug, warn};
use uuid::Uuid;

use super::{
    DeltaSink, DeltaSinkError, TableEpoch,
    encode::{remove_files, write_files},
};

/// What became of an epoch in one table.
#[derive(Debug, Default)]
pub struct Committed {
    /// Version that holds it; none if nothing was left to commit.
    pub version: Option<u64>,
    /// Partitions whose rows were left out because another worker had moved them on.
    pub fenced: Vec<Arc<str>>,
    /// Rows made visible.
    pub rows: usize,
    /// Files made visible.
    pub files: usize,
    /// Bytes of those files.
    pub bytes: u64,
}

/// An epoch that is not in the table, given back whole.
#[derive(Debug)]
pub struct Uncommitted {
    /// Why.
    pub error: DeltaSinkError,
    /// The epoch, to be tried again if the error is transient.
    pub epoch: TableEpoch,
}

/// After this long without looking, log entries may have been cleaned up behind our back, and
/// writing "the next version" blindly could revive a number that is long past.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(600);

impl DeltaSink {
    /// Commits an epoch. Retries transient failures of the log without limit (the caller bounds it
    /// by dropping the future); an error from storing files may be retried with the same epoch.
    pub async fn commit(&mut self, mut epoch: TableEpoch) -> Result<Committed, Box<Uncommitted>> {
        match self.try_commit(&mut epoch).await {
            Ok(done) => Ok(done),
            Err(error) => Err(Box::new(Uncommitted { error, epoch })),
        }
    }

    async fn try_commit(&mut self, epoch: &mut TableEpoch) -> Result<Committed, DeltaSinkError> {
        self.know_positions(epoch).await?;
        let mut done = Committed::default();
        self.drop_settled(epoch, &mut done);
        let store = self.log_store.object_store(None);
        let mut adds = Vec::new();
        let mut encoded_parts = usize::MAX;
        let commit_id = Uuid::new_v4();
        let mut backoff = endless_backoff();
        while !epoch.parts.is_empty() {
            if encoded_parts != epoch.parts.len() {
                // First round, or a partition was fenced: its rows are inside files with others'.
                remove_files(&store, &adds).await;
                adds = write_files(&self.spec, &self.files, &store, &epoch.parts).await?;
                encoded_parts = epoch.parts.len();
            }
            let entry = self.log_entry(epoch, &adds, commit_id)?;
            let target = self.version + 1;
            let written = self.log_store.write_commit_entry(target, CommitOrBytes::LogBytes(entry), commit_id).await;
            let failure = match written {
                Ok(()) => return Ok(self.settle(epoch, adds, done)),
                Err(TransactionError::VersionAlreadyExists(_)) => None,
                Err(error) => Some(error),
            };
            // Either somebody was faster, or the reply was lost after the entry was stored.
            match self.catch_up(Some(commit_id)).await {
                Ok(true) => return Ok(self.settle_at(self.version, epoch, adds, done)),
                Ok(false) => {}
                Err(error) if error.is_transient() => warn!(table = %self.spec.name, %error, "cannot read the log yet"),
                Err(error) => return Err(error),
            }
            self.drop_settled(epoch, &mut done);
            metrics::counter!("companyos_delta_commit_retries_total", "table" => self.spec.name.clone()).increment(1);
            if let Some(error) = failure {
                let pause = backoff.next().unwrap_or(Duration::from_secs(5));
                warn!(table = %self.spec.name, %error, ?pause, "commit not accepted; trying again");
                tokio::time::sleep(pause).await;
            }
        }
        remove_files(&store, &adds).await;
        Ok(done)
    }

    /// Reads log entries newer than the last one absorbed, keeping the positions they set.
    /// True if one of them carries `commit_id`, in which case nothing after it is read.
    async fn catch_up(&mut self, commit_id: Option<Uuid>) -> Result<bool, DeltaSinkError> {
        let id = commit_id.map(|id| id.to_string());
        loop {
            let next = self.version + 1;
            let entry = self.log_store.read_commit_entry(next).await.map_err(|e| self.delta(e))?;
            let Some(entry) = entry else {
                self.seen_at = Instant::now();
                return Ok(false);
            };
            self.absorb(&entry)?;
            self.version = next;
            if id.as_deref().is_some_and(|id| contains(&entry, id)) {
                return Ok(true);
            }
        }
    }

    fn absorb(&mut self, entry: &Bytes) -> Result<(), DeltaSinkError> {
        let problem = |problem: String| DeltaSinkError::Log { table: self.spec.name.clone(), problem };
        for line in entry.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let line: LogLine = serde_json::from_slice(line)
                .map_err(|e| problem(format!("log entry {} is not readable: {e}", self.version + 1)))?;
            if line.protocol.is_some() {
                return Err(problem(
                    "the table's protocol was changed by another writer; restart to re-check it".into(),
                ));
            }
            if let Some(txn) = line.txn
                && let Some(known) = self.positions.get_mut(&txn.app_id)
            {
                *known = Some(txn.version);
            }
        }
        Ok(())
    }

    async fn know_positions(&mut self, epoch: &TableEpoch) -> Result<(), DeltaSinkError> {
        let unknown = epoch.parts.iter().any(|p| !self.positions.contains_key(p.app_id.as_ref()));
        if unknown || self.seen_at.elapsed() > LOOK_AGAIN_AFTER {
            let mut ids: Vec<Arc<str>> = self.positions.keys().map(|k| Arc::from(k.as_str())).collect();
            ids.extend(epoch.parts.iter().map(|p| p.app_id.clone()));
            ids.sort_unstable();
            ids.dedup();
            self.load_positions(&ids).await?;
        }
        Ok(())
    }

    /// Takes out the partitions that another worker moved on, and those already committed.
    fn drop_settled(&self, epoch: &mut TableEpoch, done: &mut Committed) {
        epoch.parts.retain(|part| {
            let found = self.positions.get(part.app_id.as_ref()).copied().flatten();
            if found == part.expected {
                return true;
            }
            if found != Some(part.last) {
                warn!(
                    table = %self.spec.name, partition = %part.app_id, expected = ?part.expected, ?found,
                    "another worker moved this partition on; its rows are left out"
                );
                metrics::counter!("companyos_delta_fenced_total", "table" => self.spec.name.clone()).increment(1);
                done.fenced.push(part.app_id.clone());
            }
            false
        });
    }

    fn log_entry(&self, epoch: &TableEpoch, adds: &[Add], commit_id: Uuid) -> Result<Bytes, DeltaSinkError> {
        let actions = adds.iter().cloned().map(Action::Add).collect();
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: Some(self.spec.partition_columns.clone()),
            predicate: None,
        };
        let now = chrono::Utc::now().timestamp_millis();
        let txns = epoch
            .parts
            .iter()
            .map(|p| Transaction::new_with_last_update(p.app_id.as_ref(), p.last, Some(now)))
            .collect();
        let info = [
            ("isBlindAppend".to_owned(), json!(true)),
            ("companyos".to_owned(), json!({"commit": commit_id, "epoch": epoch.epoch})),
        ];
        CommitData::new(actions, operation, info.into(), txns)
            .get_bytes()
            .map_err(|e| self.delta(DeltaTableError::from(e)))
    }

    fn settle(&mut self, epoch: &TableEpoch, adds: Vec<Add>, done: Committed) -> Committed {
        self.version += 1;
        for part in &epoch.parts {
            self.positions.insert(part.app_id.to_string(), Some(part.last));
        }
        self.seen_at = Instant::now();
        self.settle_at(self.version, epoch, adds, done)
    }

    fn settle_at(&self, version: u64, epoch: &TableEpoch, adds: Vec<Add>, mut done: Committed) -> Committed {
        done.version = Some(version);
        done.rows = epoch.parts.iter().flat_map(|p| &p.rows).map(|r| r.rows()).sum();
        done.files = adds.len();
        done.bytes = adds.iter().map(|a| a.size.unsigned_abs()).sum();
        debug!(table = %self.spec.name, version, rows = done.rows, files = done.files, "committed");
        done
    }
}

#[derive(Deserialize)]
struct LogLine {
    txn: Option<Transaction>,
    protocol: Option<serde::de::IgnoredAny>,
}

fn contains(entry: &Bytes, id: &str) -> bool {
    std::str::from_utf8(entry).is_ok_and(|text| text.contains(id))
}

fn endless_backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(50))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .build()
}
