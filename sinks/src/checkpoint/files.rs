//! Objects below a line: batches as zstd Arrow IPC under names that are never used twice.

use std::{io::Cursor, sync::Arc, time::Duration};

use arrow::{
    array::RecordBatch,
    error::ArrowError,
    ipc::{
        CompressionType,
        reader::StreamReader,
        writer::{IpcWriteOptions, StreamWriter},
    },
};
use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use uuid::Uuid;

use super::{CheckpointError, manifest::StoredFile};

/// A line's folder.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub store: Arc<dyn ObjectStore>,
    pub root: String,
}

impl Folder {
    pub(super) fn path(&self, below: &str) -> Path {
        Path::from(format!("{}/{below}", self.root))
    }

    pub(super) fn fail(&self, below: &str) -> impl Fn(object_store::Error) -> CheckpointError + use<> {
        let path = format!("{}/{below}", self.root);
        move |source| CheckpointError::Store { path: path.clone(), source }
    }

    fn bad(&self, below: &str, problem: impl std::fmt::Display) -> CheckpointError {
        CheckpointError::Format { path: format!("{}/{below}", self.root), problem: problem.to_string() }
    }

    /// Stores a batch and says where.
    pub(super) async fn write(
        &self,
        kind: &str,
        name: &str,
        batch: RecordBatch,
    ) -> Result<StoredFile, CheckpointError> {
        let path = format!("{kind}/{}.arrow", Uuid::now_v7());
        let encoded = tokio::task::spawn_blocking(move || encode(&batch)).await;
        let bytes = encoded.map_err(|e| self.bad(&path, e))?.map_err(|e| self.bad(&path, e))?;
        let size = bytes.len() as u64;
        let put = || async { self.store.put(&self.path(&path), bytes.clone().into()).await };
        put.retry(retries()).await.map_err(self.fail(&path))?;
        Ok(StoredFile { name: name.to_owned(), path, bytes: size })
    }

    /// Reads it back.
    pub(super) async fn read(&self, file: &StoredFile) -> Result<Vec<RecordBatch>, CheckpointError> {
        let get = || async { self.store.get(&self.path(&file.path)).await?.bytes().await };
        let retriable = |error: &object_store::Error| !matches!(error, object_store::Error::NotFound { .. });
        let bytes = get.retry(retries()).when(retriable).await.map_err(self.fail(&file.path))?;
        let decoded = tokio::task::spawn_blocking(move || decode(bytes)).await;
        decoded.map_err(|e| self.bad(&file.path, e))?.map_err(|e| self.bad(&file.path, e))
    }
}

/// A few quick tries; whoever calls has longer pauses of its own.
pub(super) fn retries() -> ExponentialBuilder {
    ExponentialBuilder::default().with_jitter().with_min_delay(Duration::from_millis(50)).with_max_times(3)
}

fn encode(batch: &RecordBatch) -> Result<Bytes, ArrowError> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD))?;
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options)?;
    writer.write(batch)?;
    Ok(Bytes::from(writer.into_inner()?))
}

fn decode(bytes: Bytes) -> Result<Vec<RecordBatch>, ArrowError> {
    StreamReader::try_new(Cursor::new(bytes), None)?.collect()
}
