//! Why a maintenance task did not do its work.

use companyos_sinks::{delta::DeltaSinkError, storage::StorageError};
use deltalake::DeltaTableError;

use crate::ConfigError;

/// Why a maintenance task did not do its work. Nothing is lost by any of them.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A table cannot be opened.
    #[error(transparent)]
    Storage(Box<StorageError>),
    /// The archive's table cannot be opened, created or widened.
    #[error("archive: {0}")]
    Sink(Box<DeltaSinkError>),
    /// The log cannot be read or written.
    #[error("table {table}: {source}")]
    Delta {
        /// Table name.
        table: String,
        /// What delta-rs said.
        source: Box<DeltaTableError>,
    },
    /// An object cannot be read or written.
    #[error("{path}: {source}")]
    Object {
        /// Path below the table or root.
        path: String,
        /// What the store said.
        source: object_store::Error,
    },
    /// Another commit got in the way; the plan has to be made anew.
    #[error("table {table}: version {version} {problem}; the plan is stale")]
    Conflict {
        /// Table name.
        table: String,
        /// The version in the way.
        version: u64,
        /// What it did.
        problem: &'static str,
    },
    /// A table with features these tasks must not rewrite.
    #[error("table {table}: {problem}")]
    Unsupported {
        /// Table name.
        table: String,
        /// Which feature.
        problem: String,
    },
    /// A file is not what the log or the manifest says it is; nothing was removed.
    #[error("file {path}: {problem}")]
    Corrupt {
        /// Path of the file.
        path: String,
        /// What differs.
        problem: String,
    },
    /// Rows of the archive whose removal from the hot table cannot be decided by itself.
    #[error(
        "table {table}, partition {partition}: archived rows are unsettled and their manifest is missing; restore it below _manifests or remove these files from the archive table"
    )]
    Unsettled {
        /// Table name.
        table: String,
        /// Partition path.
        partition: String,
    },
    /// Rows could not be decoded, sorted or encoded.
    #[error("table {table}: cannot rewrite rows: {reason}")]
    Rewrite {
        /// Table name.
        table: String,
        /// Why.
        reason: String,
    },
}

impl MaintenanceError {
    /// Whether the same task may succeed if it is run again at once.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Storage(error) => matches!(**error, StorageError::Table { .. }),
            Self::Delta { .. } | Self::Object { .. } | Self::Conflict { .. } => true,
            Self::Sink(error) => error.is_transient(),
            _ => false,
        }
    }

    pub(crate) fn delta(table: &str, source: DeltaTableError) -> Self {
        Self::Delta { table: table.to_owned(), source: Box::new(source) }
    }

    pub(crate) fn rewrite(table: &str, reason: impl std::fmt::Display) -> Self {
        Self::Rewrite { table: table.to_owned(), reason: reason.to_string() }
    }
}

// Boxed, as they are far larger than the rest.
impl From<StorageError> for MaintenanceError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Box::new(error))
    }
}

impl From<DeltaSinkError> for MaintenanceError {
    fn from(error: DeltaSinkError) -> Self {
        Self::Sink(Box::new(error))
    }
}
