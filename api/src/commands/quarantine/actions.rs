//! The log of what was done with quarantined rows, a Delta table beside the quarantine table.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context, Result};
use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray},
    compute::cast,
    datatypes::{DataType, Field, Schema},
};
use chrono::Utc;
use companyos_schemas::{arrow_schema::timestamp_type, quarantine};
use companyos_sinks::storage::Storage;
use deltalake::{
    DeltaTable,
    datafusion::prelude::{SessionContext, col, lit},
    protocol::SaveMode,
};

use super::rows::Row;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Sent to its topic again.
    Release,
    /// Deleted.
    Purge,
}

impl Verb {
    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Release => "release",
            Verb::Purge => "purge",
        }
    }
}

/// Who did it and why.
#[derive(Debug, Clone)]
pub struct Deed {
    pub verb: Verb,
    pub actor: String,
    pub why: Option<String>,
}

/// Appends one line per row.
pub async fn record(storage: &Storage, deed: &Deed, rows: &[&Row]) -> Result<()> {
    let column = |values: Vec<Option<String>>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let each = |value: &dyn Fn(&Row) -> Option<String>| column(rows.iter().map(|row| value(row)).collect());
    let now = Utc::now().timestamp_micros();
    let columns: Vec<ArrayRef> = vec![
        each(&|_| Some(uuid::Uuid::now_v7().to_string())),
        each(&|row| Some(row.id.clone())),
        each(&|_| Some(deed.verb.as_str().to_owned())),
        each(&|_| Some(deed.actor.clone())),
        each(&|_| deed.why.clone()),
        each(&|row| row.tenant.clone()),
        each(&|row| Some(row.stream.clone())),
        each(&|row| Some(row.reason.clone())),
        each(&|row| row.event_id.clone()),
        each(&|row| Some(row.topic.clone())),
        Arc::new(TimestampMicrosecondArray::from(vec![now; rows.len()]).with_timezone("UTC")),
    ];
    let batch = RecordBatch::try_new(Arc::new(schema()), columns)?;
    let table = match storage.load_table(quarantine::ACTIONS_TABLE).await? {
        Some(table) => table,
        None => DeltaTable::new(storage.log_store(quarantine::ACTIONS_TABLE)),
    };
    table
        .write([batch])
        .with_table_name(quarantine::ACTIONS_TABLE)
        .with_save_mode(SaveMode::Append)
        .await
        .context("the action could not be recorded")?;
    Ok(())
}

/// Ids among `ids` that were released before.
pub async fn released(storage: &Storage, ids: &[&str]) -> Result<BTreeSet<String>> {
    let Some(table) = storage.load_table(quarantine::ACTIONS_TABLE).await? else { return Ok(BTreeSet::new()) };
    let wanted = ids.iter().map(|id| lit(*id)).collect();
    let frame = SessionContext::new()
        .read_table(table.table_provider().await?)?
        .filter(col("action").eq(lit(Verb::Release.as_str())).and(col("quarantine_id").in_list(wanted, false)))?
        .select([col("quarantine_id")])?;
    let mut found = BTreeSet::new();
    for batch in frame.collect().await? {
        let ids = cast(batch.column(0), &DataType::Utf8)?;
        found.extend(ids.as_string::<i32>().iter().flatten().map(str::to_owned));
    }
    Ok(found)
}

/// What was done with one row, oldest first, as `time verb by actor: why`.
pub async fn history(storage: &Storage, id: &str) -> Result<Vec<String>> {
    let Some(table) = storage.load_table(quarantine::ACTIONS_TABLE).await? else { return Ok(Vec::new()) };
    let frame = SessionContext::new()
        .read_table(table.table_provider().await?)?
        .filter(col("quarantine_id").eq(lit(id)))?
        .sort(vec![col("acted_at").sort(true, true)])?
        .select([col("acted_at"), col("action"), col("actor"), col("why")])?;
    let mut lines = Vec::new();
    for batch in frame.collect().await? {
        let columns = batch.columns().iter().map(|c| cast(c, &DataType::Utf8)).collect::<Result<Vec<_>, _>>()?;
        for i in 0..batch.num_rows() {
            let part = |column: usize| columns.get(column).map_or("", |c| c.as_string::<i32>().value(i));
            lines.push(format!("{} {} by {}: {}", part(0), part(1), part(2), part(3)));
        }
    }
    Ok(lines)
}

fn schema() -> Schema {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Schema::new(vec![
        text("action_id", false),
        text("quarantine_id", false),
        text("action", false),
        text("actor", false),
        text("why", true),
        text("tenant", true),
        text("stream", false),
        text("reason", false),
        text("event_id", true),
        text("topic", false),
        Field::new("acted_at", timestamp_type(), false),
    ])
}
