//! File replay: reads NDJSON, CSV, Parquet or log lines (plain, gzip or zstd), maps every row to an
//! event envelope by a YAML map, and produces the events to a Kafka topic.
//!
//! Promises: memory is bounded whatever the file's size; every row is sent or reported, none is
//! dropped silently; the checkpoint never runs ahead of what Kafka has acknowledged, so a resumed
//! replay loses nothing, and what it may send again carries the same `event_id`.
//!
//! The map's grammar is in this crate's README.md.

mod checkpoint;
mod deliver;
mod error;
mod map;
mod options;
mod pace;
mod progress;
mod reader;
mod replay;
mod rows;
mod summary;

pub use checkpoint::CheckpointError;
pub use error::{ReplayError, StopReason};
pub use map::{MapError, ReplayMap, RowProblem};
pub use options::{ReplayOptions, Speed, SpeedError, parse_setting};
pub use replay::replay;
pub use rows::{Format, OpenError};
pub use summary::{Counts, Outcome, ReplaySummary, UnmappedRow};
