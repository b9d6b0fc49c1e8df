//! One Delta table as a sink: creating it, evolving it, knowing its positions.

use std::{collections::HashMap, sync::Arc, time::Instant};

use arrow::datatypes::{Schema, SchemaRef};
use deltalake::{
    DeltaTable, DeltaTableError,
    kernel::{StructField, StructType, engine::arrow_conversion::TryIntoKernel, transaction::CommitProperties},
    logstore::LogStoreRef,
    protocol::SaveMode,
};
use tracing::info;

use super::{DeltaSinkError, FileOptions, RoutedBatch};
use crate::storage::{Storage, load_if_exists};

/// What a table should look like.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// Name below the storage root.
    pub name: String,
    /// All columns, partition columns included.
    pub schema: SchemaRef,
    /// Partition columns, outermost first.
    pub partition_columns: Vec<String>,
}

/// Rows of all partitions for one table and epoch.
#[derive(Debug, Default)]
pub struct TableEpoch {
    /// Number of the epoch, for the commit's metadata.
    pub epoch: u64,
    /// One entry per source partition that moved.
    pub parts: Vec<PartitionRows>,
}

/// What one source partition adds to a table.
#[derive(Debug)]
pub struct PartitionRows {
    /// `pipeline/topic/partition`: the id of the `txn` action.
    pub app_id: Arc<str>,
    /// Position the rows continue from; none if the table has none for this partition.
    pub expected: Option<i64>,
    /// Position after them: the last offset included.
    pub last: i64,
    /// The rows; may be empty to record the position alone.
    pub rows: Vec<RoutedBatch>,
}

/// An open table and what is known of its log.
#[derive(Debug)]
pub struct DeltaSink {
    pub(super) spec: TableSpec,
    pub(super) log_store: LogStoreRef,
    pub(super) files: FileOptions,
    /// Latest version absorbed.
    pub(super) version: u64,
    /// When `version` was last known to be the latest.
    pub(super) seen_at: Instant,
    /// `txn` versions absorbed so far, by app id; only ids asked for or committed are kept.
    pub(super) positions: HashMap<String, Option<i64>>,
}

impl DeltaSink {
    /// Opens the table, creating it or adding missing nullable columns first.
    pub async fn open(storage: &Storage, spec: TableSpec, files: FileOptions) -> Result<Self, DeltaSinkError> {
        let log_store = storage.log_store(&spec.name);
        let mut table = load_or_create(&log_store, &spec).await?;
        let missing = missing_columns(&table, &spec)?;
        if !missing.is_empty() {
            table = add_columns(table, &spec, missing).await?;
        }
        let version = table.version().unwrap_or(0);
        Ok(Self { spec, log_store, files, version, seen_at: Instant::now(), positions: HashMap::new() })
    }

    /// Name of the table.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Latest version this sink has seen or written.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The latest committed positions of these source partitions, in order.
    pub async fn load_positions(&mut self, app_ids: &[Arc<str>]) -> Result<Vec<Option<i64>>, DeltaSinkError> {
        let mut table = DeltaTable::new(self.log_store.clone());
        table.load().await.map_err(|e| self.delta(e))?;
        let snapshot = table.snapshot().map_err(|e| self.delta(e))?;
        // The sink may have been ahead of nobody: positions of an older version are dropped whole.
        self.positions.clear();
        let mut found = Vec::with_capacity(app_ids.len());
        for id in app_ids {
            let position =
                snapshot.transaction_version(self.log_store.as_ref(), id).await.map_err(|e| self.delta(e))?;
            self.positions.insert(id.to_string(), position);
            found.push(position);
        }
        self.version = table.version().unwrap_or(0);
        self.seen_at = Instant::now();
        Ok(found)
    }

    pub(super) fn delta(&self, source: DeltaTableError) -> DeltaSinkError {
        delta_error(&self.spec.name, source)
    }
}

pub(super) fn delta_error(table: &str, source: DeltaTableError) -> DeltaSinkError {
    DeltaSinkError::Delta { table: table.to_owned(), source: Box::new(source) }
}

async fn load_or_create(log_store: &LogStoreRef, spec: &TableSpec) -> Result<DeltaTable, DeltaSinkError> {
    if let Some(table) = load_if_exists(log_store.clone()).await.map_err(|e| delta_error(&spec.name, e))? {
        return Ok(table);
    }
    let columns: StructType = kernel_schema(spec)?;
    let created = DeltaTable::new(log_store.clone())
        .create()
        .with_table_name(&spec.name)
        .with_save_mode(SaveMode::Ignore)
        // Of several creators one writes version 0. A retry would write the same table's protocol
        // again as version 1, which every open sink would have to take for an upgrade.
        .with_commit_properties(CommitProperties::default().with_max_retries(0))
        .with_columns(columns.fields().cloned())
        .with_partition_columns(spec.partition_columns.clone())
        .with_configuration([
            // A position must outlive any pause of its partition, so `txn` actions never expire.
            ("delta.logRetentionDuration".to_owned(), Some("interval 7 days".to_owned())),
            ("delta.deletedFileRetentionDuration".to_owned(), Some("interval 7 days".to_owned())),
            ("delta.checkpointInterval".to_owned(), Some("100".to_owned())),
        ])
        .await;
    match created {
        Ok(table) => {
            info!(table = %spec.name, "table created");
            Ok(table)
        }
        // Another worker created it first.
        Err(error) => match load_if_exists(log_store.clone()).await {
            Ok(Some(table)) => Ok(table),
            _ => Err(delta_error(&spec.name, error)),
        },
    }
}

fn kernel_schema(spec: &TableSpec) -> Result<StructType, DeltaSinkError> {
    let schema: &Schema = &spec.schema;
    schema.try_into_kernel().map_err(|e| DeltaSinkError::Encode { table: spec.name.clone(), reason: e.to_string() })
}

/// Columns the table lacks; an error if one of them, or a change to another, is not compatible.
fn missing_columns(table: &DeltaTable, spec: &TableSpec) -> Result<Vec<StructField>, DeltaSinkError> {
    let refuse = |column: &str, problem: &str| DeltaSinkError::Schema {
        table: spec.name.clone(),
        column: column.to_owned(),
        problem: problem.to_owned(),
    };
    let existing = table.snapshot().map_err(|e| delta_error(&spec.name, e))?.schema();
    let mut missing = Vec::new();
    for field in kernel_schema(spec)?.fields() {
        match existing.field(field.name()) {
            None if field.is_nullable() => missing.push(field.clone()),
            None => {
                return Err(refuse(
                    field.name(),
                    "is required but not in the table; only nullable columns can be added",
                ));
            }
            Some(have) if have.data_type() != field.data_type() => {
                return Err(refuse(
                    field.name(),
                    &format!("is {} in the table but {} is wanted", have.data_type(), field.data_type()),
                ));
            }
            Some(_) => {}
        }
    }
    Ok(missing)
}

async fn add_columns(
    table: DeltaTable,
    spec: &TableSpec,
    missing: Vec<StructField>,
) -> Result<DeltaTable, DeltaSinkError> {
    info!(table = %spec.name, columns = ?missing.iter().map(StructField::name).collect::<Vec<_>>(), "adding columns");
    let log_store = table.log_store();
    match table.add_columns().with_fields(missing).await {
        Ok(table) => Ok(table),
        // Another worker may have added them at the same time: look again before giving up.
        Err(error) => {
            let mut table = DeltaTable::new(log_store);
            table.load().await.map_err(|e| delta_error(&spec.name, e))?;
            match missing_columns(&table, spec)?.is_empty() {
                true => Ok(table),
                false => Err(delta_error(&spec.name, error)),
            }
        }
    }
}
