//! The contract between the runtime and an operator.

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use companyos_schemas::Stream;

use crate::Output;

/// What an operator reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Stream whose table is followed.
    pub stream: Stream,
    /// Columns wanted; others are not even read from the store.
    pub columns: Columns,
}

/// Which columns of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Columns {
    /// All of them.
    All,
    /// These; unknown names are ignored.
    Named(Vec<String>),
}

/// Rows of one commit to a stream's table, of this operator's tenants only.
#[derive(Debug, Clone, Copy)]
pub struct TailRows<'a> {
    /// Stream they belong to.
    pub stream: Stream,
    /// Version of the table that made them visible.
    pub version: u64,
    /// When that commit was made.
    pub committed_at: DateTime<Utc>,
    /// The rows: the wanted columns of [`companyos_schemas::arrow_schema::table_schema`], in its
    /// order and with its types, partition columns included. Rows are not sorted by time.
    pub batch: &'a RecordBatch,
}

/// A stateful operator over one shard of a region's tenants.
///
/// The runtime calls `on_rows` for every batch of every new commit, `on_time` after them and at
/// least once a second, then, if anything came out or a checkpoint is due, `take_output` and
/// `snapshot`, in this order and with nothing in between.
pub trait ShardOperator: Send + Sync {
    /// Name: part of checkpoint paths and positions, so it must not change. `[a-z_]+`.
    fn name(&self) -> &'static str;

    /// Streams it reads. May change only between runs.
    fn inputs(&self) -> Vec<Input>;

    /// Takes rows in. Rows that make no sense are counted and passed over; an error stops the
    /// operator, so it is for bugs and impossible states only.
    fn on_rows(&mut self, rows: &TailRows<'_>) -> Result<(), StreamError>;

    /// Lets processing time pass: timers, idleness, alerts that need no event.
    fn on_time(&mut self, now: DateTime<Utc>) -> Result<(), StreamError>;

    /// Everything put out since the last call.
    fn take_output(&mut self) -> Output;

    /// The state: all of it, or what changed since the last snapshot (of either kind).
    fn snapshot(&mut self, kind: SnapshotKind) -> Result<Vec<StateBatch>, StreamError>;

    /// Takes state back, before any rows: a full snapshot's batches, then those of each
    /// incremental one after it, in order. May be called several times, oldest first.
    fn restore(&mut self, state: &[StateBatch]) -> Result<(), StreamError>;

    /// For /metrics.
    fn stats(&self) -> OperatorStats;
}

/// How much of the state a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotKind {
    /// All of it.
    Full,
    /// What changed since the last snapshot.
    Incremental,
}

/// A named part of an operator's state.
#[derive(Debug, Clone)]
pub struct StateBatch {
    /// Which part, such as `panes`.
    pub name: String,
    /// Its rows.
    pub batch: RecordBatch,
}

/// What an operator tells about itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OperatorStats {
    /// Event time all partitions have reached; none before the first row.
    pub watermark: Option<DateTime<Utc>>,
    /// Keys held.
    pub state_keys: u64,
    /// Bytes held, about.
    pub state_bytes: u64,
    /// Rows that came after their window had closed.
    pub late_rows: u64,
}

/// Why an operator cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// Columns that are not as the contract says.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// State that cannot be written or read back.
    #[error("state {part:?}: {problem}")]
    State {
        /// Part of the state.
        part: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Anything else, in the operator's words.
    #[error("{0}")]
    Operator(String),
}
