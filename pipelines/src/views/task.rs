//! One view in one region and shard: its history, then its share of every commit.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::{DataType, Field, Schema, TimestampMicrosecondType},
};
use chrono::Utc;
use companyos_maintenance::{Fold, FoldError, MaintenanceError, StoredFiles};
use companyos_sinks::{
    delta::{
        Add, DeltaSink, DeltaSinkError, FileOptions, FileReader, PartitionRows, RoutedBatch, TableEpoch, TableSpec,
        TailEntry,
    },
    storage::Storage,
};
use companyos_views::ViewError;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::{
    registry::Generation,
    shard::Shard,
    stream_log::{StreamLog, schema_of},
};

/// Partition column of state tables: the shard's number as text.
pub const SHARD: &str = "_shard";
/// State is read by tenant and sorted by it, so small row groups let a reader pass over the rest.
const ROW_GROUP: usize = 8192;
/// Rows of history aggregated at a time.
const HISTORY_BYTES: usize = 64 << 20;
/// Rows of the log aggregated at a time, when behind.
const CATCH_UP_BYTES: usize = 32 << 20;
/// Entries without rows after which the position is written all the same.
const QUIET_ENTRIES: u64 = 500;
/// Commits after which state is folded.
const FOLD_EVERY: u32 = 24;
/// Files beyond this are folded no more.
const FOLD_BELOW: u64 = 32 << 20;

/// Histories taken in at a time, by all jobs of the process: each keeps a core busy and holds the
/// state of a shard in memory.
pub(super) static TURNS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));

/// Why a view cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TaskError {
    #[error(transparent)]
    Table(#[from] DeltaSinkError),
    #[error(transparent)]
    View(#[from] ViewError),
    #[error(transparent)]
    Stored(#[from] MaintenanceError),
    #[error("folding: {0}")]
    Fold(String),
    #[error("another worker keeps this view's shard")]
    Fenced,
}

/// A view's state in one region, for one shard's tenants.
pub(crate) struct ViewTask {
    pub generation: Arc<Generation>,
    region: Arc<str>,
    shard: Shard,
    storage: Storage,
    archive: Option<Storage>,
    sink: DeltaSink,
    app_id: Arc<str>,
    /// Position in the state table.
    committed: Option<u64>,
    /// Version taken in, of which the last ones had no rows.
    seen: Option<u64>,
    commits: u32,
}

impl ViewTask {
    /// Opens the state table, making it if it is missing.
    pub(crate) async fn open(
        generation: Arc<Generation>,
        region: Arc<str>,
        shard: Shard,
        storage: &Storage,
        archive: Option<&Storage>,
    ) -> Result<Self, TaskError> {
        let mut fields: Vec<_> = generation.plan.state_schema.fields().iter().cloned().collect();
        fields.push(Arc::new(Field::new(SHARD, DataType::Utf8, false)));
        let spec = TableSpec {
            name: generation.table.clone(),
            schema: Arc::new(Schema::new(fields)),
            partition_columns: vec![SHARD.to_owned()],
        };
        let mut sink =
            DeltaSink::open(storage, spec, FileOptions { max_row_group_rows: ROW_GROUP, ..FileOptions::default() })
                .await?;
        let app_id: Arc<str> = Arc::from(format!("view/{}", shard.index));
        let committed = sink.load_positions(std::slice::from_ref(&app_id)).await?.first().copied().flatten();
        let committed = committed.and_then(|v| u64::try_from(v).ok());
        Ok(Self {
            generation,
            region,
            shard,
            storage: storage.clone(),
            archive: archive.cloned(),
            sink,
            app_id,
            committed,
            seen: committed,
            commits: 0,
        })
    }

    /// Whether the history has been taken in.
    pub(crate) fn has_history(&self) -> bool {
        self.committed.is_some()
    }

    /// Takes in everything the stream's table holds at its latest version, archived days included. False if there is no
    /// such table yet.
    pub(crate) async fn take_history(&mut self) -> Result<bool, TaskError> {
        let stream = self.generation.plan.stream;
        let files = StoredFiles::of(&self.storage, self.archive.as_ref(), stream.name(), None).await?;
        let Some(files) = files else { return Ok(false) };
        let state = self.aggregate_files(&files, |tenant| self.shard.has(tenant)).await?;
        info!(view = %self.generation.plan.name, region = %self.region, shard = self.shard.index,
            version = files.version, files = files.hot.len(), archived = files.archive.len(), "history taken in");
        self.commit(state, files.version).await?;
        Ok(true)
    }

    /// Takes in what came since; false if there was nothing.
    pub(crate) async fn follow(&mut self, log: &mut StreamLog) -> Result<bool, TaskError> {
        let mut rows = Vec::new();
        let mut bytes = 0;
        let mut last = None;
        let mut erasure = None;
        while bytes < CATCH_UP_BYTES {
            let Some(entry) = log.after(last.or(self.seen)).await? else { break };
            if entry.task.as_deref() == Some(ERASE) {
                erasure = Some(entry);
                break;
            }
            for batch in log.rows(&entry).await?.iter() {
                bytes += batch.get_array_memory_size();
                rows.push(batch.clone());
            }
            last = Some(entry.version);
        }
        if let Some(last) = last {
            let state = match rows.is_empty() {
                true => None,
                false => self.generation.plan.partial(&rows).await?,
            };
            let quiet = last.saturating_sub(self.committed.unwrap_or(0)) >= QUIET_ENTRIES;
            if state.is_some() || quiet || erasure.is_some() {
                self.commit(state, last).await?;
            }
            self.seen = Some(last);
        }
        let erased = erasure.is_some();
        if let Some(entry) = erasure {
            self.erase(&entry).await?;
        }
        if self.commits >= FOLD_EVERY {
            self.fold().await?;
        }
        Ok(last.is_some() || erased)
    }

    async fn commit(&mut self, state: Option<RecordBatch>, version: u64) -> Result<(), TaskError> {
        let last = version as i64;
        let rows = state.map(|batch| RoutedBatch {
            groups: vec![(vec![Arc::from(self.shard.index.to_string())], (0..batch.num_rows() as u32).collect())],
            batch,
        });
        let expected = self.committed.map(|v| v as i64);
        let part = PartitionRows { app_id: self.app_id.clone(), expected, last, rows: rows.into_iter().collect() };
        let mut epoch = TableEpoch { epoch: version, parts: vec![part] };
        loop {
            match self.sink.commit(epoch).await {
                Ok(done) if done.fenced.is_empty() => break,
                Ok(_) => return Err(TaskError::Fenced),
                Err(failed) if failed.error.is_transient() => {
                    warn!(view = %self.generation.plan.name, error = %failed.error, "state not stored yet");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    epoch = failed.epoch;
                }
                Err(failed) => return Err(failed.error.into()),
            }
        }
        self.committed = Some(version);
        self.seen = Some(version);
        self.commits += 1;
        metrics::counter!("companyos_view_commits_total", "view" => self.generation.plan.name.clone()).increment(1);
        Ok(())
    }

    /// State of some files' rows, of the tenants that are asked for.
    async fn aggregate_files(
        &self,
        files: &StoredFiles,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Option<RecordBatch>, TaskError> {
        let plan = &self.generation.plan;
        let schema = schema_of(plan.stream, &plan.columns);
        let hot = FileReader::new(&self.storage, plan.stream.name(), schema.clone());
        let archive = self.archive.as_ref().map(|root| FileReader::new(root, plan.stream.name(), schema));
        let archived = archive.iter().flat_map(|reader| files.archive.iter().map(move |file| (reader, file)));
        let progress = metrics::gauge!("companyos_view_backfill_files", "view" => plan.name.clone(),
            "region" => self.region.to_string(), "shard" => self.shard.index.to_string());
        let of_shard = |(_, add): &(&FileReader, &Add)| {
            wanted(add.partition_values.get("tenant").and_then(Option::as_deref).unwrap_or_default())
        };
        let mut states: Vec<RecordBatch> = Vec::new();
        let mut rows: Vec<RecordBatch> = Vec::new();
        let mut bytes = 0;
        let files: Vec<_> = files.hot.iter().map(|file| (&hot, file)).chain(archived).filter(of_shard).collect();
        for (done, (reader, add)) in files.iter().enumerate() {
            progress.set((files.len() - done) as f64);
            reader
                .read(add, |batch| {
                    bytes += batch.get_array_memory_size();
                    rows.push(batch);
                    Ok(())
                })
                .await?;
            if bytes >= HISTORY_BYTES {
                states.extend(plan.partial(&rows).await?);
                rows.clear();
                bytes = 0;
                if states.len() >= 8 {
                    states = plan.fold(&states).await?.into_iter().collect();
                }
            }
        }
        progress.set(0.0);
        states.extend(plan.partial(&rows).await?);
        match states.len() {
            0 | 1 => Ok(states.pop()),
            _ => Ok(plan.fold(&states).await?),
        }
    }

    fn partition(&self) -> HashMap<String, Option<String>> {
        HashMap::from([(SHARD.to_owned(), Some(self.shard.index.to_string()))])
    }

    async fn fold(&mut self) -> Result<(), TaskError> {
        self.commits = 0;
        let fold = Fold {
            partition: self.partition(),
            below_bytes: FOLD_BELOW,
            min_files: 8,
            max_bytes: 4 * FOLD_BELOW,
            // Windows beyond the retention go: who follows the log must hear of it.
            data_change: self.generation.plan.options.retention.is_some(),
            position: None,
            task: "fold",
        };
        let plan = &self.generation.plan;
        let done = fold
            .run(&self.storage, &self.generation.table, async |state| {
                let state = retained(plan, state);
                plan.fold(&state).await.map(|folded| folded.into_iter().collect())
            })
            .await;
        match done {
            Ok(_) | Err(FoldError::Table(MaintenanceError::Conflict { .. })) => Ok(()),
            Err(error) => {
                warn!(view = %plan.name, %error, "state could not be folded; trying again later");
                Ok(())
            }
        }
    }

    /// Rows of some tenants were erased from the stream's table: their state is made anew from what
    /// is left at that version, and takes the old state's place in one commit.
    async fn erase(&mut self, entry: &TailEntry) -> Result<(), TaskError> {
        let tenant_of = |values: &HashMap<String, Option<String>>| values.get("tenant").cloned().flatten();
        let mut tenants: Vec<String> = entry.adds.iter().filter_map(|a| tenant_of(&a.partition_values)).collect();
        tenants.extend(entry.removed.iter().filter_map(|r| r.partition_values.as_ref().and_then(tenant_of)));
        tenants.extend(entry.tenant.clone());
        tenants.retain(|tenant| self.shard.has(tenant));
        tenants.sort();
        tenants.dedup();
        if tenants.is_empty() {
            return self.commit(None, entry.version).await;
        }
        let stream = self.generation.plan.stream.name();
        let files = StoredFiles::of(&self.storage, self.archive.as_ref(), stream, Some(entry.version)).await?;
        let Some(files) = files else { return self.commit(None, entry.version).await };
        loop {
            let left = self.aggregate_files(&files, |tenant| tenants.iter().any(|t| t == tenant)).await?;
            let fold = Fold {
                partition: self.partition(),
                below_bytes: u64::MAX,
                min_files: 0,
                max_bytes: u64::MAX,
                data_change: true,
                position: Some((self.app_id.to_string(), entry.version as i64)),
                task: ERASE,
            };
            let tenants = &tenants;
            let done = fold
                .run(&self.storage, &self.generation.table, async move |state| {
                    let kept = state.iter().map(|batch| without(batch, tenants));
                    let kept = kept.collect::<Result<Vec<_>, arrow::error::ArrowError>>()?;
                    Ok::<_, arrow::error::ArrowError>(kept.into_iter().chain(left).collect())
                })
                .await;
            match done {
                Ok(_) => break,
                Err(FoldError::Table(error)) if error.is_transient() => {
                    warn!(view = %self.generation.plan.name, %error, "erasure is tried again");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(error) => return Err(TaskError::Fold(error.to_string())),
            }
        }
        self.sink.load_positions(std::slice::from_ref(&self.app_id)).await?;
        self.committed = Some(entry.version);
        self.seen = Some(entry.version);
        info!(view = %self.generation.plan.name, ?tenants, version = entry.version, "erased rows are out of the view");
        Ok(())
    }
}

/// How a commit of the stream's table says that it erased somebody's rows.
pub(crate) const ERASE: &str = "erase";

fn without(batch: &RecordBatch, tenants: &[String]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let Some(column) = batch.column_by_name("tenant").and_then(|c| c.as_string_opt::<i32>()) else {
        return Ok(batch.clone());
    };
    let keep: BooleanArray = column.iter().map(|t| Some(!t.is_some_and(|t| tenants.iter().any(|x| x == t)))).collect();
    filter_record_batch(batch, &keep)
}

/// State of windows that are still within the view's retention.
fn retained(plan: &companyos_views::ViewPlan, state: Vec<RecordBatch>) -> Vec<RecordBatch> {
    let (Some(retention), Some(window)) = (plan.options.retention, plan.window_column()) else { return state };
    let oldest = Utc::now().timestamp_micros() - i64::try_from(retention.as_micros()).unwrap_or(i64::MAX);
    let keep = |batch: RecordBatch| {
        let column = batch.column_by_name(window)?;
        let starts = column.as_primitive_opt::<TimestampMicrosecondType>()?;
        let keep: BooleanArray =
            (0..starts.len()).map(|i| Some(starts.is_null(i) || starts.value(i) >= oldest)).collect();
        filter_record_batch(&batch, &keep).ok()
    };
    state.into_iter().map(|batch| keep(batch.clone()).unwrap_or(batch)).collect()
}
