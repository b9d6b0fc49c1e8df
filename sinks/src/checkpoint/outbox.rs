//! The outbox: rows on their way to tables, notices on their way to topics and webhooks.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray},
    compute::concat_batches,
    datatypes::SchemaRef,
};
use async_trait::async_trait;
use companyos_stream::{Notice, Output};

use super::{CheckpointError, files::Folder, manifest::Outbox};
use crate::{
    delta::{DeltaSink, DeltaSinkError, FileOptions, PartitionRows, RoutedBatch, TableEpoch, TableSpec},
    storage::Storage,
};

/// A notice as it lies in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingNotice {
    /// The same each time it is sent.
    pub id: String,
    /// Decides where to.
    pub kind: String,
    /// Tenant concerned.
    pub tenant: String,
    /// JSON text.
    pub body: String,
    /// Of the event that led to it.
    pub traceparent: Option<String>,
}

/// Why notices were not delivered; they are tried again.
#[derive(Debug, thiserror::Error)]
#[error("notices not delivered: {0}")]
pub struct NoticeError(pub String);

/// Where notices go.
#[async_trait]
pub trait NoticeSink: Send + Sync {
    /// Returns when all of them are delivered, or given up for good by the sink's own rules.
    async fn send(&self, notices: &[OutgoingNotice]) -> Result<(), NoticeError>;
}

const PARTITIONS: [&str; 2] = ["tenant", "region"];

/// Puts an output into files.
pub(super) async fn store(folder: &Folder, output: &Output) -> Result<Outbox, CheckpointError> {
    let mut by_table: BTreeMap<&str, Vec<&RecordBatch>> = BTreeMap::new();
    for (table, batch) in output.rows.iter().filter(|(_, batch)| batch.num_rows() > 0) {
        by_table.entry(table.name).or_default().push(batch);
    }
    let mut outbox = Outbox::default();
    for (table, batches) in by_table {
        let all = concat_batches(&batches[0].schema(), batches).map_err(|e| encode_error(table, &e))?;
        outbox.rows.push(folder.write("outbox", table, all).await?);
    }
    if !output.notices.is_empty() {
        let batch = to_batch(&output.notices).map_err(|e| encode_error("notices", &e))?;
        outbox.notices = Some(folder.write("outbox", "notices", batch).await?);
    }
    Ok(outbox)
}

/// Tables that stand open for delivery.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    sinks: BTreeMap<String, DeltaSink>,
}

impl Delivery {
    /// Commits a checkpoint's rows of one table, unless the table has them already.
    pub(super) async fn rows(
        &mut self,
        storage: &Storage,
        app_id: &Arc<str>,
        sequence: u64,
        table: &str,
        batches: Vec<RecordBatch>,
    ) -> Result<(), DeltaSinkError> {
        let Some(first) = batches.first() else { return Ok(()) };
        let sequence = sequence as i64;
        if !self.sinks.contains_key(table) {
            let spec = spec_of(table, first.schema());
            self.sinks.insert(table.to_owned(), DeltaSink::open(storage, spec, FileOptions::default()).await?);
        }
        let Some(sink) = self.sinks.get_mut(table) else { return Ok(()) };
        let ids = [app_id.clone()];
        loop {
            let expected = sink.load_positions(&ids).await?.into_iter().next().flatten();
            if expected.is_some_and(|position| position >= sequence) {
                return Ok(());
            }
            let rows = batches.iter().map(|batch| route(table, batch)).collect::<Result<Vec<_>, _>>()?;
            let part = PartitionRows { app_id: app_id.clone(), expected, last: sequence, rows };
            let done = sink.commit(TableEpoch { epoch: sequence as u64, parts: vec![part] }).await;
            // Left out means that another owner delivers the same checkpoint: look whether it did.
            if done.map_err(|uncommitted| uncommitted.error)?.fenced.is_empty() {
                return Ok(());
            }
        }
    }
}

fn spec_of(table: &str, schema: SchemaRef) -> TableSpec {
    TableSpec { name: table.to_owned(), schema, partition_columns: PARTITIONS.map(str::to_owned).to_vec() }
}

fn route(table: &str, batch: &RecordBatch) -> Result<RoutedBatch, DeltaSinkError> {
    let mut columns = Vec::new();
    for name in PARTITIONS {
        let column = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        let column = column.filter(|column| column.null_count() == 0).ok_or_else(|| DeltaSinkError::Schema {
            table: table.to_owned(),
            column: name.to_owned(),
            problem: "must be text without nulls".to_owned(),
        })?;
        columns.push(column);
    }
    let mut groups: BTreeMap<Vec<&str>, Vec<u32>> = BTreeMap::new();
    for row in 0..batch.num_rows() {
        groups.entry(columns.iter().map(|c| c.value(row)).collect()).or_default().push(row as u32);
    }
    let groups = groups.into_iter().map(|(key, rows)| (key.into_iter().map(Arc::from).collect(), rows)).collect();
    Ok(RoutedBatch { batch: batch.clone(), groups })
}

fn to_batch(notices: &[Notice]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let text = |get: fn(&Notice) -> &str| Arc::new(StringArray::from_iter_values(notices.iter().map(get))) as ArrayRef;
    let traces = StringArray::from_iter(notices.iter().map(|n| n.traceparent.as_deref()));
    RecordBatch::try_from_iter_with_nullable([
        ("id", text(|n| &n.id), false),
        ("kind", text(|n| n.kind), false),
        ("tenant", text(|n| &n.tenant), false),
        ("body", text(|n| &n.body), false),
        ("traceparent", Arc::new(traces) as ArrayRef, true),
    ])
}

/// Notices of a file that [`store`] wrote.
pub(super) fn from_batches(path: &str, batches: &[RecordBatch]) -> Result<Vec<OutgoingNotice>, CheckpointError> {
    let mut notices = Vec::new();
    for batch in batches {
        let column = |name: &str| {
            batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>()).ok_or_else(|| {
                CheckpointError::Format { path: path.to_owned(), problem: format!("has no text column {name}") }
            })
        };
        let (id, kind, tenant) = (column("id")?, column("kind")?, column("tenant")?);
        let (body, trace) = (column("body")?, column("traceparent")?);
        for row in 0..batch.num_rows() {
            notices.push(OutgoingNotice {
                id: id.value(row).to_owned(),
                kind: kind.value(row).to_owned(),
                tenant: tenant.value(row).to_owned(),
                body: body.value(row).to_owned(),
                traceparent: (!trace.is_null(row)).then(|| trace.value(row).to_owned()),
            });
        }
    }
    Ok(notices)
}

fn encode_error(table: &str, error: &arrow::error::ArrowError) -> CheckpointError {
    DeltaSinkError::Encode { table: table.to_owned(), reason: error.to_string() }.into()
}
