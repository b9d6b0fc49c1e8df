//! Declared jobs and the worker that runs them.
//!
//! A worker process runs, for each pipeline, one or more members of a consumer group. A member is
//! one thread that polls Kafka and drives the operator chain of each partition it owns, and one
//! task that commits what the chains put out:
//!
//! ```text
//!  member thread                                   committer task
//!  poll ─> chain (per partition) ─> epoch ───────> tables of other regions, then the home table
//!    ^                                │                       │
//!    └── pause when an epoch is full ─┘<── outcome ───────────┘
//! ```
//!
//! An epoch is everything between two barriers: all partitions' rows and the offset each reached.
//! At most two exist at a time, one filling and one being committed, so memory is bounded and a
//! slow store slows the source.

pub mod alerts;
mod assignment;
mod committer;
mod config;
pub mod detections;
mod epoch;
mod headers;
mod health;
mod member;
mod quarantine_topic;
pub mod slo;
mod spec;
mod stats;
mod tables;
pub mod tasks;
mod traces;
pub mod views;
mod worker;

pub use config::WorkerConfig;
pub use health::WorkerHealth;
pub use spec::{PipelineSpec, SpecError};
pub use worker::{Worker, WorkerError, WorkerSetup};
