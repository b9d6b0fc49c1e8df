//! Copying a file to the archive byte for byte, and proving it before anything relies on it.

use std::sync::Arc;

use bytes::Bytes;
use chrono::Utc;
use companyos_sinks::delta::file_stats;
use deltalake::kernel::Add;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use parquet::{
    arrow::{arrow_reader::ParquetRecordBatchReaderBuilder, parquet_to_arrow_schema},
    file::metadata::ParquetMetaData,
};
use sha2::{Digest, Sha256};

use super::ManifestFile;
use crate::{
    MaintenanceError,
    live_table::LiveFile,
    rewrite::{blocking, read_object},
};

/// Copies one file, reads the copy back, and fills in rows and hash.
pub(super) async fn copy_verified(
    from: &Arc<dyn ObjectStore>,
    to: &Arc<dyn ObjectStore>,
    source: &LiveFile,
    file: &mut ManifestFile,
) -> Result<Add, MaintenanceError> {
    let archived = Path::from(file.archived.as_str());
    let original = read_object(from, &source.object_path()).await?;
    to.put(&archived, original.clone().into())
        .await
        .map_err(|source| MaintenanceError::Object { path: file.archived.clone(), source })?;
    let original = inspect(original, &file.source).await?;
    // From here on only what the archive returns counts.
    let copy = read_object(to, &archived).await?;
    let copy = inspect(copy, &file.archived).await?;
    let differs = |problem: String| MaintenanceError::Corrupt { path: file.archived.clone(), problem };
    if copy.sha256 != original.sha256 {
        return Err(differs(format!("SHA-256 {} differs from {} of {}", copy.sha256, original.sha256, file.source)));
    }
    if copy.rows != original.rows || source.rows.is_some_and(|logged| logged != copy.rows) {
        return Err(differs(format!("{} rows, but the log says {:?}", copy.rows, source.rows)));
    }
    file.rows = copy.rows;
    file.bytes = copy.bytes;
    file.sha256 = copy.sha256;
    Ok(Add {
        path: file.archived.clone(),
        partition_values: source.partition.clone(),
        size: i64::try_from(copy.bytes).unwrap_or(i64::MAX),
        modification_time: Utc::now().timestamp_millis(),
        data_change: true,
        stats: Some(copy.stats),
        ..Default::default()
    })
}

struct Inspected {
    sha256: String,
    rows: u64,
    bytes: u64,
    stats: String,
}

async fn inspect(bytes: Bytes, path: &str) -> Result<Inspected, MaintenanceError> {
    let path = path.to_owned();
    let name = path.clone();
    blocking(&name, move || {
        let fail = |e: parquet::errors::ParquetError| MaintenanceError::Corrupt {
            path: path.clone(),
            problem: format!("not readable as Parquet: {e}"),
        };
        let sha256 = hex::encode(Sha256::digest(&bytes));
        let size = bytes.len() as u64;
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(fail)?;
        let metadata = reader.metadata();
        let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        let stats = stats_of(metadata).map_err(fail)?;
        Ok(Inspected { sha256, rows, bytes: size, stats })
    })
    .await
}

/// Statistics by the file's own columns: those younger than the file are simply not in it.
fn stats_of(metadata: &ParquetMetaData) -> Result<String, parquet::errors::ParquetError> {
    let file = metadata.file_metadata();
    let schema = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata())?;
    file_stats::to_json(metadata, &schema)
}
