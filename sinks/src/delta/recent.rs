//! Which events a table took in lately: the deduplication state, read back from the rows
//! themselves, so that it is exactly as old or new as the positions committed with them.

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{DataType, TimestampMicrosecondType},
};
use companyos_schemas::arrow_schema::{INGESTED_AT, PARTITION, TOPIC, timestamp_type};
use deltalake::datafusion::{
    error::DataFusionError,
    prelude::{SessionContext, cast, col, lit},
    scalar::ScalarValue,
};
use futures::StreamExt;

use super::DeltaSinkError;
use crate::storage::Storage;

/// Calls `visit(tenant, event_id, ingested_at µs)` for each row of one source partition
/// that was ingested at or after `since` (µs since the epoch). A missing table has no rows.
/// Files are skipped by their statistics, and rows stream: memory does not grow with the horizon.
pub async fn recent_ids(
    storage: &Storage,
    table: &str,
    topic: &str,
    partition: i32,
    since: i64,
    mut visit: impl FnMut(&str, &str, i64),
) -> Result<u64, DeltaSinkError> {
    let fail = |source: DataFusionError| DeltaSinkError::Read { table: table.to_owned(), source: Box::new(source) };
    let Some(delta) = storage.load_table(table).await? else { return Ok(0) };
    let provider = delta.table_provider().await.map_err(fail)?;
    let since =
        ScalarValue::TimestampMicrosecond(Some(since), Some("UTC".into())).cast_to(&timestamp_type()).map_err(fail)?;
    let rows = SessionContext::new()
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
                cast(col("tenant"), DataType::Utf8),
                cast(col("event_id"), DataType::Utf8),
                cast(col(INGESTED_AT), timestamp_type()),
            ])
        })
        .map_err(fail)?;
    let mut stream = rows.execute_stream().await.map_err(fail)?;
    let mut seen = 0;
    while let Some(batch) = stream.next().await {
        let batch: RecordBatch = batch.map_err(fail)?;
        let tenants = batch.column(0).as_string::<i32>();
        let ids = batch.column(1).as_string::<i32>();
        let times = batch.column(2).as_primitive::<TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            visit(tenants.value(row), ids.value(row), times.value(row));
        }
        seen += batch.num_rows() as u64;
    }
    Ok(seen)
}
