//! Why a query fails, and what of it the asker may read.
//!
//! Messages of parsing, planning and computing pass through: they hold the asker's own text and
//! rows. Whatever comes from storage, memory accounting or inside the engine is logged here and
//! answered with a fixed sentence, since it may hold paths, sizes or rows of others.

use datafusion::error::DataFusionError;

/// A failed query.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueryError {
    /// The statement does not parse or plan.
    #[error("{0}")]
    Sql(String),
    /// The statement is of a kind that is not offered.
    #[error("{0}")]
    NotAllowed(String),
    /// The SQL text is longer than allowed.
    #[error("the statement has {bytes} bytes; at most {limit} are allowed")]
    StatementTooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The tenant of the scope is not configured here.
    #[error("the tenant is not configured")]
    UnknownTenant,
    /// Evaluating the statement failed on the asker's rows, such as a division by zero.
    #[error("{0}")]
    Evaluation(String),
    /// The tenant runs as many queries as it may.
    #[error("the tenant already runs {limit} queries")]
    Busy {
        /// The limit.
        limit: usize,
    },
    /// The statement timeout passed.
    #[error("the query did not finish within {seconds} s")]
    Timeout {
        /// The timeout.
        seconds: f64,
    },
    /// Memory or spill space ran out.
    #[error("the query needs more memory than is available")]
    Memory,
    /// The result is longer than allowed; the rows before this error are valid.
    #[error("the result was cut: {0}")]
    Truncated(Cut),
    /// Tables could not be read.
    #[error("the tables could not be read; try again")]
    Storage,
    /// A fault of ours.
    #[error("the query failed")]
    Internal,
}

/// Which cap cut a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// `max_rows`.
    #[error("it has more than {0} rows")]
    Rows(u64),
    /// `max_bytes`.
    #[error("it has more than {0} bytes")]
    Bytes(u64),
}

impl QueryError {
    /// Short stable name, for metrics and problem types.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Sql(_) => "invalid-sql",
            Self::NotAllowed(_) => "statement-not-allowed",
            Self::StatementTooLong { .. } => "statement-too-long",
            Self::UnknownTenant => "unknown-tenant",
            Self::Evaluation(_) => "evaluation-failed",
            Self::Busy { .. } => "too-many-queries",
            Self::Timeout { .. } => "statement-timeout",
            Self::Memory => "out-of-memory",
            Self::Truncated(_) => "result-truncated",
            Self::Storage => "storage-unavailable",
            Self::Internal => "internal",
        }
    }
}

/// A scan inside the isolation boundary failed. The cause is in the log, not in the error.
#[derive(Debug, thiserror::Error)]
#[error("scan failed")]
pub(crate) struct ScanFailed;

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        use DataFusionError as E;
        match error.find_root() {
            E::SQL(..) | E::Plan(_) | E::SchemaError(..) | E::NotImplemented(_) | E::Configuration(_) => {
                Self::Sql(message(&error))
            }
            E::Execution(_) | E::ArrowError(..) => Self::Evaluation(message(&error)),
            E::ResourcesExhausted(_) => {
                tracing::warn!(%error, "query memory exhausted");
                Self::Memory
            }
            E::External(source) => {
                if let Some(own) = source.downcast_ref::<QueryError>() {
                    return own.clone();
                }
                if !source.is::<ScanFailed>() {
                    tracing::error!(%error, "query failed outside the engine");
                }
                Self::Storage
            }
            E::ObjectStore(_) | E::ParquetError(_) | E::IoError(_) => {
                tracing::error!(%error, "query storage failed");
                Self::Storage
            }
            E::Collection(errors) => match errors.first() {
                Some(_) => Self::Sql(message(&error)),
                None => Self::Internal,
            },
            _ => {
                tracing::error!(%error, "query failed");
                Self::Internal
            }
        }
    }
}

/// The message without DataFusion's backtrace and internal prefixes.
fn message(error: &DataFusionError) -> String {
    error.strip_backtrace().trim().to_owned()
}
