//! Running an operator over the tables' history again.
//!
//! Promises:
//! - Commits are given in the order of their time, those of one table in the order of its log, with
//!   the time of the commit as the time of day: two replays of the same history put out the same.
//! - It starts without state, and reads only; what comes out goes to the caller, not to tables.
//! - Where the log has been cleaned up, what its oldest version still holds is given file by file, by
//!   when the files were written.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use companyos_schemas::Stream;
use companyos_sinks::{
    delta::{Add, FileReader, TableTail, TailEntry, table_files},
    storage::Storage,
};
use companyos_stream::{Output, ShardOperator, TailRows};

use super::{TaskError, operator_job::columns};

/// What to replay.
#[derive(Debug, Clone)]
pub struct Replay {
    /// Commits from this moment on.
    pub from: DateTime<Utc>,
    /// Commits before this one.
    pub until: DateTime<Utc>,
    /// Only this tenant's rows.
    pub tenant: Option<String>,
}

/// How much was replayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Commits with rows.
    pub commits: u64,
    /// Rows.
    pub rows: u64,
}

/// A commit of one of the operator's inputs.
struct Step {
    at: DateTime<Utc>,
    input: usize,
    version: u64,
    adds: Vec<Add>,
}

impl Replay {
    /// Feeds the operator from one region's tables; `put` gets what comes out, in order.
    pub async fn run(
        &self,
        operator: &mut dyn ShardOperator,
        storage: &Storage,
        mut put: impl FnMut(Output),
    ) -> Result<Replayed, TaskError> {
        let inputs: Vec<(Stream, FileReader)> = operator
            .inputs()
            .into_iter()
            .map(|input| {
                let schema = columns(input.stream, &input.columns);
                (input.stream, FileReader::new(storage, input.stream.name(), schema))
            })
            .collect();
        let mut steps = Vec::new();
        for (input, (stream, _)) in inputs.iter().enumerate() {
            steps.extend(self.steps(input, *stream, storage).await?);
        }
        // Stable: commits of one table stay in the log's order even if clocks did not.
        steps.sort_by_key(|step| step.at);
        let name = operator.name();
        let failed = |source| TaskError::Operator { operator: name.to_owned(), source };
        let mut done = Replayed::default();
        for step in steps {
            let (stream, reader) = &inputs[step.input];
            let mut batches = Vec::new();
            for add in step.adds.iter().filter(|add| self.wants(add)) {
                reader
                    .read(add, |batch| {
                        batches.push(batch);
                        Ok(())
                    })
                    .await?;
            }
            done.commits += u64::from(!batches.is_empty());
            for batch in &batches {
                done.rows += batch.num_rows() as u64;
                let rows = TailRows { stream: *stream, version: step.version, committed_at: step.at, batch };
                operator.on_rows(&rows).map_err(failed)?;
            }
            operator.on_time(step.at).map_err(failed)?;
            put(operator.take_output());
        }
        operator.on_time(self.until).map_err(failed)?;
        put(operator.take_output());
        Ok(done)
    }

    async fn steps(&self, input: usize, stream: Stream, storage: &Storage) -> Result<Vec<Step>, TaskError> {
        let Some(oldest) = TableTail::oldest(storage, stream.name(), 0).await? else { return Ok(Vec::new()) };
        let mut steps = Vec::new();
        if oldest > 0 {
            let held = table_files(storage, stream.name(), Some(oldest)).await?;
            steps.extend(self.held(input, oldest, held.map(|h| h.files).unwrap_or_default()));
        }
        let after = if oldest > 0 { Some(oldest) } else { None };
        let mut tail = TableTail::at(storage, stream.name(), after);
        while let Some(TailEntry { version, committed_at, adds, .. }) = tail.next().await? {
            if !adds.is_empty() && committed_at >= self.from && committed_at < self.until {
                steps.push(Step { at: committed_at, input, version, adds });
            }
        }
        Ok(steps)
    }

    /// Files of the oldest version that is left, by when they were written.
    fn held(&self, input: usize, version: u64, files: Vec<Add>) -> Vec<Step> {
        let mut by_time: BTreeMap<i64, Vec<Add>> = BTreeMap::new();
        for add in files {
            by_time.entry(add.modification_time).or_default().push(add);
        }
        let steps = by_time.into_iter().filter_map(|(millis, mut adds)| {
            let at = DateTime::from_timestamp_millis(millis)?;
            adds.sort_by(|a, b| a.path.cmp(&b.path));
            (at >= self.from && at < self.until).then_some(Step { at, input, version, adds })
        });
        steps.collect()
    }

    fn wants(&self, add: &Add) -> bool {
        let tenant = add.partition_values.get("tenant").and_then(Option::as_deref);
        self.tenant.as_deref().is_none_or(|wanted| tenant == Some(wanted))
    }
}
