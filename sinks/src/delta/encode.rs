//! Rows to Parquet files: gathered per table partition, encoded off the async threads, stored
//! under names no other attempt will ever use.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arrow::{
    array::RecordBatch,
    compute::interleave_record_batch,
    datatypes::{DataType, Schema, SchemaRef},
};
use bytes::Bytes;
use companyos_schemas::arrow_schema::{INDEX, OFFSET, TOPIC};
use deltalake::kernel::Add;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, Encoding, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties, WriterVersion},
    schema::types::ColumnPath,
};
use uuid::Uuid;

use super::{DeltaSinkError, PartitionRows, TableSpec, file_stats};

/// A batch and which of its rows go to which table partition.
#[derive(Debug, Clone)]
pub struct RoutedBatch {
    /// Rows in the table's schema.
    pub batch: RecordBatch,
    /// Partition values in the order of the table's partition columns, and row numbers.
    pub groups: Vec<(Vec<Arc<str>>, Vec<u32>)>,
}

impl RoutedBatch {
    /// Rows that go anywhere.
    pub fn rows(&self) -> usize {
        self.groups.iter().map(|(_, rows)| rows.len()).sum()
    }
}

/// How files are written.
#[derive(Debug, Clone, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileOptions {
    /// zstd level, 1 to 22.
    pub zstd_level: i32,
    /// Most rows in one file of one epoch; more are split.
    pub max_rows_per_file: usize,
    /// Most rows in one row group.
    pub max_row_group_rows: usize,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self { zstd_level: 1, max_rows_per_file: 2_000_000, max_row_group_rows: 1_000_000 }
    }
}

impl FileOptions {
    /// The Parquet writer's properties for a table, the same wherever files of it are written.
    pub fn writer_properties(&self, schema: &Schema) -> WriterProperties {
        let level = ZstdLevel::try_new(self.zstd_level.clamp(1, 22)).unwrap_or_default();
        let mut props = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_row_count(Some(self.max_row_group_rows.max(1)))
            // Chunk level feeds Delta's file skipping; page level would cost more than it saves here.
            .set_statistics_enabled(EnabledStatistics::Chunk);
        for field in schema.fields() {
            let path = ColumnPath::from(field.name().as_str());
            if UNIQUE_COLUMNS.contains(&field.name().as_str()) {
                // A dictionary of unique values is built only to be thrown away.
                props = props.set_column_dictionary_enabled(path.clone(), false);
            }
            if OPAQUE_COLUMNS.contains(&field.name().as_str()) || field.data_type() == &DataType::Binary {
                props = props.set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
            }
            if field.name() == OFFSET {
                props = props
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
            }
        }
        props.build()
    }
}

/// Columns whose values hardly repeat.
const UNIQUE_COLUMNS: [&str; 7] =
    ["event_id", "payload", "payload_hash", "evidence", "sealed", "quarantine_id", "_trace_id"];
/// Columns nobody filters by range.
const OPAQUE_COLUMNS: [&str; 6] = ["payload", "payload_hash", "evidence", "sealed", TOPIC, INDEX];

/// A file on its way into a commit.
struct Encoded {
    path: String,
    bytes: Bytes,
    add: Add,
}

/// Encodes and stores all rows of the parts, and returns one `add` per file.
pub(super) async fn write_files(
    spec: &TableSpec,
    options: &FileOptions,
    store: &Arc<dyn ObjectStore>,
    parts: &[PartitionRows],
) -> Result<Vec<Add>, DeltaSinkError> {
    let file_schema = file_schema(spec);
    let props = options.writer_properties(&file_schema);
    let mut adds = Vec::new();
    for (values, sources) in gather(parts) {
        let total: usize = sources.iter().map(|(_, rows)| rows.len()).sum();
        if total == 0 {
            continue;
        }
        let job = FileJob {
            spec: spec.clone(),
            schema: file_schema.clone(),
            props: props.clone(),
            max_rows: options.max_rows_per_file.max(1),
            values,
            sources: sources.into_iter().map(|(batch, rows)| (batch.clone(), rows.to_vec())).collect(),
        };
        let encoded = tokio::task::spawn_blocking(move || job.encode()).await.map_err(|e| encode_error(spec, e))??;
        for file in encoded {
            put_with_retries(spec, store, &file).await?;
            adds.push(file.add);
        }
    }
    Ok(adds)
}

/// Best-effort removal of files no commit will name.
pub(super) async fn remove_files(store: &Arc<dyn ObjectStore>, adds: &[Add]) {
    for add in adds {
        if let Err(error) = store.delete(&Path::from(add.path.as_str())).await {
            // Vacuum takes what is left behind.
            tracing::debug!(path = %add.path, %error, "could not remove an uncommitted file");
        }
    }
}

type Sources<'a> = Vec<(&'a RecordBatch, &'a [u32])>;

/// Table partition -> the batches and rows that belong to it, over all source partitions.
fn gather(parts: &[PartitionRows]) -> BTreeMap<Vec<Arc<str>>, Sources<'_>> {
    let mut groups: BTreeMap<Vec<Arc<str>>, Sources<'_>> = BTreeMap::new();
    for routed in parts.iter().flat_map(|p| &p.rows) {
        for (values, rows) in &routed.groups {
            groups.entry(values.clone()).or_default().push((&routed.batch, rows));
        }
    }
    groups
}

struct FileJob {
    spec: TableSpec,
    schema: SchemaRef,
    props: WriterProperties,
    max_rows: usize,
    values: Vec<Arc<str>>,
    sources: Vec<(RecordBatch, Vec<u32>)>,
}

impl FileJob {
    fn encode(self) -> Result<Vec<Encoded>, DeltaSinkError> {
        let batches = self.sources.iter().map(|(batch, _)| self.project(batch)).collect::<Result<Vec<_>, _>>()?;
        let refs: Vec<&RecordBatch> = batches.iter().collect();
        let rows: Vec<(usize, usize)> = self
            .sources
            .iter()
            .enumerate()
            .flat_map(|(i, (_, rows))| rows.iter().map(move |row| (i, *row as usize)))
            .collect();
        rows.chunks(self.max_rows).map(|chunk| self.encode_file(&refs, chunk)).collect()
    }

    fn encode_file(&self, batches: &[&RecordBatch], rows: &[(usize, usize)]) -> Result<Encoded, DeltaSinkError> {
        let fail = |e: &dyn std::fmt::Display| encode_error(&self.spec, e);
        let mut buffer = Vec::with_capacity(rows.len() * 128);
        let mut writer =
            ArrowWriter::try_new(&mut buffer, self.schema.clone(), Some(self.props.clone())).map_err(|e| fail(&e))?;
        // Small steps keep the copy out of the interleave bounded, whatever the size of the file.
        for step in rows.chunks(INTERLEAVE_ROWS) {
            let batch = interleave_record_batch(batches, step).map_err(|e| fail(&e))?;
            writer.write(&batch).map_err(|e| fail(&e))?;
        }
        let metadata = writer.close().map_err(|e| fail(&e))?;
        let stats = file_stats::to_json(&metadata, &self.schema).map_err(|e| fail(&e))?;
        let path = self.path();
        let size = buffer.len() as i64;
        let partition_values = self
            .spec
            .partition_columns
            .iter()
            .zip(&self.values)
            .map(|(column, value)| (column.clone(), Some(value.to_string())))
            .collect();
        let add = Add {
            path: path.clone(),
            partition_values,
            size,
            modification_time: epoch_millis(),
            data_change: true,
            stats: Some(stats),
            ..Default::default()
        };
        Ok(Encoded { path, bytes: Bytes::from(buffer), add })
    }

    /// The columns that go into files: all but the partition columns.
    fn project(&self, batch: &RecordBatch) -> Result<RecordBatch, DeltaSinkError> {
        let columns = self
            .schema
            .fields()
            .iter()
            .map(|field| {
                batch
                    .column_by_name(field.name())
                    .cloned()
                    .ok_or_else(|| encode_error(&self.spec, format!("column {} is missing", field.name())))
            })
            .collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| encode_error(&self.spec, e))
    }

    // Names are unique per attempt: a retry, a zombie or a second owner never overwrites a file.
    fn path(&self) -> String {
        let mut path = String::new();
        for (column, value) in self.spec.partition_columns.iter().zip(&self.values) {
            path.push_str(&format!("{column}={value}/"));
        }
        path.push_str(&format!("part-{}.zstd.parquet", Uuid::now_v7()));
        path
    }
}

const INTERLEAVE_ROWS: usize = 16 * 1024;

fn file_schema(spec: &TableSpec) -> SchemaRef {
    let fields: Vec<_> =
        spec.schema.fields().iter().filter(|f| !spec.partition_columns.contains(f.name())).cloned().collect();
    Arc::new(Schema::new(fields))
}

async fn put_with_retries(
    spec: &TableSpec,
    store: &Arc<dyn ObjectStore>,
    file: &Encoded,
) -> Result<(), DeltaSinkError> {
    use backon::{ExponentialBuilder, Retryable};
    let path = Path::from(file.path.as_str());
    let put = || async { store.put(&path, file.bytes.clone().into()).await };
    put.retry(ExponentialBuilder::default().with_jitter().with_min_delay(Duration::from_millis(100)).with_max_times(5))
        .notify(|error, after| tracing::warn!(table = %spec.name, %error, ?after, "file not stored yet"))
        .await
        .map(|_| ())
        .map_err(|source| DeltaSinkError::Store { table: spec.name.clone(), path: file.path.clone(), source })
}

fn encode_error(spec: &TableSpec, reason: impl std::fmt::Display) -> DeltaSinkError {
    DeltaSinkError::Encode { table: spec.name.clone(), reason: reason.to_string() }
}

fn epoch_millis() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}
