//! What an operator that follows a table's log is given and gives back: rows, time, outputs, keyed
//! state.
//!
//! The event-time operators (SLO burn rates, detections) read the stream tables commit by commit
//! instead of Kafka: what they see is deduplicated, governed and in its region. One operator
//! instance serves one shard of the tenants of one region. The runtime feeds it rows and time,
//! takes outputs and state at a checkpoint, and makes all of them durable together; after a crash
//! or a move the operator is restored from the last checkpoint and fed from exactly there.
//!
//! The contract is synchronous and does no I/O, so that tests and back tests drive an operator the
//! same way as the runtime does.

mod keyed_state;
mod operator;
mod output;
mod watermark;

pub use keyed_state::KeyedState;
pub use operator::{Columns, Input, OperatorStats, ShardOperator, SnapshotKind, StateBatch, StreamError, TailRows};
pub use output::{Notice, Output, OutputTable};
pub use watermark::WatermarkTracker;
