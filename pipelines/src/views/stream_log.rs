//! A stream's log as several views follow it: entries and rows are read once for all of them.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use companyos_schemas::{Stream, arrow_schema::table_schema};
use companyos_sinks::{
    delta::{DeltaSinkError, FileReader, TableTail, TailEntry},
    storage::Storage,
};

use super::shard::Shard;

/// Entries and rows that were read lately.
pub(crate) struct StreamLog {
    storage: Storage,
    stream: Stream,
    shard: Shard,
    columns: Vec<String>,
    reader: FileReader,
    /// Stands at the newest entry read; kept, since a fresh one looks for gaps first.
    tail: TableTail,
    entries: BTreeMap<u64, Arc<TailEntry>>,
    rows: BTreeMap<u64, Arc<Vec<RecordBatch>>>,
}

/// Entries remembered; views that are further behind read for themselves.
const REMEMBERED: usize = 256;
/// Entries whose rows are remembered.
const ROWS_REMEMBERED: usize = 4;

impl StreamLog {
    pub(crate) fn new(storage: &Storage, stream: Stream, shard: Shard) -> Self {
        let reader = FileReader::new(storage, stream.name(), schema_of(stream, &[]));
        Self {
            storage: storage.clone(),
            stream,
            shard,
            columns: Vec::new(),
            reader,
            tail: TableTail::at(storage, stream.name(), None),
            entries: BTreeMap::new(),
            rows: BTreeMap::new(),
        }
    }

    /// Reads these columns from now on.
    pub(crate) fn want(&mut self, columns: Vec<String>) {
        if columns != self.columns {
            self.reader = FileReader::new(&self.storage, self.stream.name(), schema_of(self.stream, &columns));
            self.columns = columns;
            self.rows.clear();
        }
    }

    /// The entry after a version, or none at the end.
    pub(crate) async fn after(&mut self, version: Option<u64>) -> Result<Option<Arc<TailEntry>>, DeltaSinkError> {
        let wanted = version.map_or(0, |v| v + 1);
        if let Some(entry) = self.entries.get(&wanted) {
            return Ok(Some(entry.clone()));
        }
        if self.tail.version() != version {
            self.tail = TableTail::at(&self.storage, self.stream.name(), version);
        }
        let Some(entry) = self.tail.next().await? else { return Ok(None) };
        let entry = Arc::new(entry);
        self.entries.insert(wanted, entry.clone());
        while self.entries.len() > REMEMBERED {
            self.entries.pop_first();
        }
        Ok(Some(entry))
    }

    /// This shard's rows of an entry, with the wanted columns.
    pub(crate) async fn rows(&mut self, entry: &TailEntry) -> Result<Arc<Vec<RecordBatch>>, DeltaSinkError> {
        if let Some(rows) = self.rows.get(&entry.version) {
            return Ok(rows.clone());
        }
        let mut batches = Vec::new();
        for add in &entry.adds {
            let tenant = add.partition_values.get("tenant").and_then(Option::as_deref).unwrap_or_default();
            if !self.shard.has(tenant) {
                continue;
            }
            self.reader
                .read(add, |batch| {
                    batches.push(batch);
                    Ok(())
                })
                .await?;
        }
        let batches = Arc::new(batches);
        self.rows.insert(entry.version, batches.clone());
        while self.rows.len() > ROWS_REMEMBERED {
            self.rows.pop_first();
        }
        Ok(batches)
    }
}

/// The stream's columns of these names, in the table's order.
pub(crate) fn schema_of(stream: Stream, columns: &[String]) -> SchemaRef {
    let table = table_schema(stream);
    let fields = table.fields().iter().filter(|f| columns.contains(f.name())).cloned().collect::<Vec<_>>();
    Arc::new(arrow::datatypes::Schema::new(fields))
}
