//! What flows between operators: data, and signals in line with it.
//!
//! The names are those of Arroyo's types crate, so that its users feel at home.

use std::time::SystemTime;

use arrow::array::RecordBatch;

/// One step of the flow between two operators.
#[derive(Debug, Clone)]
pub enum ArrowMessage {
    /// Rows.
    Data(RecordBatch),
    /// Something about the rows before it.
    Signal(SignalMessage),
}

/// Control that travels in order with the data.
#[derive(Debug, Clone, PartialEq)]
pub enum SignalMessage {
    /// All rows before it belong to this checkpoint or an earlier one.
    Barrier(CheckpointBarrier),
    /// Event time has come this far.
    Watermark(Watermark),
    /// Stop now; what is not committed will be read again.
    Stop,
    /// The source is exhausted.
    EndOfData,
}

/// Event-time progress of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watermark {
    /// No row older than this is expected.
    EventTime(SystemTime),
    /// The partition is idle and holds nobody back.
    Idle,
}

/// Ends an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointBarrier {
    /// Number of the epoch, rising by one within a process.
    pub epoch: u64,
    /// When the barrier was made.
    pub timestamp: SystemTime,
    /// Whether the task stops after this checkpoint.
    pub then_stop: bool,
}
