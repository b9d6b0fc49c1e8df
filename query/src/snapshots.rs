//! The latest version of every table, kept warm between queries.
//!
//! A query asks for a table's newest version; the log is then read only from the version already
//! in memory. Queries that arrive while such a read runs share the next one, never one that
//! began before they arrived: a commit is visible to every query that starts after it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use dashmap::DashMap;
use deltalake::DeltaTable;
use serde::Serialize;
use tokio::sync::Mutex;
use tracing::{debug, error};

use crate::{error::QueryError, root::Root};

/// Version of one table in one root that a query read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TableVersion {
    /// Table name.
    pub table: String,
    /// Region.
    pub region: String,
    /// Whether it is the region's archive.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub archive: bool,
    /// Delta version.
    pub version: u64,
}

/// A table at one version, and which of its files are not to be read.
#[derive(Debug, Clone)]
pub(crate) struct Pinned {
    pub root: Arc<Root>,
    pub table: DeltaTable,
    /// If set, only these files (paths as in the log) are read.
    pub only: Option<Vec<String>>,
}

#[derive(Debug, Default)]
struct Slot {
    table: Option<DeltaTable>,
    /// When the last read of the log began.
    read_at: Option<Instant>,
    /// Archive only: newest move per partition, as of this version.
    moves: Option<(u64, BTreeMap<String, i64>)>,
    /// Hot only: newest settled move seen per partition; these only grow.
    settled: HashMap<String, i64>,
}

/// Warm tables by root and name.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    slots: DashMap<(Arc<str>, bool, String), Arc<Mutex<Slot>>>,
}

impl Snapshots {
    fn slot(&self, root: &Root, table: &str) -> Arc<Mutex<Slot>> {
        self.slots.entry((root.region.clone(), root.archive, table.to_owned())).or_default().clone()
    }

    /// A table of a region, hot part first, then its archive without files hot still has.
    pub async fn pin(
        &self,
        hot: &Arc<Root>,
        archive: Option<&Arc<Root>>,
        name: &str,
        limit: Duration,
    ) -> Result<Vec<Pinned>, QueryError> {
        let hot_table = self.latest(hot, name, limit).await?;
        let mut pinned = Vec::new();
        if let Some(root) = archive
            && let Some(table) = self.latest(root, name, limit).await?
        {
            let only = match &hot_table {
                Some(hot_table) => self.settled_files(hot, hot_table, root, &table, name).await?,
                None => None,
            };
            pinned.push(Pinned { root: root.clone(), table, only });
        }
        pinned.extend(hot_table.map(|table| Pinned { root: hot.clone(), table, only: None }));
        Ok(pinned)
    }

    async fn latest(&self, root: &Arc<Root>, name: &str, limit: Duration) -> Result<Option<DeltaTable>, QueryError> {
        let asked = Instant::now();
        let slot = self.slot(root, name);
        let read = async {
            let mut slot = slot.lock().await;
            if slot.read_at.is_some_and(|at| at >= asked) {
                return Ok(slot.table.clone());
            }
            let began = Instant::now();
            let table = read_log(root, name, slot.table.clone()).await?;
            metrics::histogram!("companyos_query_snapshot_seconds").record(began.elapsed().as_secs_f64());
            slot.table = table.clone();
            slot.read_at = Some(began);
            Ok(table)
        };
        match tokio::time::timeout(limit, read).await {
            Ok(result) => result,
            Err(_) => Err(QueryError::Timeout { seconds: limit.as_secs_f64() }),
        }
    }

    /// Files of the archive whose rows hot has no longer, or none if that is all of them.
    ///
    /// A move commits to the archive first and then removes from hot, numbering its files and
    /// setting hot's `txn` of the partition to that number. Hot was pinned before the archive, so
    /// what it lacks is in the archive, and what it has is in files numbered beyond its position.
    async fn settled_files(
        &self,
        hot: &Root,
        hot_table: &DeltaTable,
        archive: &Root,
        archive_table: &DeltaTable,
        name: &str,
    ) -> Result<Option<Vec<String>>, QueryError> {
        let version = archive_table.version().unwrap_or(0);
        let moves = {
            let slot = self.slot(archive, name);
            let mut slot = slot.lock().await;
            match &slot.moves {
                Some((at, moves)) if *at == version => moves.clone(),
                _ => {
                    let moves = newest_moves(archive_table)?;
                    slot.moves = Some((version, moves.clone()));
                    moves
                }
            }
        };
        let slot = self.slot(hot, name);
        let mut slot = slot.lock().await;
        let mut open = BTreeSet::new();
        let snapshot = hot_table.snapshot().map_err(|e| unreadable(hot, name, &e))?;
        for (partition, newest) in &moves {
            if slot.settled.get(partition).is_some_and(|position| position >= newest) {
                continue;
            }
            let app_id = format!("companyos-archive/{name}/{partition}");
            let log = hot_table.log_store();
            let position = snapshot.transaction_version(log.as_ref(), &app_id).await;
            let position = position.map_err(|e| unreadable(hot, name, &e))?.unwrap_or(0);
            slot.settled.insert(partition.clone(), position);
            if position < *newest {
                open.insert((partition.as_str(), position));
            }
        }
        if open.is_empty() {
            return Ok(None);
        }
        debug!(table = name, partitions = open.len(), "archive moves under way");
        let keep = |path: &String| match move_of(path) {
            Some((partition, sequence)) => {
                !open.iter().any(|(open, position)| *open == partition && sequence > *position)
            }
            None => true,
        };
        Ok(Some(paths(archive_table)?.filter(keep).collect()))
    }
}

/// The newest version, from what is in memory if that works, else from the start.
async fn read_log(root: &Root, name: &str, warm: Option<DeltaTable>) -> Result<Option<DeltaTable>, QueryError> {
    if let Some(mut table) = warm {
        match table.update_incremental(None).await {
            Ok(()) => return Ok(Some(table)),
            // The log may have been cleaned up past our version: start over.
            Err(error) => debug!(table = name, region = %root.region, %error, "reading the log anew"),
        }
    }
    root.storage.load_table(name).await.map_err(|e| unreadable(root, name, &e))
}

fn unreadable(root: &Root, name: &str, error: &dyn std::error::Error) -> QueryError {
    error!(table = name, region = %root.region, archive = root.archive, %error, "table cannot be read");
    QueryError::Storage
}

fn paths(table: &DeltaTable) -> Result<impl Iterator<Item = String> + '_, QueryError> {
    let snapshot = table.snapshot().map_err(|_| QueryError::Storage)?;
    Ok(snapshot.log_data().into_iter().map(|file| file.path().into_owned()))
}

fn newest_moves(archive: &DeltaTable) -> Result<BTreeMap<String, i64>, QueryError> {
    let mut newest = BTreeMap::new();
    for path in paths(archive)? {
        if let Some((partition, sequence)) = move_of(&path) {
            let entry = newest.entry(partition.to_owned()).or_insert(sequence);
            *entry = sequence.max(*entry);
        }
    }
    Ok(newest)
}

/// Partition path and number of the move a file of the archive came with.
fn move_of(path: &str) -> Option<(&str, i64)> {
    let (partition, file) = path.rsplit_once('/')?;
    Some((partition, file.strip_prefix("archive-")?.split('-').next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archived_file_tells_its_partition_and_move() {
        let path = "tenant=alpha/region=eu/day=2026-01-01/archive-00000012-abc-00001.zstd.parquet";
        assert_eq!(move_of(path), Some(("tenant=alpha/region=eu/day=2026-01-01", 12)));
        assert_eq!(move_of("tenant=alpha/region=eu/day=2026-01-01/part-1.parquet"), None);
    }
}
