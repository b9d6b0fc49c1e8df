//! Reading a table's files and writing their rows to new ones, one file in memory at a time.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{RecordBatch, RecordBatchOptions, new_null_array},
    compute::cast,
    datatypes::SchemaRef,
};
use bytes::Bytes;
use chrono::Utc;
use companyos_sinks::delta::{FileOptions, file_stats};
use deltalake::kernel::Add;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use parquet::{
    arrow::{ArrowWriter, ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    file::properties::WriterProperties,
};
use tracing::debug;
use uuid::Uuid;

use crate::{
    MaintenanceError,
    live_table::{LiveFile, LiveTable},
};

/// What the files of one partition are rewritten to.
#[derive(Clone)]
pub(crate) struct Target {
    table: String,
    schema: SchemaRef,
    properties: WriterProperties,
    partition: HashMap<String, Option<String>>,
    folder: String,
    prefix: String,
    bytes: usize,
}

impl Target {
    /// `prefix` begins the names of the files, `bytes` is the size at which one ends.
    pub fn new(
        table: &LiveTable,
        partition: &HashMap<String, Option<String>>,
        prefix: &str,
        bytes: u64,
        zstd_level: i32,
    ) -> Self {
        let schema = table.file_schema();
        let properties = FileOptions { zstd_level, ..Default::default() }.writer_properties(&schema);
        Self {
            table: table.name.clone(),
            schema,
            properties,
            partition: partition.clone(),
            folder: table.partition_path(partition),
            prefix: prefix.to_owned(),
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
        }
    }

    /// With row groups of at most so many rows.
    pub fn with_row_groups(mut self, rows: usize) -> Self {
        self.properties = self.properties.into_builder().set_max_row_group_row_count(Some(rows.max(1))).build();
        self
    }
}

/// A file of the table, read.
pub(crate) struct SourceFile {
    pub table: String,
    pub path: String,
    /// Rows according to the log.
    pub rows: Option<u64>,
    pub bytes: Bytes,
    pub schema: SchemaRef,
}

impl SourceFile {
    pub async fn read(table: &LiveTable, file: &LiveFile) -> Result<Self, MaintenanceError> {
        let bytes = read_object(&table.log_store.object_store(None), &file.object_path()).await?;
        Ok(Self {
            table: table.name.clone(),
            path: file.path.clone(),
            rows: file.rows,
            bytes,
            schema: table.file_schema(),
        })
    }

    /// Calls `visit` with every batch, in the table's schema: columns younger than the file are
    /// null. With `columns`, the others are not decoded and left out. Blocks; returns the rows.
    pub fn visit(
        self,
        columns: Option<&[String]>,
        mut visit: impl FnMut(RecordBatch) -> Result<(), MaintenanceError>,
    ) -> Result<u64, MaintenanceError> {
        let fail = |e: &dyn std::fmt::Display| MaintenanceError::Corrupt {
            path: self.path.clone(),
            problem: format!("not readable as Parquet: {e}"),
        };
        let mut builder = ParquetRecordBatchReaderBuilder::try_new(self.bytes.clone()).map_err(|e| fail(&e))?;
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        if self.rows.is_some_and(|logged| logged != rows) {
            return Err(MaintenanceError::Corrupt {
                path: self.path.clone(),
                problem: format!("holds {rows} rows, but the log says {}", self.rows.unwrap_or(0)),
            });
        }
        // A column that the table no longer has would be dropped by rewriting the file.
        if let Some(extra) = builder.schema().fields().iter().find(|f| self.schema.field_with_name(f.name()).is_err()) {
            return Err(MaintenanceError::Unsupported {
                table: self.table.clone(),
                problem: format!("file {} has column {}, which the table has not", self.path, extra.name()),
            });
        }
        let mut schema = self.schema.clone();
        if let Some(columns) = columns {
            let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().map(String::as_str));
            builder = builder.with_projection(mask);
            let indices: Vec<usize> = columns.iter().filter_map(|c| self.schema.index_of(c).ok()).collect();
            schema = Arc::new(self.schema.project(&indices).map_err(|e| fail(&e))?);
        }
        let reader = builder.with_batch_size(BATCH_ROWS).build().map_err(|e| fail(&e))?;
        let mut seen = 0;
        for batch in reader {
            let batch = batch.map_err(|e| fail(&e))?;
            seen += batch.num_rows() as u64;
            visit(conform(&batch, &schema).map_err(|e| fail(&e))?)?;
        }
        match seen == rows {
            true => Ok(rows),
            false => Err(fail(&format!("{seen} rows decoded of {rows}"))),
        }
    }
}

const BATCH_ROWS: usize = 8192;

fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, arrow::error::ArrowError> {
    let columns = schema
        .fields()
        .iter()
        .map(|field| match batch.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
            Some(column) => cast(column, field.data_type()),
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options)
}

/// A finished file that is not stored yet.
pub(crate) struct Encoded {
    pub add: Add,
    pub rows: u64,
    bytes: Bytes,
}

/// Encodes rows to files of about the target's size. Blocks.
pub(crate) struct FileEncoder {
    target: Target,
    writer: Option<ArrowWriter<Vec<u8>>>,
    finished: Vec<Encoded>,
}

impl FileEncoder {
    pub fn new(target: Target) -> Self {
        Self { target, writer: None, finished: Vec::new() }
    }

    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), MaintenanceError> {
        let fail = |e| MaintenanceError::rewrite(&self.target.table, e);
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                let properties = Some(self.target.properties.clone());
                ArrowWriter::try_new(Vec::new(), self.target.schema.clone(), properties).map_err(fail)?
            }
        };
        writer.write(batch).map_err(fail)?;
        let full = writer.bytes_written() + writer.in_progress_size() >= self.target.bytes;
        self.writer = Some(writer);
        if full { self.end_file() } else { Ok(()) }
    }

    pub fn end_file(&mut self) -> Result<(), MaintenanceError> {
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        let fail = |e| MaintenanceError::rewrite(&self.target.table, e);
        let metadata = writer.finish().map_err(fail)?;
        let bytes = Bytes::from(std::mem::take(writer.inner_mut()));
        let stats = file_stats::to_json(&metadata, &self.target.schema).map_err(fail)?;
        let name = format!("{}-{}.zstd.parquet", self.target.prefix, Uuid::now_v7());
        let path = match self.target.folder.as_str() {
            "" => name,
            folder => format!("{folder}/{name}"),
        };
        let add = Add {
            path,
            partition_values: self.target.partition.clone(),
            size: bytes.len() as i64,
            modification_time: Utc::now().timestamp_millis(),
            // Rows only move: streaming readers need not see them again.
            data_change: false,
            stats: Some(stats),
            ..Default::default()
        };
        let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        self.finished.push(Encoded { add, rows, bytes });
        Ok(())
    }

    pub fn take_finished(&mut self) -> Vec<Encoded> {
        std::mem::take(&mut self.finished)
    }
}

/// Files stored for a commit that has not happened yet; [`Stored::discard`] them if it never will.
#[derive(Default)]
pub(crate) struct Stored {
    pub adds: Vec<Add>,
    pub rows: u64,
}

impl Stored {
    pub async fn store(&mut self, store: &Arc<dyn ObjectStore>, files: Vec<Encoded>) -> Result<(), MaintenanceError> {
        for file in files {
            let path = Path::from(file.add.path.as_str());
            self.rows += file.rows;
            self.adds.push(file.add);
            store
                .put(&path, file.bytes.into())
                .await
                .map_err(|source| MaintenanceError::Object { path: path.to_string(), source })?;
        }
        Ok(())
    }

    pub fn bytes(&self) -> u64 {
        self.adds.iter().map(|a| a.size.unsigned_abs()).sum()
    }

    /// Best effort: vacuum takes what is left behind.
    pub async fn discard(self, store: &Arc<dyn ObjectStore>) {
        for add in self.adds {
            if let Err(error) = store.delete(&Path::from(add.path.as_str())).await {
                debug!(path = %add.path, %error, "could not remove an uncommitted file");
            }
        }
    }
}

pub(crate) async fn read_object(store: &Arc<dyn ObjectStore>, path: &Path) -> Result<Bytes, MaintenanceError> {
    let fail = |source| MaintenanceError::Object { path: path.to_string(), source };
    store.get(path).await.map_err(fail)?.bytes().await.map_err(fail)
}

/// Runs blocking work off the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    table: &str,
    work: impl FnOnce() -> Result<T, MaintenanceError> + Send + 'static,
) -> Result<T, MaintenanceError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| MaintenanceError::rewrite(table, e))?
}
