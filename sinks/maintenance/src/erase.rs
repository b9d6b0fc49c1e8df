//! Erasing a person: every row of one user of one tenant is taken out of a table.
//!
//! Files that hold such rows are rewritten without them, in one commit that says what it is
//! (`task: erase`), so that whoever follows the log (views) makes anew what was made of them. The
//! old files stay on disk until vacuum's retention has passed, as after every rewrite.

use std::collections::HashMap;

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
};
use chrono::Utc;
use companyos_sinks::storage::Storage;
use deltalake::protocol::DeltaOperation;
use serde_json::json;

use crate::{
    MaintenanceError,
    commit::{Change, commit},
    live_table::{LiveFile, LiveTable},
    rewrite::{FileEncoder, SourceFile, Stored, Target, blocking},
};

/// What was erased from one table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Erased {
    /// Rows taken out.
    pub rows: u64,
    /// Files rewritten.
    pub files: usize,
    /// Version without them; none if there were none.
    pub version: Option<u64>,
}

/// How a commit says that it erased somebody's rows.
const TASK: &str = "erase";

/// Takes the rows of `tenant` out of the table whose `column` holds `user`. On a conflict with other
/// maintenance it starts again; a missing table or column has no such rows.
pub async fn erase(
    storage: &Storage,
    table: &str,
    tenant: &str,
    column: &str,
    user: &str,
) -> Result<Erased, MaintenanceError> {
    loop {
        match attempt(storage, table, tenant, column, user).await {
            Err(MaintenanceError::Conflict { .. }) => {
                tracing::debug!(table, "the table changed while rows were erased; starting again");
            }
            other => return other,
        }
    }
}

async fn attempt(
    storage: &Storage,
    table: &str,
    tenant: &str,
    column: &str,
    user: &str,
) -> Result<Erased, MaintenanceError> {
    let Some(live) = LiveTable::open(storage, table).await? else { return Ok(Erased::default()) };
    if live.schema.field_with_name(column).is_err() {
        return Ok(Erased::default());
    }
    let mut stored = Stored::default();
    let mut replaced: Vec<LiveFile> = Vec::new();
    let mut rows = 0;
    for file in live.files.iter().filter(|f| f.value("tenant") == Some(tenant)) {
        let gone = match rewrite(&live, file, column, user, &mut stored).await {
            Ok(gone) => gone,
            Err(error) => {
                stored.discard(&live.log_store.object_store(None)).await;
                return Err(error);
            }
        };
        if gone > 0 {
            rows += gone;
            replaced.push(file.clone());
        }
    }
    if replaced.is_empty() {
        return Ok(Erased::default());
    }
    let now = Utc::now().timestamp_millis();
    let change = Change {
        removes: replaced.iter().map(|f| f.remove(true, now)).collect(),
        adds: stored.adds.clone(),
        position: None,
        operation: DeltaOperation::Delete { predicate: None },
        lineage: json!({"task": TASK, "tenant": tenant, "sourceVersion": live.version, "rows": rows}),
    };
    match commit(&live, change).await {
        Ok(version) => Ok(Erased { rows, files: replaced.len(), version: Some(version) }),
        Err(error) => {
            if matches!(error, MaintenanceError::Conflict { .. }) {
                stored.discard(&live.log_store.object_store(None)).await;
            }
            Err(error)
        }
    }
}

/// Says in a hot table's log that rows of a tenant were erased from its archive, so that what is
/// made of both is made anew. None if there is no such table.
pub async fn announce_erasure(hot: &Storage, table: &str, tenant: &str) -> Result<Option<u64>, MaintenanceError> {
    let Some(live) = LiveTable::open(hot, table).await? else { return Ok(None) };
    let change = Change {
        removes: Vec::new(),
        adds: Vec::new(),
        position: None,
        operation: DeltaOperation::Delete { predicate: None },
        lineage: json!({"task": TASK, "tenant": tenant, "sourceVersion": live.version, "rows": 0}),
    };
    commit(&live, change).await.map(Some)
}

/// Writes the file's other rows, if it holds any of the user's; returns how many those were.
async fn rewrite(
    live: &LiveTable,
    file: &LiveFile,
    column: &str,
    user: &str,
    stored: &mut Stored,
) -> Result<u64, MaintenanceError> {
    let store = live.log_store.object_store(None);
    let bytes = SourceFile::read(live, file).await?;
    let (column_name, wanted) = (column.to_owned(), user.to_owned());
    let target = Target::new(live, &file.partition, TASK, u64::MAX, 3);
    let (files, gone) = blocking(&live.name, move || {
        let mut encoder = FileEncoder::new(target);
        let mut gone = 0;
        bytes.visit(None, |batch| {
            let kept = without(&batch, &column_name, &wanted)?;
            gone += (batch.num_rows() - kept.num_rows()) as u64;
            if kept.num_rows() > 0 { encoder.write(&kept) } else { Ok(()) }
        })?;
        // Nobody's file: as it was.
        if gone > 0 {
            encoder.end_file()?;
        }
        Ok((encoder.take_finished(), gone))
    })
    .await?;
    let mut files = files;
    for file in &mut files {
        file.add.data_change = true;
    }
    stored.store(&store, files).await?;
    Ok(gone)
}

fn without(batch: &RecordBatch, column: &str, user: &str) -> Result<RecordBatch, MaintenanceError> {
    let Some(values) = batch.column_by_name(column).and_then(|c| c.as_string_opt::<i32>()) else {
        return Ok(batch.clone());
    };
    let keep: BooleanArray = (0..values.len()).map(|i| Some(values.is_null(i) || values.value(i) != user)).collect();
    filter_record_batch(batch, &keep).map_err(|e| MaintenanceError::rewrite("erase", e))
}

/// The columns of the streams' tables that name a person.
pub fn person_columns() -> HashMap<&'static str, &'static str> {
    HashMap::from([
        ("product_events", "user_id"),
        ("ops_events", "user_id"),
        ("security_signals", "actor"),
        ("audit_events", "actor"),
    ])
}
