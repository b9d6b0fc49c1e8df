//! Compaction: small files of a partition become few large ones, with the same rows.

use chrono::{DateTime, Utc};
use deltalake::protocol::DeltaOperation;
use serde_json::json;
use tracing::info;

use crate::{
    CompactionConfig, MaintenanceError, Work, cluster,
    commit::{Change, commit},
    live_table::{LiveFile, LiveTable},
    rewrite::{FileEncoder, SourceFile, Stored, Target, blocking},
};

/// Merges what is worth merging in this version, one commit per merged group.
pub(crate) async fn run(
    table: &LiveTable,
    config: &CompactionConfig,
    now: DateTime<Utc>,
) -> Result<Work, MaintenanceError> {
    let mut work = Work { version: Some(table.version), ..Default::default() };
    let mut input = 0;
    for group in plan(table, config, now) {
        input += group.iter().map(|f| f.size).sum::<u64>();
        if input > config.max_bytes_per_run && work.commits > 0 {
            break;
        }
        work.add(&merge(table, &group, config).await?);
    }
    Ok(work)
}

/// Groups of files of one partition each, together not larger than the target.
fn plan(table: &LiveTable, config: &CompactionConfig, now: DateTime<Utc>) -> Vec<Vec<LiveFile>> {
    let youngest = now.timestamp_millis() - i64::try_from(config.min_age.as_millis()).unwrap_or(i64::MAX);
    // A file this large gains nothing from being merged.
    let small = config.target_bytes / 4 * 3;
    let mut groups = Vec::new();
    for (_, mut files) in table.partitions() {
        files.retain(|f| f.size < small && f.modified <= youngest && !cluster::is_clustered(f));
        // Neighbours in time stay neighbours, so that file skipping keeps working.
        files.sort_by(|a, b| (a.modified, &a.path).cmp(&(b.modified, &b.path)));
        let mut group: Vec<LiveFile> = Vec::new();
        let mut bytes = 0;
        for file in files {
            if bytes + file.size > config.target_bytes {
                groups.push(std::mem::take(&mut group));
                bytes = 0;
            }
            bytes += file.size;
            group.push(file);
        }
        groups.push(group);
    }
    groups.into_iter().map(balance).filter(|group| group.len() >= config.min_files).collect()
}

/// Leaves out files larger than all the others together: each row is then rewritten a number of
/// times that grows with the logarithm of the file's final size, not with the number of runs.
fn balance(mut group: Vec<LiveFile>) -> Vec<LiveFile> {
    let mut total: u64 = group.iter().map(|f| f.size).sum();
    while let Some((largest, size)) = group.iter().enumerate().map(|(i, f)| (i, f.size)).max_by_key(|(_, size)| *size)
        && size > total - size
    {
        total -= size;
        group.remove(largest);
    }
    group
}

async fn merge(table: &LiveTable, group: &[LiveFile], config: &CompactionConfig) -> Result<Work, MaintenanceError> {
    let store = table.log_store.object_store(None);
    let mut stored = Stored::default();
    let rows = match write_merged(table, group, config, &mut stored).await {
        Ok(rows) => rows,
        Err(error) => {
            stored.discard(&store).await;
            return Err(error);
        }
    };
    let files_added = stored.adds.len() as u64;
    let bytes_added = stored.bytes();
    let version = commit_rewrite(table, group, stored, config.target_bytes, "compaction").await?;
    info!(table = %table.name, version, files = group.len(), rows, bytes_added, "compacted");
    Ok(Work {
        commits: 1,
        files_removed: group.len() as u64,
        files_added,
        bytes_removed: group.iter().map(|f| f.size).sum(),
        bytes_added,
        rows,
        version: Some(version),
    })
}

async fn write_merged(
    table: &LiveTable,
    group: &[LiveFile],
    config: &CompactionConfig,
    stored: &mut Stored,
) -> Result<u64, MaintenanceError> {
    let store = table.log_store.object_store(None);
    let target = Target::new(table, &group[0].partition, "compact", config.target_bytes, config.zstd_level);
    let mut encoder = FileEncoder::new(target);
    let mut rows = 0;
    for file in group {
        let source = SourceFile::read(table, file).await?;
        let (back, read) = blocking(&table.name, move || {
            let read = source.visit(None, |batch| encoder.write(&batch))?;
            Ok((encoder, read))
        })
        .await?;
        encoder = back;
        rows += read;
        stored.store(&store, encoder.take_finished()).await?;
    }
    let mut encoder = blocking(&table.name, move || encoder.end_file().map(|()| encoder)).await?;
    stored.store(&store, encoder.take_finished()).await?;
    match stored.rows == rows {
        true => Ok(rows),
        false => Err(MaintenanceError::rewrite(&table.name, format!("{rows} rows read, {} written", stored.rows))),
    }
}

/// Puts rewritten files in the place of their sources.
pub(crate) async fn commit_rewrite(
    table: &LiveTable,
    sources: &[LiveFile],
    stored: Stored,
    target_bytes: u64,
    task: &str,
) -> Result<u64, MaintenanceError> {
    let now = Utc::now().timestamp_millis();
    let change = Change {
        removes: sources.iter().map(|f| f.remove(false, now)).collect(),
        adds: stored.adds.clone(),
        position: None,
        operation: DeltaOperation::Optimize {
            predicate: None,
            target_size: i64::try_from(target_bytes).unwrap_or(i64::MAX),
        },
        lineage: json!({"task": task, "sourceVersion": table.version, "rows": stored.rows}),
    };
    match commit(table, change).await {
        Ok(version) => Ok(version),
        Err(error) => {
            // Any other error leaves open whether the entry was written: its files must stay.
            if matches!(error, MaintenanceError::Conflict { .. }) {
                stored.discard(&table.log_store.object_store(None)).await;
            }
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, size: u64) -> LiveFile {
        LiveFile { path: path.into(), partition: Default::default(), size, modified: 0, rows: None }
    }

    #[test]
    fn a_large_file_is_not_rewritten_for_a_few_small_ones() {
        let names = |group: Vec<LiveFile>| group.into_iter().map(|f| f.path).collect::<Vec<_>>();
        assert_eq!(names(balance(vec![file("large", 100), file("a", 10), file("b", 10)])), ["a", "b"]);
        assert_eq!(names(balance(vec![file("large", 100), file("a", 60), file("b", 50)])), ["large", "a", "b"]);
        assert!(balance(vec![file("a", 3)]).is_empty());
    }
}
