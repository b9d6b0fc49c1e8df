//! Following a table's log: what each commit added, read back column by column.
//!
//! Promises:
//! - Every commit is seen once, in order. An entry that was cleaned up before it was read is an
//!   error of its own kind, never a gap that goes unnoticed.
//! - Commits that only move rows (compaction, folding) show no rows.
//! - Rows come in the table's current schema: columns younger than a file are null, partition
//!   columns are filled in.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray, new_null_array},
    compute::cast,
    datatypes::{Schema, SchemaRef},
};
use chrono::{DateTime, Utc};
use deltalake::{
    DeltaTable, DeltaTableError,
    kernel::{Add, Remove, Transaction},
    logstore::LogStoreRef,
};
use futures::StreamExt;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use parquet::{
    arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    errors::ParquetError,
};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::DeltaSinkError;
use crate::storage::{Storage, load_if_exists};

/// Reads a table's log forward.
#[derive(Debug, Clone)]
pub struct TableTail {
    table: String,
    log_store: LogStoreRef,
    /// Last version read; none before the first.
    version: Option<u64>,
    /// When the entry of that version was last known to be in the log.
    confirmed: Option<Instant>,
}

/// What one commit did.
#[derive(Debug, Clone)]
pub struct TailEntry {
    /// Version.
    pub version: u64,
    /// When it was committed, by the writer's clock.
    pub committed_at: DateTime<Utc>,
    /// Files with new rows.
    pub adds: Vec<Add>,
    /// Files whose rows are gone, as opposed to moved.
    pub removed: Vec<Remove>,
    /// Positions it set.
    pub positions: Vec<Transaction>,
    /// What the product's own writer said about it.
    pub task: Option<String>,
    /// Whose rows it is about, if it is about one tenant's.
    pub tenant: Option<String>,
}

/// All files of a table at one version.
#[derive(Debug, Clone)]
pub struct TableFiles {
    /// The version.
    pub version: u64,
    /// When it was committed.
    pub committed_at: DateTime<Utc>,
    /// Its files.
    pub files: Vec<Add>,
}

#[derive(Deserialize)]
struct LogLine {
    add: Option<Add>,
    remove: Option<Remove>,
    txn: Option<Transaction>,
    #[serde(rename = "commitInfo")]
    info: Option<Info>,
}

#[derive(Deserialize)]
struct Info {
    timestamp: Option<i64>,
    companyos: Option<Lineage>,
}

#[derive(Deserialize)]
struct Lineage {
    task: Option<String>,
    tenant: Option<String>,
}

impl TableTail {
    /// Starts after `version`; before the first entry if there is none.
    pub fn at(storage: &Storage, table: &str, version: Option<u64>) -> Self {
        Self { table: table.to_owned(), log_store: storage.log_store(table), version, confirmed: None }
    }

    /// Last version read.
    pub fn version(&self) -> Option<u64> {
        self.version
    }

    /// The next entry, or none at the log's end or while the table does not exist.
    pub async fn next(&mut self) -> Result<Option<TailEntry>, DeltaSinkError> {
        let next = self.version.map_or(0, |v| v + 1);
        let entry = self.log_store.read_commit_entry(next).await.map_err(|e| self.fail(e))?;
        let Some(bytes) = entry else {
            self.check_no_gap(next).await?;
            return Ok(None);
        };
        let mut read = TailEntry {
            version: next,
            committed_at: DateTime::UNIX_EPOCH,
            adds: Vec::new(),
            removed: Vec::new(),
            positions: Vec::new(),
            task: None,
            tenant: None,
        };
        for line in bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            let line: LogLine = serde_json::from_slice(line).map_err(|e| DeltaSinkError::Log {
                table: self.table.clone(),
                problem: format!("log entry {next} is not readable: {e}"),
            })?;
            read.adds.extend(line.add.filter(|add| add.data_change));
            read.removed.extend(line.remove.filter(|remove| remove.data_change));
            read.positions.extend(line.txn);
            if let Some(info) = line.info {
                read.committed_at = info.timestamp.and_then(DateTime::from_timestamp_millis).unwrap_or_default();
                (read.task, read.tenant) = info.companyos.map_or((None, None), |l| (l.task, l.tenant));
            }
        }
        self.version = Some(next);
        self.confirmed = Some(Instant::now());
        Ok(Some(read))
    }

    /// The log's latest version, to tell how far behind this is; none while there is no table.
    pub async fn latest(&self) -> Option<u64> {
        let next = self.version.map_or(0, |v| v + 1);
        self.log_store.get_latest_version(next).await.ok().or(self.version)
    }

    /// The oldest entry the log still has from a version on; what follows the log goes on there
    /// after a gap.
    pub async fn oldest(storage: &Storage, table: &str, from: u64) -> Result<Option<u64>, DeltaSinkError> {
        oldest_in(&storage.log_store(table), table, from).await
    }

    /// A missing entry is the end of the log only if there is none after it. The clean-up takes the
    /// oldest entries first, so while the entry before is there, or was there lately, nothing is lost.
    async fn check_no_gap(&mut self, next: u64) -> Result<(), DeltaSinkError> {
        if self.confirmed.is_some_and(|at| at.elapsed() < TRUSTED_FOR) {
            return Ok(());
        }
        if let Some(version) = self.version {
            let path = Path::from(format!("_delta_log/{version:020}.json"));
            match self.log_store.object_store(None).head(&path).await {
                Ok(_) => {
                    self.confirmed = Some(Instant::now());
                    return Ok(());
                }
                Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => {
                    return Err(DeltaSinkError::Store { table: self.table.clone(), path: path.to_string(), source });
                }
            }
        }
        let gap = match oldest_in(&self.log_store, &self.table, next).await? {
            Some(oldest) => oldest > next,
            None => false,
        };
        if gap {
            return Err(DeltaSinkError::Gap { table: self.table.clone(), version: next });
        }
        self.confirmed = Some(Instant::now());
        Ok(())
    }

    fn fail(&self, source: DeltaTableError) -> DeltaSinkError {
        super::table::delta_error(&self.table, source)
    }
}

/// The oldest entry of a log from a version on.
async fn oldest_in(log_store: &LogStoreRef, table: &str, from: u64) -> Result<Option<u64>, DeltaSinkError> {
    let store = log_store.object_store(None);
    let mut names = store.list(Some(&Path::from("_delta_log")));
    let mut oldest = None;
    while let Some(entry) = names.next().await {
        let entry = match entry {
            Ok(entry) => entry,
            // A local folder that is not there yet.
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(source) => {
                return Err(DeltaSinkError::Store { table: table.to_owned(), path: "_delta_log".to_owned(), source });
            }
        };
        let version = entry.location.filename().and_then(|name| name.strip_suffix(".json"));
        let version = version.filter(|v| v.len() == 20).and_then(|v| v.parse::<u64>().ok());
        if let Some(version) = version.filter(|v| *v >= from) {
            oldest = Some(oldest.map_or(version, |o: u64| o.min(version)));
        }
    }
    Ok(oldest)
}

/// Far less than the time the log is kept for.
const TRUSTED_FOR: Duration = Duration::from_secs(600);

/// All files of a version of the table (the latest unless named), or none if there is no table.
pub async fn table_files(
    storage: &Storage,
    table: &str,
    version: Option<u64>,
) -> Result<Option<TableFiles>, DeltaSinkError> {
    let fail = |e| super::table::delta_error(table, e);
    let delta = match version {
        None => load_if_exists(storage.log_store(table)).await.map_err(fail)?,
        Some(version) => {
            let mut delta = DeltaTable::new(storage.log_store(table));
            delta.load_version(version).await.map_err(fail)?;
            Some(delta)
        }
    };
    let Some(delta) = delta else { return Ok(None) };
    let snapshot = delta.snapshot().map_err(fail)?;
    let mut files = Vec::new();
    for file in snapshot.log_data().iter() {
        if file.deletion_vector_descriptor().is_some() {
            return Err(DeltaSinkError::Log {
                table: table.to_owned(),
                problem: format!("file {} has a deletion vector", file.path()),
            });
        }
        files.push(Add {
            path: file.path().into_owned(),
            partition_values: file.partition_values_map(),
            size: file.size(),
            modification_time: file.modification_time(),
            data_change: true,
            ..Default::default()
        });
    }
    let version = delta.version().unwrap_or(0);
    let committed_at = committed_at(&delta, version).await;
    Ok(Some(TableFiles { version, committed_at, files }))
}

async fn committed_at(delta: &DeltaTable, version: u64) -> DateTime<Utc> {
    let mut tail = TableTail {
        table: String::new(),
        log_store: delta.log_store(),
        version: version.checked_sub(1),
        confirmed: None,
    };
    match tail.next().await {
        Ok(Some(entry)) => entry.committed_at,
        _ => Utc::now(),
    }
}

/// Rows of files of one table.
#[derive(Debug, Clone)]
pub struct FileReader {
    table: String,
    log_store: LogStoreRef,
    schema: SchemaRef,
}

impl FileReader {
    /// Reads rows in `schema`; partition columns among them are filled from the log. Columns the
    /// caller does not want are left out of it.
    pub fn new(storage: &Storage, table: &str, schema: SchemaRef) -> Self {
        Self { table: table.to_owned(), log_store: storage.log_store(table), schema }
    }

    /// The schema rows have.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// All rows of a file, batch by batch, to `visit`.
    pub async fn read(
        &self,
        add: &Add,
        mut visit: impl FnMut(RecordBatch) -> Result<(), DeltaSinkError>,
    ) -> Result<(), DeltaSinkError> {
        if add.deletion_vector.is_some() {
            return Err(DeltaSinkError::Log {
                table: self.table.clone(),
                problem: format!("file {} has a deletion vector", add.path),
            });
        }
        let path = Path::from(percent_decoded(&add.path).as_str());
        let fail = |e: &dyn std::fmt::Display| DeltaSinkError::Parquet {
            table: self.table.clone(),
            path: add.path.clone(),
            problem: e.to_string(),
        };
        let store = self.log_store.object_store(None);
        let bytes = store.get(&path).await.map_err(|e| fail(&e))?.bytes().await.map_err(|e| fail(&e))?;
        let names: Vec<String> = self.schema.fields().iter().map(|f| f.name().clone()).collect();
        // Decoded off the async threads, a few batches ahead of the reader.
        let (sender, mut batches) = mpsc::channel(BATCHES_AHEAD);
        let decode = move || -> Result<(), ParquetError> {
            let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
            let mask = ProjectionMask::columns(builder.parquet_schema(), names.iter().map(String::as_str));
            for batch in builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()? {
                if sender.blocking_send(batch?).is_err() {
                    break;
                }
            }
            Ok(())
        };
        let decoding = tokio::task::spawn_blocking(decode);
        while let Some(batch) = batches.recv().await {
            visit(self.conform(&batch, add).map_err(|e| fail(&e))?)?;
        }
        decoding.await.map_err(|e| fail(&e))?.map_err(|e| fail(&e))
    }

    fn conform(&self, batch: &RecordBatch, add: &Add) -> Result<RecordBatch, arrow::error::ArrowError> {
        let rows = batch.num_rows();
        let columns = self.schema.fields().iter().map(|field| -> Result<ArrayRef, arrow::error::ArrowError> {
            match (batch.column_by_name(field.name()), add.partition_values.get(field.name())) {
                (Some(column), _) if column.data_type() == field.data_type() => Ok(column.clone()),
                (Some(column), _) => cast(column, field.data_type()),
                (None, Some(Some(value))) => {
                    let text: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(value, rows)));
                    cast(&text, field.data_type())
                }
                (None, _) => Ok(new_null_array(field.data_type(), rows)),
            }
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let nullable = self.schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(nullable)), columns, &options)
    }
}

const BATCH_ROWS: usize = 8192;
const BATCHES_AHEAD: usize = 4;

/// Paths in the log are URL-encoded.
fn percent_decoded(path: &str) -> String {
    percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned()
}
