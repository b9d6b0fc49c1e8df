//! The manifest: what a checkpoint consists of.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this layout.
    pub format: u32,
    /// Its number in the line.
    pub sequence: u64,
    /// Who wrote it: tells an own write whose reply was lost from another owner's.
    pub attempt: Uuid,
    /// When.
    pub created_at: DateTime<Utc>,
    /// Last version read of each stream's table.
    pub positions: BTreeMap<String, u64>,
    /// The state: a full snapshot, then what changed, oldest first.
    pub chain: Vec<ChainStep>,
    /// What came out.
    pub outbox: Outbox,
}

/// One snapshot.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ChainStep {
    /// Its parts, by name.
    pub files: Vec<StoredFile>,
}

/// Rows and notices.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outbox {
    /// Rows by table.
    pub rows: Vec<StoredFile>,
    /// Notices, as rows of one file.
    pub notices: Option<StoredFile>,
}

/// An object below the line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredFile {
    /// Part of the state, or table.
    pub name: String,
    /// Path below the line.
    pub path: String,
    /// Size.
    pub bytes: u64,
}

/// Layout this release writes, and the only one it reads.
pub(super) const FORMAT: u32 = 1;

impl Manifest {
    pub(super) fn paths(&self) -> BTreeSet<String> {
        let chain = self.chain.iter().flat_map(|step| &step.files);
        chain.chain(&self.outbox.rows).chain(&self.outbox.notices).map(|file| file.path.clone()).collect()
    }
}

impl ChainStep {
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Numbers are padded so that names sort as numbers do.
pub(super) fn file_name(sequence: u64) -> String {
    format!("{sequence:020}.json")
}
