//! Rewriting rows of some files of a table into others by a function of the caller's: folding the
//! state of views, taking erased rows out of it.
//!
//! The change is committed by the rules of every other task: if a file it read was removed
//! meanwhile, nothing happens and the caller plans anew. Files added meanwhile stay.

use std::collections::HashMap;

use arrow::array::RecordBatch;
use chrono::Utc;
use companyos_sinks::storage::Storage;
use deltalake::protocol::DeltaOperation;
use serde_json::json;

use crate::{
    MaintenanceError,
    commit::{Change, Position, commit},
    live_table::{LiveFile, LiveTable},
    rewrite::{FileEncoder, SourceFile, Stored, Target, blocking},
};

/// Which files of one partition are read and replaced.
#[derive(Debug, Clone)]
pub struct Fold {
    /// Values of all partition columns.
    pub partition: HashMap<String, Option<String>>,
    /// Files as large as this are left alone.
    pub below_bytes: u64,
    /// With fewer files there is nothing to do.
    pub min_files: usize,
    /// Most bytes read; the rest waits for the next time.
    pub max_bytes: u64,
    /// Whether rows change their meaning, so that readers of the log must look again.
    pub data_change: bool,
    /// A position to move with the change: application id and version.
    pub position: Option<(String, i64)>,
    /// What is done, for the commit's metadata.
    pub task: &'static str,
}

/// What is folded is read by key and sorted by it; readers pass over row groups without theirs.
const ROW_GROUP: usize = 8192;

/// What a fold did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Folded {
    /// Version that holds it.
    pub version: u64,
    /// Files read and replaced.
    pub files: usize,
    /// Rows before.
    pub rows_before: u64,
    /// Rows after.
    pub rows_after: u64,
}

impl Fold {
    /// Reads the files, calls `transform` with their rows (without partition columns) and puts its
    /// answer in their place. None if there is nothing to do, or no such table.
    pub async fn run<E>(
        &self,
        storage: &Storage,
        table: &str,
        transform: impl AsyncFnOnce(Vec<RecordBatch>) -> Result<Vec<RecordBatch>, E>,
    ) -> Result<Option<Folded>, FoldError<E>> {
        let Some(live) = LiveTable::open(storage, table).await? else { return Ok(None) };
        let files = self.pick(&live);
        if files.len() < self.min_files.max(usize::from(self.position.is_none())) {
            return Ok(None);
        }
        let mut rows = Vec::new();
        let mut rows_before = 0;
        for file in &files {
            let source = SourceFile::read(&live, file).await?;
            let (batches, read) = blocking(table, move || {
                let mut batches = Vec::new();
                let read = source.visit(None, |batch| {
                    batches.push(batch);
                    Ok(())
                })?;
                Ok((batches, read))
            })
            .await?;
            rows.extend(batches);
            rows_before += read;
        }
        let rows = transform(rows).await.map_err(FoldError::Transform)?;
        let mut stored = Stored::default();
        if let Err(error) = self.write(&live, rows, &mut stored).await {
            stored.discard(&live.log_store.object_store(None)).await;
            return Err(error.into());
        }
        let rows_after = stored.rows;
        let version = self.commit(&live, &files, stored).await?;
        Ok(Some(Folded { version, files: files.len(), rows_before, rows_after }))
    }

    fn pick(&self, live: &LiveTable) -> Vec<LiveFile> {
        let mut files: Vec<LiveFile> =
            live.files.iter().filter(|f| f.partition == self.partition && f.size < self.below_bytes).cloned().collect();
        files.sort_by_key(|f| f.size);
        let mut bytes = 0;
        files.retain(|f| {
            bytes += f.size;
            bytes <= self.max_bytes
        });
        files
    }

    async fn write(
        &self,
        live: &LiveTable,
        rows: Vec<RecordBatch>,
        stored: &mut Stored,
    ) -> Result<(), MaintenanceError> {
        let store = live.log_store.object_store(None);
        let mut encoder = FileEncoder::new(
            Target::new(live, &self.partition, self.task, self.below_bytes, 3).with_row_groups(ROW_GROUP),
        );
        let encoder = blocking(&live.name, move || {
            for batch in &rows {
                encoder.write(batch)?;
            }
            encoder.end_file()?;
            Ok(encoder)
        });
        let mut files = encoder.await?.take_finished();
        for file in &mut files {
            file.add.data_change = self.data_change;
        }
        stored.store(&store, files).await
    }

    async fn commit(&self, live: &LiveTable, files: &[LiveFile], stored: Stored) -> Result<u64, MaintenanceError> {
        let now = Utc::now().timestamp_millis();
        let change = Change {
            removes: files.iter().map(|f| f.remove(self.data_change, now)).collect(),
            adds: stored.adds.clone(),
            position: self.position.clone().map(|(app_id, version)| Position { app_id, version }),
            operation: DeltaOperation::Optimize { predicate: None, target_size: self.below_bytes as i64 },
            lineage: json!({"task": self.task, "sourceVersion": live.version, "rows": stored.rows}),
        };
        match commit(live, change).await {
            Ok(version) => Ok(version),
            Err(error) => {
                // Any other error leaves open whether the entry was written: its files must stay.
                if matches!(error, MaintenanceError::Conflict { .. }) {
                    stored.discard(&live.log_store.object_store(None)).await;
                }
                Err(error)
            }
        }
    }
}

/// Why nothing was folded.
#[derive(Debug, thiserror::Error)]
pub enum FoldError<E> {
    /// The table could not be read or written, or changed meanwhile.
    #[error(transparent)]
    Table(#[from] MaintenanceError),
    /// The caller's function failed.
    #[error("{0}")]
    Transform(E),
}
