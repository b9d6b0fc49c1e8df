//! The Delta sink: one commit per table and epoch, carrying the files of all partitions and the
//! source position of each.
//!
//! Exactly once rests on one rule, a compare-and-swap on positions: a commit names, for every
//! source partition in it, the position it continues from; if the table's `txn` for that
//! partition says anything else, another worker was here and the partition's rows are left out.
//! See [`commit`] for the protocol.

mod commit;
mod encode;
pub mod file_stats;
mod recent;
mod table;
mod tail;

pub use commit::{Committed, Uncommitted};
pub use deltalake::kernel::Add;
pub use encode::{FileOptions, RoutedBatch};
pub use recent::recent_ids;
pub use table::{DeltaSink, PartitionRows, TableEpoch, TableSpec};
pub use tail::{FileReader, TableFiles, TableTail, TailEntry, table_files};

use deltalake::{DeltaTableError, datafusion::error::DataFusionError};

use crate::storage::StorageError;

/// Why a table cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum DeltaSinkError {
    /// The store or the log failed; trying again may help.
    #[error("table {table}: {source}")]
    Delta {
        /// Table name.
        table: String,
        /// What delta-rs said.
        source: Box<DeltaTableError>,
    },
    /// A file could not be stored; trying again may help.
    #[error("table {table}: cannot store {path}: {source}")]
    Store {
        /// Table name.
        table: String,
        /// Path below the table.
        path: String,
        /// What the store said.
        source: object_store::Error,
    },
    /// Rows could not be read back; trying again may help.
    #[error("table {table}: cannot read rows: {source}")]
    Read {
        /// Table name.
        table: String,
        /// What DataFusion said.
        source: Box<DataFusionError>,
    },
    /// A log entry was cleaned up before it was read: what follows the log must start again.
    #[error("table {table}: log entry {version} was cleaned up before it was read")]
    Gap {
        /// Table name.
        table: String,
        /// The missing entry.
        version: u64,
    },
    /// A data file cannot be read; trying again may help.
    #[error("table {table}: cannot read {path}: {problem}")]
    Parquet {
        /// Table name.
        table: String,
        /// Path below the table.
        path: String,
        /// What the reader said.
        problem: String,
    },
    /// The storage cannot be opened.
    #[error(transparent)]
    Storage(Box<StorageError>),
    /// Rows that do not encode: a bug or an unsupported schema; trying again does not help.
    #[error("table {table}: cannot encode rows: {reason}")]
    Encode {
        /// Table name.
        table: String,
        /// Why.
        reason: String,
    },
    /// The table's columns cannot become the ones wanted.
    #[error("table {table}: column {column} {problem}")]
    Schema {
        /// Table name.
        table: String,
        /// Column.
        column: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The log holds something this writer must not build upon.
    #[error("table {table}: {problem}")]
    Log {
        /// Table name.
        table: String,
        /// What it holds.
        problem: String,
    },
}

impl DeltaSinkError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Delta { .. } | Self::Store { .. } | Self::Read { .. } | Self::Parquet { .. })
    }
}

impl From<StorageError> for DeltaSinkError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Table { table, source } => Self::Delta { table, source },
            other => Self::Storage(Box::new(other)),
        }
    }
}
