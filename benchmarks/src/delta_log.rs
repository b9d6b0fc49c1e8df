//! How many rows a Delta table holds, read from its log as it grows and by nothing of the engine.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::Deserialize;

/// A local Delta table's log, followed commit by commit from the first.
#[derive(Debug)]
pub struct DeltaLog {
    table: PathBuf,
    next_version: u64,
    rows_by_file: HashMap<String, u64>,
    rows: u64,
    positions: HashMap<String, u64>,
}

#[derive(Deserialize)]
struct Action {
    add: Option<Add>,
    remove: Option<Remove>,
    txn: Option<Txn>,
}

#[derive(Deserialize)]
struct Txn {
    #[serde(rename = "appId")]
    app_id: String,
    version: u64,
}

#[derive(Deserialize)]
struct Add {
    path: String,
    stats: Option<String>,
}

#[derive(Deserialize)]
struct Remove {
    path: String,
}

#[derive(Deserialize)]
struct Stats {
    #[serde(rename = "numRecords")]
    num_records: u64,
}

impl DeltaLog {
    /// The log of the table in this folder, which need not exist yet.
    pub fn new(table: impl Into<PathBuf>) -> Self {
        Self { table: table.into(), next_version: 0, rows_by_file: HashMap::new(), rows: 0, positions: HashMap::new() }
    }

    /// Reads the commits made since the last call; returns the rows in the table now.
    pub fn refresh(&mut self) -> Result<u64> {
        loop {
            let commit = self.table.join(format!("_delta_log/{:020}.json", self.next_version));
            let text = match fs::read_to_string(&commit) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(self.rows),
                Err(error) => return Err(error).context(commit.display().to_string()),
            };
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                self.apply(line).with_context(|| commit.display().to_string())?;
            }
            self.next_version += 1;
        }
    }

    /// Commits read so far.
    pub fn commits(&self) -> u64 {
        self.next_version
    }

    /// The newest version of an application's transactions, as its commits gave it.
    pub fn position(&self, app_id: &str) -> Option<u64> {
        self.positions.get(app_id).copied()
    }

    /// Data files in the table now.
    pub fn files(&self) -> usize {
        self.rows_by_file.len()
    }

    fn apply(&mut self, line: &str) -> Result<()> {
        let action: Action = serde_json::from_str(line)?;
        if let Some(add) = action.add {
            let stats = add.stats.with_context(|| format!("{} has no statistics", add.path))?;
            let rows = serde_json::from_str::<Stats>(&stats)?.num_records;
            let before = self.rows_by_file.insert(add.path, rows).unwrap_or_default();
            self.rows = self.rows + rows - before;
        }
        if let Some(remove) = action.remove {
            self.rows -= self.rows_by_file.remove(&remove.path).unwrap_or_default();
        }
        if let Some(txn) = action.txn {
            self.positions.insert(txn.app_id, txn.version);
        }
        Ok(())
    }
}

/// The Delta tables at or below a folder, by path.
pub fn find_tables(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(folder) = pending.pop() {
        if folder.join("_delta_log").is_dir() {
            found.push(folder);
            continue;
        }
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).context(folder.display().to_string()),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_live_rows_across_commits_and_compaction() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("eu/product_events");
        let commit = |version: u64, lines: &[&str]| {
            fs::create_dir_all(table.join("_delta_log")).unwrap();
            fs::write(table.join(format!("_delta_log/{version:020}.json")), lines.join("\n")).unwrap();
        };
        let add = |path: &str, rows: u64| {
            format!(r#"{{"add":{{"path":"{path}","size":1,"stats":"{{\"numRecords\":{rows},\"minValues\":{{}}}}"}}}}"#)
        };
        let mut log = DeltaLog::new(&table);
        assert_eq!(log.refresh().unwrap(), 0);
        commit(0, &[r#"{"protocol":{"minReaderVersion":1}}"#, r#"{"metaData":{"id":"x"}}"#]);
        commit(1, &[r#"{"txn":{"appId":"a","version":9}}"#, &add("a", 10), &add("b", 5)]);
        assert_eq!(log.refresh().unwrap(), 15);
        commit(2, &[r#"{"remove":{"path":"a"}}"#, r#"{"remove":{"path":"b"}}"#, &add("c", 15), &add("d", 1)]);
        assert_eq!((log.refresh().unwrap(), log.files(), log.commits()), (16, 2, 3));
        assert_eq!((log.position("a"), log.position("b")), (Some(9), None));
        assert_eq!(find_tables(folder.path()).unwrap(), [table]);
    }
}
