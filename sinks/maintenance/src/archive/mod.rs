//! Cold archive: the files of old days move to another root, each row once, whatever dies when.
//!
//! Two tables cannot be changed in one commit, so a move is a short protocol on two compare-and-
//! swaps. Both tables carry a `txn` per partition, `companyos-archive/<table>/<partition>`:
//!
//! 1. Plan: sequence = archive position + 1; the manifest is stored with the chosen files.
//! 2. Copy byte for byte to names no other attempt uses; read back; compare hash and rows.
//! 3. Commit to the archive: files + position, if the position is still the one planned on.
//! 4. Commit to the hot table: removal of exactly these files + position, if all still live.
//!
//! After step 3 the rows are in both tables until step 4; until then the hot table is the truth
//! ([`TableView`] names the archive files to leave out of a union). Whoever finds an open
//! manifest can tell from the tables alone where it stands, and finishes it:
//! - hot position reached the sequence: done.
//! - archived, all hot files live: step 4 again.
//! - archived, but a hot file is gone (compacted, deleted): step 4 can never succeed for anyone,
//!   as removed files do not come back; the archive's files are taken out again.
//! - not archived: after a while the archive position is moved past the sequence, which fences
//!   the attempt off for good.
//!
//! Rows that arrive late for a day already archived stay hot until the next move of that day.

mod copy;
mod manifest;
mod view;

use std::collections::HashSet;

use chrono::{DateTime, NaiveDate, Utc};
use companyos_sinks::{
    delta::{DeltaSink, FileOptions, TableSpec},
    storage::Storage,
};
use deltalake::protocol::{DeltaOperation, SaveMode};
use serde_json::json;
use tracing::{info, warn};
use uuid::Uuid;

pub use manifest::{Manifest, ManifestFile, ManifestState};
pub use view::{StoredFiles, TableView};

use crate::{
    ArchiveConfig, MaintenanceError, Work,
    commit::{Change, Position, commit},
    live_table::{LiveFile, LiveTable},
};

/// A region's two roots, and one table in both.
pub(crate) struct Archiver<'a> {
    pub hot: &'a Storage,
    pub archive: &'a Storage,
    pub region: &'a str,
    pub table: &'a str,
    pub config: &'a ArchiveConfig,
    pub now: DateTime<Utc>,
}

/// How often a settlement looks again when another commit got in between.
const LOOKS: usize = 20;

impl Archiver<'_> {
    /// Settles open moves, then moves what is old enough.
    pub async fn run(&self) -> Result<Work, MaintenanceError> {
        let mut work = Work::default();
        let mut busy = HashSet::new();
        for mut manifest in Manifest::open(&self.archive.store(), self.table).await? {
            let stale = self.now - manifest.updated_at
                > chrono::Duration::from_std(self.config.take_over_after).unwrap_or(chrono::Duration::MAX);
            if !self.settle(&mut manifest, stale, &mut work).await? {
                busy.insert(manifest.partition);
            }
        }
        let selected = self.config.tables.is_empty() || self.config.tables.iter().any(|t| t == self.table);
        if self.config.after_days == 0 || !selected {
            return Ok(work);
        }
        let Some(hot) = LiveTable::open(self.hot, self.table).await? else { return Ok(work) };
        let today = self.now.date_naive();
        let mut moved = 0;
        for (partition, files) in hot.partitions() {
            let old = files.iter().all(|f| f.day().is_some_and(|day| self.is_old(day, today)));
            if !old || busy.contains(&partition) {
                continue;
            }
            hot.check_deletable()?;
            for part in self.split(files) {
                moved += part.iter().map(|f| f.size).sum::<u64>();
                if moved > self.config.max_bytes_per_run && work.commits > 0 {
                    return Ok(work);
                }
                if !self.move_files(&partition, part, &mut work).await? {
                    break;
                }
            }
        }
        Ok(work)
    }

    fn is_old(&self, day: NaiveDate, today: NaiveDate) -> bool {
        (today - day).num_days() > i64::from(self.config.after_days)
    }

    fn split(&self, mut files: Vec<LiveFile>) -> Vec<Vec<LiveFile>> {
        files.sort_by(|a, b| (a.modified, &a.path).cmp(&(b.modified, &b.path)));
        let mut parts: Vec<Vec<LiveFile>> = vec![Vec::new()];
        let mut bytes = 0;
        for file in files {
            if bytes + file.size > self.config.max_bytes_per_commit && bytes > 0 {
                parts.push(Vec::new());
                bytes = 0;
            }
            bytes += file.size;
            if let Some(part) = parts.last_mut() {
                part.push(file);
            }
        }
        parts
    }

    /// Steps 1 to 4. False if the partition is better left to a later run.
    async fn move_files(
        &self,
        partition: &str,
        files: Vec<LiveFile>,
        work: &mut Work,
    ) -> Result<bool, MaintenanceError> {
        let Some(hot) = LiveTable::open(self.hot, self.table).await? else { return Ok(false) };
        let archive = self.open_or_create_archive(&hot).await?;
        // Hot again, so that it is the younger of the two: a move that `archive` shows and that is
        // done by now is settled in `hot`.
        let Some(hot) = LiveTable::open(self.hot, self.table).await? else { return Ok(false) };
        let app_id = Manifest::app_id(self.table, partition);
        let hot_position = hot.position(&app_id).await?.unwrap_or(0);
        let archive_position = archive.position(&app_id).await?.unwrap_or(0);
        if unsettled(&archive, partition, hot_position).next().is_some() {
            return self.leave_unsettled(&archive, partition, &app_id).await.map(|()| false);
        }
        let mut manifest = self.plan(&hot, partition, &files, archive_position.max(hot_position) + 1);
        let manifests = self.archive.store();
        manifest.save(&manifests, ManifestState::Planned, Utc::now()).await?;
        let (from, to) = (hot.log_store.object_store(None), archive.log_store.object_store(None));
        let mut adds = Vec::with_capacity(files.len());
        for (source, file) in files.iter().zip(&mut manifest.files) {
            match copy::copy_verified(&from, &to, source, file).await {
                Ok(add) => adds.push(add),
                Err(error) => {
                    // Nothing was committed and nobody but us would: free the partition at once.
                    if let Err(error) = manifest.settle(&manifests, ManifestState::Abandoned, Utc::now()).await {
                        warn!(table = self.table, partition, %error, "abandoned archive move stays open for now");
                    }
                    return Err(error);
                }
            }
        }
        manifest.rows = manifest.files.iter().map(|f| f.rows).sum();
        manifest.bytes = manifest.files.iter().map(|f| f.bytes).sum();
        manifest.save(&manifests, ManifestState::Verified, Utc::now()).await?;
        let change = Change {
            removes: Vec::new(),
            adds,
            position: Some(Position { app_id, version: manifest.sequence }),
            operation: DeltaOperation::Write {
                mode: SaveMode::Append,
                partition_by: Some(archive.partition_columns.clone()),
                predicate: None,
            },
            lineage: self.lineage(&manifest),
        };
        match commit(&archive, change).await {
            Ok(version) => {
                manifest.archive_version = Some(version);
                manifest.save(&manifests, ManifestState::Archived, Utc::now()).await?;
                work.commits += 1;
            }
            Err(MaintenanceError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
        self.settle(&mut manifest, true, work).await?;
        Ok(manifest.state == ManifestState::Done)
    }

    /// An earlier move of the partition is archived but not removed from the hot table. With an
    /// open manifest it will be settled; without one it was settled just now, or never will be.
    async fn leave_unsettled(
        &self,
        archive: &LiveTable,
        partition: &str,
        app_id: &str,
    ) -> Result<(), MaintenanceError> {
        let open = Manifest::open(&self.archive.store(), self.table).await?;
        if open.iter().any(|m| m.partition == partition) {
            return Ok(());
        }
        let Some(hot) = LiveTable::open(self.hot, self.table).await? else { return Ok(()) };
        let position = hot.position(app_id).await?.unwrap_or(0);
        let Some(now) = LiveTable::open(self.archive, self.table).await? else { return Ok(()) };
        // Settled in between means: past hot's position, or taken out of the archive again.
        let stuck = unsettled(archive, partition, position).any(|old| now.files.iter().any(|f| f.path == old.path));
        match stuck {
            true => Err(MaintenanceError::Unsettled { table: self.table.to_owned(), partition: partition.to_owned() }),
            false => Ok(()),
        }
    }

    fn plan(&self, hot: &LiveTable, partition: &str, files: &[LiveFile], sequence: i64) -> Manifest {
        let attempt = Uuid::now_v7().simple().to_string();
        let planned = files
            .iter()
            .enumerate()
            .map(|(n, file)| ManifestFile {
                source: file.path.clone(),
                archived: format!("{partition}/archive-{sequence:08}-{attempt}-{n:05}.zstd.parquet")
                    .trim_start_matches('/')
                    .to_owned(),
                rows: 0,
                bytes: file.size,
                sha256: String::new(),
            })
            .collect();
        let now = Utc::now();
        Manifest {
            format: 1,
            region: self.region.to_owned(),
            table: self.table.to_owned(),
            partition: partition.to_owned(),
            partition_values: files.first().map(|f| f.partition.clone()).unwrap_or_default(),
            sequence,
            attempt,
            state: ManifestState::Planned,
            source: self.hot.table_url(self.table).to_string(),
            source_version: hot.version,
            files: planned,
            rows: 0,
            bytes: 0,
            created_at: now,
            updated_at: now,
            archive_version: None,
            removed_version: None,
        }
    }

    /// Brings a move to its end if that is possible now; `take_over` allows fencing off an attempt
    /// that has not committed anything yet. True if it is settled.
    async fn settle(
        &self,
        manifest: &mut Manifest,
        take_over: bool,
        work: &mut Work,
    ) -> Result<bool, MaintenanceError> {
        for _ in 0..LOOKS {
            match self.settle_once(manifest, take_over, work).await {
                // Somebody committed in between: look again at what is true now.
                Err(MaintenanceError::Conflict { .. }) => {}
                other => return other,
            }
        }
        warn!(
            table = self.table,
            partition = manifest.partition,
            "archive move is not settled yet: too many conflicts"
        );
        Ok(false)
    }

    async fn settle_once(
        &self,
        manifest: &mut Manifest,
        take_over: bool,
        work: &mut Work,
    ) -> Result<bool, MaintenanceError> {
        let manifests = self.archive.store();
        let app_id = Manifest::app_id(self.table, &manifest.partition);
        // Archive first: a move that is archived later than this look has not been removed either.
        let archive = LiveTable::open(self.archive, self.table).await?;
        let Some(hot) = LiveTable::open(self.hot, self.table).await? else { return Ok(false) };
        let removed = hot.position(&app_id).await?.unwrap_or(0) >= manifest.sequence;
        let ours: HashSet<&str> = manifest.files.iter().map(|f| f.archived.as_str()).collect();
        let (mut archived, mut archive_position) = (Vec::new(), 0);
        if let Some(archive) = &archive {
            archived = archive.files.iter().filter(|f| ours.contains(f.path.as_str())).collect();
            archive_position = archive.position(&app_id).await?.unwrap_or(0);
        }
        let end = if archived.is_empty() {
            match (removed && manifest.archive_version.is_some(), archive_position >= manifest.sequence) {
                // Archived, removed, and by now deleted from the archive by retention.
                (true, _) => ManifestState::Done,
                // Another attempt has the sequence, or this one was fenced off or rolled back.
                (false, true) => ManifestState::Abandoned,
                (false, false) if !take_over => return Ok(false),
                (false, false) => {
                    if let Some(archive) = &archive {
                        self.fence(archive, app_id, manifest).await?;
                    }
                    ManifestState::Abandoned
                }
            }
        } else if removed {
            ManifestState::Done
        } else {
            let sources: HashSet<&str> = manifest.files.iter().map(|f| f.source.as_str()).collect();
            let live: Vec<&LiveFile> = hot.files.iter().filter(|f| sources.contains(f.path.as_str())).collect();
            if live.len() == sources.len() && archived.len() == ours.len() {
                let version = self.remove_hot(&hot, &live, app_id, manifest).await?;
                manifest.removed_version = Some(version);
                work.add(&Work {
                    commits: 1,
                    files_removed: live.len() as u64,
                    files_added: manifest.files.len() as u64,
                    bytes_removed: manifest.bytes,
                    bytes_added: manifest.bytes,
                    rows: manifest.rows,
                    version: Some(version),
                });
                ManifestState::Done
            } else if let Some(archive) = &archive {
                // Whoever finds the manifest after the roll-back must not take the move for done.
                manifest.archive_version = None;
                manifest.save(&manifests, manifest.state, Utc::now()).await?;
                let next = archive_position.max(manifest.sequence) + 1;
                self.roll_back(archive, &archived, app_id, next, manifest).await?;
                ManifestState::RolledBack
            } else {
                return Ok(false);
            }
        };
        manifest.settle(&manifests, end, Utc::now()).await?;
        metrics::counter!("companyos_maintenance_archive_moves_total", "result" => format!("{end:?}")).increment(1);
        info!(
            table = self.table, region = self.region, partition = manifest.partition, sequence = manifest.sequence,
            rows = manifest.rows, files = manifest.files.len(), result = ?end, "archive move settled"
        );
        Ok(true)
    }

    async fn remove_hot(
        &self,
        hot: &LiveTable,
        live: &[&LiveFile],
        app_id: String,
        manifest: &Manifest,
    ) -> Result<u64, MaintenanceError> {
        let now = Utc::now().timestamp_millis();
        let change = Change {
            removes: live.iter().map(|f| f.remove(true, now)).collect(),
            adds: Vec::new(),
            position: Some(Position { app_id, version: manifest.sequence }),
            operation: DeltaOperation::Delete { predicate: None },
            lineage: self.lineage(manifest),
        };
        commit(hot, change).await
    }

    async fn roll_back(
        &self,
        archive: &LiveTable,
        archived: &[&LiveFile],
        app_id: String,
        position: i64,
        manifest: &Manifest,
    ) -> Result<(), MaintenanceError> {
        let now = Utc::now().timestamp_millis();
        let change = Change {
            removes: archived.iter().map(|f| f.remove(true, now)).collect(),
            adds: Vec::new(),
            position: Some(Position { app_id, version: position }),
            operation: DeltaOperation::Delete { predicate: None },
            lineage: self.lineage(manifest),
        };
        commit(archive, change).await.map(|_| ())
    }

    async fn fence(&self, archive: &LiveTable, app_id: String, manifest: &Manifest) -> Result<(), MaintenanceError> {
        let change = Change {
            removes: Vec::new(),
            adds: Vec::new(),
            position: Some(Position { app_id, version: manifest.sequence }),
            operation: DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None },
            lineage: self.lineage(manifest),
        };
        commit(archive, change).await.map(|_| ())
    }

    fn lineage(&self, manifest: &Manifest) -> serde_json::Value {
        json!({
            "task": "archive",
            "region": self.region,
            "source": manifest.source,
            "sourceVersion": manifest.source_version,
            "partition": manifest.partition,
            "sequence": manifest.sequence,
            "attempt": manifest.attempt,
            "rows": manifest.rows,
        })
    }

    /// The archive's table with the hot table's columns and partitioning.
    async fn open_or_create_archive(&self, hot: &LiveTable) -> Result<LiveTable, MaintenanceError> {
        let spec = TableSpec {
            name: self.table.to_owned(),
            schema: hot.schema.clone(),
            partition_columns: hot.partition_columns.clone(),
        };
        if let Some(archive) = LiveTable::open(self.archive, self.table).await? {
            if archive.partition_columns != hot.partition_columns {
                return Err(MaintenanceError::Unsupported {
                    table: self.table.to_owned(),
                    problem: "is partitioned differently in the archive".to_owned(),
                });
            }
            if hot.schema.fields().iter().all(|f| archive.schema.field_with_name(f.name()).is_ok()) {
                return Ok(archive);
            }
        }
        DeltaSink::open(self.archive, spec, FileOptions::default()).await?;
        LiveTable::open(self.archive, self.table).await?.ok_or_else(|| MaintenanceError::Unsupported {
            table: self.table.to_owned(),
            problem: "could not be created in the archive".to_owned(),
        })
    }
}

/// The sequence in an archived file's name.
fn sequence_of(file: &LiveFile) -> Option<i64> {
    file.file_name().strip_prefix("archive-")?.split('-').next()?.parse().ok()
}

/// Archived files of a partition that a hot table at this position still has.
fn unsettled<'a>(
    archive: &'a LiveTable,
    partition: &'a str,
    hot_position: i64,
) -> impl Iterator<Item = &'a LiveFile> + 'a {
    archive.files.iter().filter(move |f| {
        sequence_of(f).is_some_and(|sequence| sequence > hot_position)
            && archive.partition_path(&f.partition) == partition
    })
}
