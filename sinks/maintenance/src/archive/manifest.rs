//! Manifests: the record of each move from hot storage to the archive, and its place to resume.
//!
//! A manifest is open (`_manifests/open/<table>/`) until its move is settled, then lies with its
//! partition (`_manifests/<table>/<partition>/`) for good. Its state is only a note: what really
//! happened is decided by the positions and files of the two tables, which change atomically.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use serde::{Deserialize, Serialize};

use crate::{MaintenanceError, rewrite::read_object};

/// One move of files of one partition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub format: u32,
    /// Region the rows belong to.
    pub region: String,
    /// Table name, the same in both roots.
    pub table: String,
    /// Partition path, such as `tenant=alpha/region=eu/day=2026-01-01`.
    pub partition: String,
    /// Values of the partition columns.
    pub partition_values: HashMap<String, Option<String>>,
    /// Number of the move within its partition; the `txn` version in both tables.
    pub sequence: i64,
    /// Unique id of the attempt; part of the archived files' names.
    pub attempt: String,
    /// How far it got.
    pub state: ManifestState,
    /// URL of the table the rows came from.
    pub source: String,
    /// Version of that table the files were chosen from.
    pub source_version: u64,
    /// The files.
    pub files: Vec<ManifestFile>,
    /// Rows of all files.
    pub rows: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// When it was planned.
    pub created_at: DateTime<Utc>,
    /// When the state changed last.
    pub updated_at: DateTime<Utc>,
    /// Version of the archive table that made the rows visible there.
    pub archive_version: Option<u64>,
    /// Version of the hot table that removed them.
    pub removed_version: Option<u64>,
}

/// One file of a move. The copy is byte for byte.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Path below the hot table.
    pub source: String,
    /// Path below the archive table.
    pub archived: String,
    /// Rows, by the file's own footer; 0 until it is copied.
    pub rows: u64,
    /// Size.
    pub bytes: u64,
    /// SHA-256 in hex, equal on both sides; empty until it is copied.
    pub sha256: String,
}

/// How far a move got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManifestState {
    /// Files chosen.
    Planned,
    /// Files copied, and read back with the same hash and row count.
    Verified,
    /// Committed to the archive table; the hot table still has the rows.
    Archived,
    /// Removed from the hot table: settled.
    Done,
    /// Never committed to the archive: settled, nothing moved.
    Abandoned,
    /// Taken out of the archive again, because the hot files had changed: settled, nothing moved.
    RolledBack,
}

impl ManifestState {
    /// Whether nothing is left to do.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Done | Self::Abandoned | Self::RolledBack)
    }
}

impl Manifest {
    /// The `txn` id of the partition's moves, in both tables.
    pub(super) fn app_id(table: &str, partition: &str) -> String {
        format!("companyos-archive/{table}/{partition}")
    }

    fn file_name(&self) -> String {
        format!("{:08}-{}.json", self.sequence, self.attempt)
    }

    fn open_path(&self) -> Path {
        let partition = self.partition.replace('/', ",");
        Path::from(format!("{}/{partition},{}", open_folder(&self.table), self.file_name()))
    }

    fn settled_path(&self) -> Path {
        Path::from(format!("_manifests/{}/{}/{}", self.table, self.partition, self.file_name()))
    }

    /// Stores the open manifest in its new state.
    pub(super) async fn save(
        &mut self,
        store: &Arc<dyn ObjectStore>,
        state: ManifestState,
        now: DateTime<Utc>,
    ) -> Result<(), MaintenanceError> {
        self.state = state;
        self.updated_at = now;
        put(store, &self.open_path(), self).await
    }

    /// Moves the manifest to its partition, in its last state.
    pub(super) async fn settle(
        &mut self,
        store: &Arc<dyn ObjectStore>,
        state: ManifestState,
        now: DateTime<Utc>,
    ) -> Result<(), MaintenanceError> {
        self.state = state;
        self.updated_at = now;
        put(store, &self.settled_path(), self).await?;
        let path = self.open_path();
        match store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(MaintenanceError::Object { path: path.to_string(), source }),
        }
    }

    /// All open manifests of a table.
    pub(super) async fn open(store: &Arc<dyn ObjectStore>, table: &str) -> Result<Vec<Self>, MaintenanceError> {
        let folder = Path::from(open_folder(table));
        let fail = |source| MaintenanceError::Object { path: folder.to_string(), source };
        let mut listed: Vec<_> = store.list(Some(&folder)).try_collect().await.map_err(fail)?;
        listed.sort_by(|a: &object_store::ObjectMeta, b| a.location.cmp(&b.location));
        let mut manifests = Vec::with_capacity(listed.len());
        for object in listed {
            let bytes = match read_object(store, &object.location).await {
                Ok(bytes) => bytes,
                // Another maintainer settled it just now.
                Err(MaintenanceError::Object { source: object_store::Error::NotFound { .. }, .. }) => continue,
                Err(error) => return Err(error),
            };
            let manifest = serde_json::from_slice(&bytes).map_err(|e| MaintenanceError::Corrupt {
                path: object.location.to_string(),
                problem: format!("not a manifest: {e}"),
            })?;
            manifests.push(manifest);
        }
        Ok(manifests)
    }
}

fn open_folder(table: &str) -> String {
    format!("_manifests/open/{table}")
}

async fn put(store: &Arc<dyn ObjectStore>, path: &Path, manifest: &Manifest) -> Result<(), MaintenanceError> {
    let text = serde_json::to_vec_pretty(manifest)
        .map_err(|e| MaintenanceError::Corrupt { path: path.to_string(), problem: e.to_string() })?;
    store
        .put(path, text.into())
        .await
        .map(|_| ())
        .map_err(|source| MaintenanceError::Object { path: path.to_string(), source })
}
