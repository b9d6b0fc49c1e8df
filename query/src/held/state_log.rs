//! What was committed to a view's state table lately, read once for all who hold the view.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use companyos_sinks::{
    delta::{DeltaSinkError, FileReader, TableTail, TailEntry},
    storage::Storage,
};

/// Commits remembered; who is further behind reads the state anew.
const REMEMBERED: usize = 256;
/// Commits whose rows are remembered.
const ROWS_REMEMBERED: usize = 32;
/// Bytes of files that are read to catch up; beyond that reading the state anew is no dearer.
const MOST_BYTES: i64 = 8 << 20;

type Rows = Arc<Vec<RecordBatch>>;

/// Commits of one state table, from some version on.
pub(super) struct StateLog {
    table: String,
    reader: FileReader,
    tail: TableTail,
    /// When the last read to the log's end began.
    read_at: Option<Instant>,
    commits: BTreeMap<u64, Commit>,
}

struct Commit {
    entry: TailEntry,
    /// Rows of the partitions that were asked for.
    rows: HashMap<String, Rows>,
}

impl std::fmt::Debug for StateLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateLog").field("table", &self.table).finish_non_exhaustive()
    }
}

impl StateLog {
    /// Knows what comes after a version.
    pub fn new(storage: &Storage, table: &str, schema: SchemaRef, version: u64) -> Self {
        Self {
            table: table.to_owned(),
            reader: FileReader::new(storage, table, schema),
            tail: TableTail::at(storage, table, Some(version)),
            read_at: None,
            commits: BTreeMap::new(),
        }
    }

    /// The newest version, and the rows that the commits after `from` added to one partition. None
    /// if that is not all they did to it, or if it is not known any more. Those who asked before the
    /// last read of the log began share it.
    pub async fn since(
        &mut self,
        from: u64,
        (column, value): &(&'static str, String),
        asked: Instant,
    ) -> Result<Option<(u64, Vec<Rows>)>, DeltaSinkError> {
        if self.read_at.is_none_or(|at| at < asked) {
            let began = Instant::now();
            self.read_on().await?;
            self.read_at = Some(began);
        }
        let newest = self.tail.version().unwrap_or(0);
        let oldest = self.commits.first_key_value().map_or(newest + 1, |(oldest, _)| *oldest);
        if oldest > from + 1 {
            return Ok(None);
        }
        // A view taken in at a version the log has not come to yet.
        let newest = newest.max(from);
        let own = |values: &HashMap<String, Option<String>>| {
            values.get(*column).and_then(Option::as_deref).is_none_or(|v| v == value)
        };
        let mut found = Vec::new();
        let mut bytes = 0;
        for commit in self.commits.range_mut(from + 1..).map(|(_, commit)| commit) {
            // Without partition values it may be a file of this one.
            let gone = |r: &deltalake::kernel::Remove| r.partition_values.as_ref().is_none_or(own);
            if commit.entry.removed.iter().any(gone) {
                return Ok(None);
            }
            if let Some(rows) = commit.rows.get(value) {
                found.push(rows.clone());
                continue;
            }
            let mut batches = Vec::new();
            for add in commit.entry.adds.iter().filter(|add| own(&add.partition_values)) {
                bytes += add.size;
                if bytes > MOST_BYTES {
                    return Ok(None);
                }
                let keep = |batch| {
                    batches.push(batch);
                    Ok(())
                };
                self.reader.read(add, keep).await?;
            }
            let rows = Arc::new(batches);
            commit.rows.insert(value.clone(), rows.clone());
            found.push(rows);
        }
        Ok(Some((newest, found)))
    }

    /// To the end of the log.
    async fn read_on(&mut self) -> Result<(), DeltaSinkError> {
        while let Some(entry) = self.tail.next().await? {
            self.commits.insert(entry.version, Commit { entry, rows: HashMap::new() });
            if self.commits.len() > REMEMBERED {
                self.commits.pop_first();
            }
            if let Some((_, old)) = self.commits.iter_mut().nth_back(ROWS_REMEMBERED) {
                old.rows.clear();
            }
        }
        Ok(())
    }
}
