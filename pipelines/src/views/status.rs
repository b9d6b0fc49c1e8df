//! Where a view stands: by region and shard, against its stream's table.

use std::{collections::HashMap, sync::Arc};

use companyos_sinks::storage::{Storage, StorageError};
use serde::Serialize;

use super::registry::Generation;

/// One region and shard of a view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartStatus {
    /// Region.
    pub region: String,
    /// Shard.
    pub shard: u32,
    /// Version of the stream's table that state was last written for; commits without rows for the
    /// view do not move it. None before the history is taken in.
    pub position: Option<i64>,
    /// Latest version of the stream's table; none if there is no table yet.
    pub stream_version: Option<u64>,
}

/// A view's state in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ViewStatus {
    /// Region by region, shard by shard.
    pub parts: Vec<PartStatus>,
    /// State files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Generation {
    /// Reads where state stands.
    pub async fn status(&self, storages: &HashMap<Arc<str>, Storage>) -> Result<ViewStatus, StorageError> {
        let mut status = ViewStatus { parts: Vec::new(), files: 0, bytes: 0 };
        for region in &self.regions {
            let Some(storage) = storages.get(region.as_str()) else { continue };
            let stream = storage.load_table(self.plan.stream.name()).await?;
            let stream_version = stream.and_then(|table| table.version());
            let state = storage.load_table(&self.table).await?;
            let snapshot = state.as_ref().and_then(|table| table.snapshot().ok());
            if let Some(snapshot) = &snapshot {
                status.files += snapshot.log_data().num_files();
                status.bytes += snapshot.log_data().iter().map(|f| f.size().unsigned_abs()).sum::<u64>();
            }
            for shard in 0..self.shards {
                let position = match (&state, &snapshot) {
                    (Some(table), Some(snapshot)) => snapshot
                        .transaction_version(table.log_store().as_ref(), format!("view/{shard}"))
                        .await
                        .map_err(|e| StorageError::Table { table: self.table.clone(), source: Box::new(e) })?,
                    _ => None,
                };
                status.parts.push(PartStatus { region: region.clone(), shard, position, stream_version });
            }
        }
        Ok(status)
    }
}
