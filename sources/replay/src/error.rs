//! What can go wrong.

use crate::{CheckpointError, MapError, OpenError, ReplaySummary, RowProblem};

/// Why a replay did not finish.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The map is wrong.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The file cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no going on from the checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// librdkafka refuses its settings.
    #[error("Kafka setting: {0}")]
    Settings(String),
    /// No broker answers.
    #[error("no answer from Kafka at {brokers}: {reason}")]
    Unreachable {
        /// Servers asked.
        brokers: String,
        /// What librdkafka says.
        reason: String,
    },
    /// It started and had to stop.
    #[error("{reason}; {} rows of the file are done", summary.total.rows())]
    Stopped {
        /// Why.
        reason: StopReason,
        /// What was done before; `--resume` goes on after it.
        summary: Box<ReplaySummary>,
    },
}

/// What stopped a replay that had started.
#[derive(Debug, thiserror::Error)]
pub enum StopReason {
    /// The file ends too early, is damaged, or the disk failed.
    #[error("line {line} (row {row}) cannot be read: {source}")]
    Read {
        /// Number of the row, from 1.
        row: u64,
        /// Line it starts on, from 1.
        line: u64,
        /// What happened.
        source: std::io::Error,
    },
    /// A row that cannot be mapped, in strict mode.
    #[error("line {line}: {problem}")]
    Unmapped {
        /// Line it starts on, from 1.
        line: u64,
        /// Which field, and why.
        problem: RowProblem,
    },
    /// A row larger than this replay or the broker takes.
    #[error("line {line}: the row is too large: {reason}")]
    TooLarge {
        /// Line it starts on, from 1.
        line: u64,
        /// Whose limit it breaks.
        reason: String,
    },
    /// Kafka did not take a row.
    #[error("line {line}: not delivered: {reason}")]
    Delivery {
        /// Line it starts on, from 1.
        line: u64,
        /// What librdkafka says, after its retries.
        reason: String,
    },
    /// Progress could not be saved.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The reading thread ended without a word.
    #[error("the reader stopped unexpectedly")]
    ReaderDied,
}
