//! A table as of one version: its files by partition, its schema, its positions.

use std::collections::{BTreeMap, HashMap};

use arrow::datatypes::{Schema, SchemaRef};
use chrono::NaiveDate;
use companyos_schemas::arrow_schema::DAY;
use companyos_sinks::storage::Storage;
use deltalake::{
    DeltaTable,
    kernel::{Add, Remove},
    logstore::LogStoreRef,
};
use object_store::path::Path;

use crate::MaintenanceError;

/// One version of a table.
pub(crate) struct LiveTable {
    pub name: String,
    pub version: u64,
    pub log_store: LogStoreRef,
    pub files: Vec<LiveFile>,
    pub partition_columns: Vec<String>,
    /// All columns, partition columns included.
    pub schema: SchemaRef,
    table: DeltaTable,
}

/// A file of that version.
#[derive(Debug, Clone)]
pub(crate) struct LiveFile {
    /// Path below the table, decoded.
    pub path: String,
    pub partition: HashMap<String, Option<String>>,
    pub size: u64,
    /// Milliseconds since the epoch.
    pub modified: i64,
    /// Rows according to the log.
    pub rows: Option<u64>,
}

impl LiveFile {
    /// Value of a partition column; none if it is null or no partition column.
    pub fn value(&self, column: &str) -> Option<&str> {
        self.partition.get(column)?.as_deref()
    }

    /// The UTC day the file's rows belong to, if the table is partitioned by day.
    pub fn day(&self) -> Option<NaiveDate> {
        self.value(DAY)?.parse().ok()
    }

    pub fn object_path(&self) -> Path {
        Path::from(self.path.as_str())
    }

    /// Name without folders.
    pub fn file_name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    pub fn remove(&self, data_change: bool, now: i64) -> Remove {
        Remove {
            path: self.path.clone(),
            data_change,
            deletion_timestamp: Some(now),
            extended_file_metadata: Some(true),
            partition_values: Some(self.partition.clone()),
            size: i64::try_from(self.size).ok(),
            ..Default::default()
        }
    }

    /// The action that added the file, as far as a reader needs it.
    pub fn add(&self) -> Add {
        Add {
            path: self.path.clone(),
            partition_values: self.partition.clone(),
            size: i64::try_from(self.size).unwrap_or(i64::MAX),
            modification_time: self.modified,
            data_change: true,
            ..Default::default()
        }
    }
}

impl LiveTable {
    /// The latest version, or none if there is no such table.
    pub async fn open(storage: &Storage, name: &str) -> Result<Option<Self>, MaintenanceError> {
        let Some(table) = storage.load_table(name).await? else { return Ok(None) };
        Self::of(name, table).map(Some)
    }

    /// An older version.
    pub async fn open_at(storage: &Storage, name: &str, version: u64) -> Result<Self, MaintenanceError> {
        let mut table = DeltaTable::new(storage.log_store(name));
        table.load_version(version).await.map_err(|e| MaintenanceError::delta(name, e))?;
        Self::of(name, table)
    }

    fn of(name: &str, table: DeltaTable) -> Result<Self, MaintenanceError> {
        let fail = |e| MaintenanceError::delta(name, e);
        let state = table.snapshot().map_err(fail)?;
        let mut files = Vec::with_capacity(state.log_data().num_files());
        for file in state.log_data().iter() {
            if file.deletion_vector_descriptor().is_some() {
                return Err(MaintenanceError::Unsupported {
                    table: name.to_owned(),
                    problem: format!("file {} has a deletion vector", file.path()),
                });
            }
            files.push(LiveFile {
                path: file.path().into_owned(),
                partition: file.partition_values_map(),
                size: u64::try_from(file.size()).unwrap_or(0),
                modified: file.modification_time(),
                rows: file.num_records().map(|rows| rows as u64),
            });
        }
        let (reader, writer) = (state.protocol().min_reader_version(), state.protocol().min_writer_version());
        if reader > 1 || writer > 2 {
            // Column mapping, row tracking, change feeds: rewriting files would have to honour them.
            return Err(MaintenanceError::Unsupported {
                table: name.to_owned(),
                problem: format!("protocol ({reader}, {writer}) is newer than the (1, 2) these tasks know"),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            version: state.version(),
            log_store: table.log_store(),
            files,
            partition_columns: state.metadata().partition_columns().to_vec(),
            schema: state.snapshot().arrow_schema(),
            table,
        })
    }

    /// The delta-rs table at this version.
    pub fn delta(&self) -> &DeltaTable {
        &self.table
    }

    /// The committed `txn` version of an application.
    pub async fn position(&self, app_id: &str) -> Result<Option<i64>, MaintenanceError> {
        let fail = |e| MaintenanceError::delta(&self.name, e);
        let state = self.table.snapshot().map_err(fail)?;
        state.transaction_version(self.log_store.as_ref(), app_id).await.map_err(fail)
    }

    /// Whether rows may be taken out at all.
    pub fn check_deletable(&self) -> Result<(), MaintenanceError> {
        let state = self.table.snapshot().map_err(|e| MaintenanceError::delta(&self.name, e))?;
        match state.table_config().append_only {
            Some(true) => Err(MaintenanceError::Unsupported {
                table: self.name.clone(),
                problem: "is append-only (delta.appendOnly)".to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Columns stored in files: all but the partition columns.
    pub fn file_schema(&self) -> SchemaRef {
        let stored = self.schema.fields().iter().filter(|f| !self.partition_columns.contains(f.name()));
        Schema::new(stored.cloned().collect::<Vec<_>>()).into()
    }

    /// Files by partition path, such as `tenant=alpha/region=eu/day=2026-01-01`.
    pub fn partitions(&self) -> BTreeMap<String, Vec<LiveFile>> {
        let mut partitions: BTreeMap<String, Vec<LiveFile>> = BTreeMap::new();
        for file in &self.files {
            partitions.entry(self.partition_path(&file.partition)).or_default().push(file.clone());
        }
        partitions
    }

    /// Folder of a partition below the table.
    pub fn partition_path(&self, partition: &HashMap<String, Option<String>>) -> String {
        let parts: Vec<String> = self
            .partition_columns
            .iter()
            .map(|column| {
                let value = partition.get(column).and_then(Option::as_deref);
                format!("{column}={}", value.unwrap_or("__HIVE_DEFAULT_PARTITION__"))
            })
            .collect();
        parts.join("/")
    }
}
