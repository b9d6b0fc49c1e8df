//! Reading the quarantine tables: filtered by values, never by SQL text.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType},
};
use chrono::Utc;
use companyos_schemas::{
    arrow_schema::{INGESTED_AT, timestamp_type},
    quarantine,
};
use companyos_sinks::storage::Storage;
use deltalake::{
    DeltaTable,
    datafusion::{
        common::ScalarValue,
        logical_expr::Expr,
        prelude::{DataFrame, SessionContext, col, lit},
    },
};

use crate::config::Config;

/// Which rows; empty parts select all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub ids: Vec<String>,
    pub tenant: Option<String>,
    pub stream: Option<String>,
    pub reason: Option<String>,
    /// Only rows quarantined before this (µs since 1970).
    pub before: Option<i64>,
}

/// A quarantined event, as far as commands need it.
#[derive(Debug, Clone)]
pub struct Row {
    pub region: String,
    pub id: String,
    pub stream: String,
    pub reason: String,
    /// The rule within the reason, such as a DLP rule's id.
    pub rule: Option<String>,
    pub field: Option<String>,
    pub detail: String,
    pub tenant: Option<String>,
    pub env: Option<String>,
    /// Region the event claims, which need not be the one that keeps the row.
    pub claimed_region: Option<String>,
    pub event_id: Option<String>,
    pub payload: Option<String>,
    pub sealed: Option<Vec<u8>>,
    pub seal_key: Option<String>,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub index: i32,
    pub ingested_at: i64,
    pub trace_id: Option<String>,
    pub origin: Option<String>,
}

impl Row {
    /// Where the event first came from: a row that was released before keeps its first origin.
    pub fn first_origin(&self) -> &str {
        self.origin.as_deref().unwrap_or(&self.id)
    }
}

impl Filter {
    /// The filter as an expression; none if it selects every row.
    pub fn expression(&self) -> Option<Expr> {
        let mut parts = Vec::new();
        if !self.ids.is_empty() {
            parts.push(col("quarantine_id").in_list(self.ids.iter().map(|id| lit(id.as_str())).collect(), false));
        }
        for (column, value) in [("tenant", &self.tenant), ("stream", &self.stream), ("reason", &self.reason)] {
            if let Some(value) = value {
                parts.push(col(column).eq(lit(value.as_str())));
            }
        }
        if let Some(before) = self.before {
            parts.push(col(INGESTED_AT).lt(lit(ScalarValue::TimestampMicrosecond(Some(before), Some("UTC".into())))));
        }
        parts.into_iter().reduce(Expr::and)
    }
}

/// Microseconds since 1970, this long ago.
pub fn micros_ago(age: Duration) -> Result<i64> {
    let age = i64::try_from(age.as_micros()).map_err(|_| anyhow!("the duration is too long"))?;
    Ok(Utc::now().timestamp_micros().saturating_sub(age))
}

/// Every region with its storage.
pub fn regions(config: &Config) -> Result<Vec<(String, Storage)>> {
    config.tenancy.regions.iter().map(|(name, region)| Ok((name.clone(), Storage::for_region(region)?))).collect()
}

/// The rows of all regions, newest first, at most `limit` of each region.
pub async fn read(config: &Config, filter: &Filter, limit: Option<usize>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (region, storage) in regions(config)? {
        let Some(table) = storage.load_table(quarantine::TABLE).await? else { continue };
        let frame = frame(&table, filter).await?;
        let frame = frame.sort(vec![col(INGESTED_AT).sort(false, false)])?.limit(0, limit)?;
        for batch in frame.collect().await.with_context(|| format!("reading quarantine of region {region}"))? {
            rows_of(&region, &batch, &mut rows)?;
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.ingested_at));
    rows.truncate(limit.unwrap_or(usize::MAX));
    Ok(rows)
}

/// One table's rows that pass the filter.
pub async fn frame(table: &DeltaTable, filter: &Filter) -> Result<DataFrame> {
    let frame = SessionContext::new().read_table(table.table_provider().await?)?;
    Ok(match filter.expression() {
        Some(expression) => frame.filter(expression)?,
        None => frame,
    })
}

fn rows_of(region: &str, batch: &RecordBatch, into: &mut Vec<Row>) -> Result<()> {
    // The reader may give views or dictionaries; the accessors below want the plain types.
    let column = |name: &str, ty: &DataType| -> Result<_> {
        let column = batch.column_by_name(name).with_context(|| format!("quarantine has no column {name}"))?;
        Ok(cast(column, ty)?)
    };
    let text = |name: &str| -> Result<Vec<Option<String>>> {
        Ok(column(name, &DataType::Utf8)?.as_string::<i32>().iter().map(|v| v.map(str::to_owned)).collect())
    };
    let (id, stream, reason, rule) = (text("quarantine_id")?, text("stream")?, text("reason")?, text("rule")?);
    let (field, detail) = (text("field")?, text("detail")?);
    let (tenant, env, claimed, event) = (text("tenant")?, text("env")?, text("region")?, text("event_id")?);
    let (payload, key, topic, trace, origin) =
        (text("payload")?, text("seal_key")?, text("_topic")?, text("_trace_id")?, text("_origin")?);
    let sealed = column("sealed", &DataType::Binary)?;
    let (partition, index) = (column("_partition", &DataType::Int32)?, column("_index", &DataType::Int32)?);
    let offset = column("_offset", &DataType::Int64)?;
    let at = column(INGESTED_AT, &timestamp_type())?;
    for i in 0..batch.num_rows() {
        let of = |column: &[Option<String>]| column.get(i).cloned().flatten();
        let sealed = sealed.as_binary::<i32>();
        into.push(Row {
            region: region.to_owned(),
            id: of(&id).unwrap_or_default(),
            stream: of(&stream).unwrap_or_default(),
            reason: of(&reason).unwrap_or_default(),
            rule: of(&rule),
            field: of(&field),
            detail: of(&detail).unwrap_or_default(),
            tenant: of(&tenant),
            env: of(&env),
            claimed_region: of(&claimed),
            event_id: of(&event),
            payload: of(&payload),
            sealed: sealed.is_valid(i).then(|| sealed.value(i).to_vec()),
            seal_key: of(&key),
            topic: of(&topic).unwrap_or_default(),
            partition: partition.as_primitive::<Int32Type>().value(i),
            offset: offset.as_primitive::<Int64Type>().value(i),
            index: index.as_primitive::<Int32Type>().value(i),
            ingested_at: at.as_primitive::<TimestampMicrosecondType>().value(i),
            trace_id: of(&trace),
            origin: of(&origin),
        });
    }
    Ok(())
}
