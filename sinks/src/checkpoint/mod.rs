//! Checkpoints of an operator's shard in its region's object store, with a transactional outbox.
//!
//! A shard has a *line* of numbered checkpoints below `_state/<operator>/<shard>/`. Checkpoint N is
//! one small object, the manifest, written if absent, over files written before it:
//!
//! ```text
//! state/… (zstd Arrow IPC)   outbox/… (zstd Arrow IPC)   then   manifest/N.json   then   delivery
//! ```
//!
//! Promises:
//! - The manifest is the commit: positions, state and outputs become durable together, or not at all.
//! - It is also the fence. Of two owners of a shard only one can write N; the other is told
//!   [`CheckpointError::Fenced`] and has to start again from what the winner wrote.
//! - Rows of the outbox reach their tables exactly once: they are committed with the position N of
//!   `<operator>/<shard>`, compared and swapped. Notices are sent at least once, with stable ids.
//! - N is delivered before N + 1 is written, so at most the newest outbox is open after a crash.

mod files;
mod line;
mod manifest;
mod outbox;

pub use line::{CheckpointLine, LineOptions, Written};
pub use manifest::Manifest;
pub use outbox::{NoticeError, NoticeSink, OutgoingNotice};

use companyos_stream::StreamError;

use crate::delta::DeltaSinkError;

/// Why a checkpoint cannot be written, read or delivered.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The store failed; trying again may help.
    #[error("checkpoint {path}: {source}")]
    Store {
        /// Object.
        path: String,
        /// What the store said.
        source: object_store::Error,
    },
    /// Another owner of the shard went on.
    #[error("checkpoint {sequence} of {line} was written by another owner of the shard")]
    Fenced {
        /// Line.
        line: String,
        /// Number that is taken.
        sequence: u64,
    },
    /// An object that this release cannot read.
    #[error("checkpoint {path}: {problem}")]
    Format {
        /// Object.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The operator does not take its state back, or does not give it.
    #[error(transparent)]
    State(#[from] StreamError),
    /// Rows could not be delivered to a table.
    #[error(transparent)]
    Table(#[from] DeltaSinkError),
    /// Notices could not be delivered.
    #[error(transparent)]
    Notices(#[from] NoticeError),
}

impl CheckpointError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store { .. } | Self::Notices(_) => true,
            Self::Table(error) => error.is_transient(),
            Self::Fenced { .. } | Self::Format { .. } | Self::State(_) => false,
        }
    }
}
