//! Which events a table took in lately: the deduplication state, read back from the rows
//! themselves, so that it is exactly as old or new as the positions committed with them.

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::TimestampMicrosecondType,
};
use companyos_schemas::arrow_schema::{INGESTED_AT, OFFSET, PARTITION, TOPIC, timestamp_type};
use deltalake::datafusion::{
    prelude::{SessionContext, col, lit},
    scalar::ScalarValue,
};
use futures::StreamExt;

use super::DeltaSinkError;
use crate::storage::Storage;

/// Calls `visit(tenant, event_id, ingested_at µs, offset)` for each row of one source partition
/// that was ingested at or after `since` (µs since the epoch). A missing table has no rows.
/// Files are skipped by their statistics, and rows stream: memory does not grow with the horizon.
pub async fn recent_ids(
    storage: &Storage,
    table: &str,
    topic: &str,
    partition: i32,
    since: i64,
    mut visit: impl FnMut(&str, &str, i64, i64),
) -> Result<u64, DeltaSinkError> {
    let fail = |e: &dyn std::fmt::Display| DeltaSinkError::Log { table: table.to_owned(), problem: e.to_string() };
    let Some(delta) = storage.load_table(table).await.map_err(|e| fail(&e))? else { return Ok(0) };
    let provider = delta.table_provider().await.map_err(|e| fail(&e))?;
    let context = SessionContext::new();
    let since = ScalarValue::TimestampMicrosecond(Some(since), Some("UTC".into()))
        .cast_to(&timestamp_type())
        .map_err(|e| fail(&e))?;
    let rows = context
        .read_table(provider)
        .and_then(|df| {
            df.filter(
                col(TOPIC)
                    .eq(lit(topic))
                    .and(col(PARTITION).eq(lit(partition)))
                    .and(col(INGESTED_AT).gt_eq(lit(since))),
            )
        })
        .and_then(|df| {
            df.select([
                deltalake::datafusion::prelude::cast(col("tenant"), arrow::datatypes::DataType::Utf8),
                deltalake::datafusion::prelude::cast(col("event_id"), arrow::datatypes::DataType::Utf8),
                deltalake::datafusion::prelude::cast(col(INGESTED_AT), timestamp_type()),
                col(OFFSET),
            ])
        })
        .map_err(|e| fail(&e))?;
    let mut stream = rows.execute_stream().await.map_err(|e| fail(&e))?;
    let mut seen = 0;
    while let Some(batch) = stream.next().await {
        let batch: RecordBatch = batch.map_err(|e| fail(&e))?;
        let tenants = batch.column(0).as_string::<i32>();
        let ids = batch.column(1).as_string::<i32>();
        let times = batch.column(2).as_primitive::<TimestampMicrosecondType>();
        let offsets = batch.column(3).as_primitive::<arrow::datatypes::Int64Type>();
        for row in 0..batch.num_rows() {
            visit(tenants.value(row), ids.value(row), times.value(row), offsets.value(row));
        }
        seen += batch.num_rows() as u64;
    }
    Ok(seen)
}
