//! What maintenance did, for people, logs and the API.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// One kind of maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Small files merged.
    Compaction,
    /// Closed days sorted along a Z-order curve.
    Cluster,
    /// Whole days deleted.
    Retention,
    /// Old days moved to the archive.
    Archive,
    /// Log checkpoint written.
    Checkpoint,
    /// Old log entries removed.
    LogCleanup,
    /// Unreferenced files deleted.
    Vacuum,
}

impl Task {
    /// All tasks, in the order one full run takes them.
    pub const ALL: [Task; 7] = [
        Task::Retention,
        Task::Archive,
        Task::Compaction,
        Task::Cluster,
        Task::Checkpoint,
        Task::LogCleanup,
        Task::Vacuum,
    ];

    /// Name in reports, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Task::Compaction => "compaction",
            Task::Cluster => "cluster",
            Task::Retention => "retention",
            Task::Archive => "archive",
            Task::Checkpoint => "checkpoint",
            Task::LogCleanup => "log_cleanup",
            Task::Vacuum => "vacuum",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Task {
    type Err = UnknownTask;

    fn from_str(name: &str) -> Result<Self, UnknownTask> {
        Self::ALL.into_iter().find(|task| task.name() == name).ok_or_else(|| UnknownTask(name.to_owned()))
    }
}

/// A task name that is none.
#[derive(Debug, thiserror::Error)]
#[error(
    "unknown maintenance task {0:?}; known: retention, archive, compaction, cluster, checkpoint, log_cleanup, vacuum"
)]
pub struct UnknownTask(String);

/// Which of a region's roots a task worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaceKind {
    /// The region's storage.
    Hot,
    /// The region's archive.
    Archive,
}

impl PlaceKind {
    /// Name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            PlaceKind::Hot => "hot",
            PlaceKind::Archive => "archive",
        }
    }
}

/// What one run over a table did, task by task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// Table name.
    pub table: String,
    /// One entry per region, root and task.
    pub tasks: Vec<TaskReport>,
}

impl Report {
    /// Tasks that failed.
    pub fn failures(&self) -> impl Iterator<Item = &TaskReport> {
        self.tasks.iter().filter(|t| matches!(t.outcome, Outcome::Failed { .. }))
    }

    /// The work of one task, summed over regions and roots.
    pub fn work(&self, task: Task) -> Work {
        self.tasks.iter().filter(|t| t.task == task).fold(Work::default(), |mut sum, t| {
            if let Outcome::Done(work) = &t.outcome {
                sum.add(work);
            }
            sum
        })
    }
}

/// One task on one table of one root.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskReport {
    /// The task.
    pub task: Task,
    /// Region name.
    pub region: String,
    /// Which root.
    pub place: PlaceKind,
    /// Table name.
    pub table: String,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// How often it had to begin again.
    pub retries: u32,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a task ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum Outcome {
    /// It ran; the work may be none.
    Done(Work),
    /// It failed; what it had finished before stays done.
    Failed {
        /// The error, as text.
        error: String,
    },
}

/// What a task did. Fields that do not apply are 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Work {
    /// Commits made.
    pub commits: u64,
    /// Files taken out of the table, or deleted by vacuum and log clean-up.
    pub files_removed: u64,
    /// Files put into the table or the archive.
    pub files_added: u64,
    /// Bytes of the files removed.
    pub bytes_removed: u64,
    /// Bytes of the files added.
    pub bytes_added: u64,
    /// Rows rewritten, moved or deleted.
    pub rows: u64,
    /// Table version the task saw last or wrote.
    pub version: Option<u64>,
}

impl Work {
    pub(crate) fn add(&mut self, other: &Work) {
        self.commits += other.commits;
        self.files_removed += other.files_removed;
        self.files_added += other.files_added;
        self.bytes_removed += other.bytes_removed;
        self.bytes_added += other.bytes_added;
        self.rows += other.rows;
        self.version = self.version.max(other.version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_found_by_the_name_it_prints() {
        for task in Task::ALL {
            assert_eq!(task.to_string().parse::<Task>().unwrap(), task);
        }
        assert!("compactoin".parse::<Task>().unwrap_err().to_string().contains("compactoin"));
    }
}
