//! Clustering: the files of a closed day are sorted along a Z-order curve, so that filters on any
//! of the chosen columns skip most of them.
//!
//! Clustered files are known by their name; late rows of a day are clustered among themselves
//! later, so that no row is sorted twice.

use std::{fmt, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use chrono::NaiveDate;
use datafusion::{
    catalog::streaming::StreamingTable,
    error::DataFusionError,
    execution::{SendableRecordBatchStream, TaskContext, runtime_env::RuntimeEnvBuilder},
    physical_plan::{stream::RecordBatchReceiverStream, streaming::PartitionStream},
    prelude::{SessionConfig, SessionContext, col},
};
use futures::StreamExt;
use tracing::info;

use crate::{
    ClusterConfig, CompactionConfig, MaintenanceError, Work,
    compact::commit_rewrite,
    live_table::{LiveFile, LiveTable},
    rewrite::{FileEncoder, SourceFile, Stored, Target, blocking},
    zorder_key::ZOrder,
};

const PREFIX: &str = "zorder";
const KEY: &str = "__zorder";

/// Whether a file was written by clustering.
pub(crate) fn is_clustered(file: &LiveFile) -> bool {
    file.file_name().starts_with(PREFIX)
}

/// Clusters closed days, one commit a partition.
pub(crate) async fn run(
    table: &LiveTable,
    config: &ClusterConfig,
    files: &CompactionConfig,
    today: NaiveDate,
) -> Result<Work, MaintenanceError> {
    let mut work = Work { version: Some(table.version), ..Default::default() };
    let schema = table.file_schema();
    if config.columns.iter().any(|column| schema.field_with_name(column).is_err()) {
        return Ok(work);
    }
    let mut budget = config.max_bytes_per_run;
    for (partition, files_of_day) in table.partitions() {
        let sources = select(files_of_day, config, today, &mut budget);
        // A single small file gains nothing from an order of its own.
        if sources.len() < 2 && sources.iter().all(|f| f.size < files.target_bytes) {
            continue;
        }
        let mut stored = Stored::default();
        if let Err(error) = sort(table, &sources, config, files, &mut stored).await {
            stored.discard(&table.log_store.object_store(None)).await;
            return Err(error);
        }
        let (files_added, bytes_added, rows) = (stored.adds.len() as u64, stored.bytes(), stored.rows);
        let version = commit_rewrite(table, &sources, stored, files.target_bytes, "cluster").await?;
        info!(table = %table.name, partition, version, files = sources.len(), rows, "clustered");
        work.add(&Work {
            commits: 1,
            files_removed: sources.len() as u64,
            files_added,
            bytes_removed: sources.iter().map(|f| f.size).sum(),
            bytes_added,
            rows,
            version: Some(version),
        });
    }
    Ok(work)
}

fn select(files: Vec<LiveFile>, config: &ClusterConfig, today: NaiveDate, budget: &mut u64) -> Vec<LiveFile> {
    let closed =
        |file: &LiveFile| file.day().is_some_and(|day| (today - day).num_days() >= i64::from(config.after_days.max(1)));
    let mut sources: Vec<LiveFile> = files.into_iter().filter(|f| !is_clustered(f) && closed(f)).collect();
    sources.sort_by(|a, b| (a.modified, &a.path).cmp(&(b.modified, &b.path)));
    sources.retain(|file| {
        let fits = file.size <= *budget;
        *budget = budget.saturating_sub(file.size);
        fits
    });
    sources
}

async fn sort(
    table: &LiveTable,
    sources: &[LiveFile],
    config: &ClusterConfig,
    files: &CompactionConfig,
    stored: &mut Stored,
) -> Result<(), MaintenanceError> {
    let fail = |e: &dyn fmt::Display| MaintenanceError::rewrite(&table.name, e);
    let order = sample(table, sources, config).await?;
    let mut keyed = table.file_schema().fields().to_vec();
    keyed.push(Arc::new(Field::new(KEY, DataType::UInt64, false)));
    let schema: SchemaRef = Arc::new(Schema::new(keyed));
    let rows = RowSource {
        table: Arc::from(table.name.as_str()),
        store: table.log_store.object_store(None),
        file_schema: table.file_schema(),
        schema: schema.clone(),
        files: sources.into(),
        order: Arc::new(order),
    };
    let memory = usize::try_from(config.sort_memory_bytes).unwrap_or(usize::MAX);
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(memory, 1.0).build_arc().map_err(|e| fail(&e))?;
    let session = SessionConfig::new()
        .with_target_partitions(1)
        .with_sort_spill_reservation_bytes(memory / 8)
        .with_batch_size(4096);
    let context = SessionContext::new_with_config_rt(session, runtime);
    let source = StreamingTable::try_new(schema, vec![Arc::new(rows)]).map_err(|e| fail(&e))?;
    let frame = context
        .read_table(Arc::new(source))
        .and_then(|frame| frame.sort(vec![col(KEY).sort(true, false)]))
        .map_err(|e| fail(&e))?;
    let mut sorted = frame.execute_stream().await.map_err(|e| fail(&e))?;
    let store = table.log_store.object_store(None);
    let target = Target::new(table, &sources[0].partition, PREFIX, files.target_bytes, files.zstd_level);
    let mut encoder = FileEncoder::new(target);
    while let Some(batch) = sorted.next().await {
        let mut batch = batch.map_err(|e| fail(&e))?;
        batch.remove_column(batch.num_columns() - 1);
        encoder = blocking(&table.name, move || encoder.write(&batch).map(|()| encoder)).await?;
        stored.store(&store, encoder.take_finished()).await?;
    }
    let mut encoder = blocking(&table.name, move || encoder.end_file().map(|()| encoder)).await?;
    stored.store(&store, encoder.take_finished()).await?;
    let expected: Option<u64> = sources.iter().map(|f| f.rows).sum();
    match expected.is_none_or(|rows| rows == stored.rows) {
        true => Ok(()),
        false => Err(fail(&format!("{} rows written of {}", stored.rows, expected.unwrap_or(0)))),
    }
}

/// First pass: the curve's columns alone.
async fn sample(table: &LiveTable, sources: &[LiveFile], config: &ClusterConfig) -> Result<ZOrder, MaintenanceError> {
    let rows = sources.iter().map(|f| f.rows.unwrap_or(0)).sum();
    let fail = |e| MaintenanceError::rewrite(&table.name, e);
    let mut order = ZOrder::new(&table.file_schema(), &config.columns, rows).map_err(fail)?;
    for file in sources {
        let source = SourceFile::read(table, file).await?;
        let (columns, name) = (config.columns.clone(), table.name.clone());
        order = blocking(&table.name, move || {
            source
                .visit(Some(&columns), |batch| order.sample(&batch).map_err(|e| MaintenanceError::rewrite(&name, e)))?;
            Ok(order)
        })
        .await?;
    }
    order.rank();
    Ok(order)
}

/// Second pass: all rows with their keys, as DataFusion reads them.
struct RowSource {
    table: Arc<str>,
    store: Arc<dyn object_store::ObjectStore>,
    file_schema: SchemaRef,
    schema: SchemaRef,
    files: Arc<[LiveFile]>,
    order: Arc<ZOrder>,
}

impl fmt::Debug for RowSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowSource").field("table", &self.table).field("files", &self.files.len()).finish()
    }
}

impl PartitionStream for RowSource {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStream::builder(self.schema.clone(), 2);
        let output = builder.tx();
        let (table, store, files) = (self.table.clone(), self.store.clone(), self.files.clone());
        let (file_schema, schema, order) = (self.file_schema.clone(), self.schema.clone(), self.order.clone());
        builder.spawn(async move {
            for file in files.iter() {
                let bytes = crate::rewrite::read_object(&store, &file.object_path()).await.map_err(external)?;
                let source = SourceFile {
                    table: table.to_string(),
                    path: file.path.clone(),
                    rows: file.rows,
                    bytes,
                    schema: file_schema.clone(),
                };
                let (output, schema, order, name) = (output.clone(), schema.clone(), order.clone(), table.clone());
                blocking(&table, move || {
                    source.visit(None, |batch| {
                        let fail = |e| MaintenanceError::rewrite(&name, e);
                        let mut columns = batch.columns().to_vec();
                        columns.push(order.keys(&batch).map_err(fail)?);
                        let batch = RecordBatch::try_new(schema.clone(), columns).map_err(fail)?;
                        output.blocking_send(Ok(batch)).map_err(|e| MaintenanceError::rewrite(&name, e))
                    })
                })
                .await
                .map_err(external)?;
            }
            Ok(())
        });
        builder.build()
    }
}

fn external(error: MaintenanceError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
