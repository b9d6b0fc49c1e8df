//! The operators between a source and a sink, one [`PartitionChain`] per input partition.
//!
//! ```text
//! Record ──> decode ──> residency ──> DLP ──> duplicates ──> rows by Route
//!              │            │          │
//!              └────────────┴──────────┴──> quarantine, by region
//! ```
//!
//! Decoding is the only step that sees bytes; the others work on columns. Every event pushed ends as
//! a row with a route, a dropped duplicate or a quarantine row, and which one depends on nothing but
//! the record, the configuration and the ids seen before.

mod chain;
mod cloud_event;
mod coerce;
mod columns;
mod config;
mod decode;
mod dedup;
mod epoch;
mod error;
mod json;
mod quarantine;
mod record;
mod record_log;
mod redact;
mod refusal;
mod residency;
mod route;
mod seal;
mod stage;
mod stats;
mod waiver;

pub use chain::{ChainOutput, PartitionChain};
pub use config::{ChainConfig, DecodeConfig, DedupConfig};
pub use error::OperatorError;
pub use record::{CloudEventHeaders, Record, RecordHeaders};
pub use redact::Redactor;
pub use route::Route;
pub use seal::{SealError, Sealer};
pub use stats::ChainStats;
pub use waiver::{WAIVER_HEADER, issue_waiver, open_waiver};
