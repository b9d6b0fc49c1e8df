//! Keeps a region's Delta tables fast and small while writers keep appending: log checkpoints and
//! clean-up, compaction, clustering, retention, cold archive and vacuum.
//!
//! Promises:
//! - No task ever loses or doubles a row, with live appenders and with other maintainers at work
//!   on the same table. Every commit is checked against each log entry written since its plan was
//!   read; on a conflict the plan is thrown away and made anew (see `commit`).
//! - The writers' positions (`txn` actions) survive every task.
//! - A task that dies at any step can be run again; a failing task never stops the others.
//! - Memory is bounded by configuration, not by table size (apart from the table's file list).
//!
//! It needs a multi-threaded Tokio runtime: delta-rs blocks while it writes log checkpoints.
//!
//! # Running it
//!
//! A service runs every task on its interval until it is told to stop; `--once` runs each task
//! once on every table, or only the tasks that are named:
//!
//! ```no_run
//! # use companyos_maintenance::{Maintainer, MaintenanceConfig, MaintenanceError, RegionStorage, Task};
//! # use companyos_schemas::tenancy::Tenancy;
//! # async fn maintain(
//! #     config: MaintenanceConfig, tenancy: Tenancy, once: bool, named: Vec<Task>,
//! #     stop: impl Future<Output = ()>,
//! # ) -> Result<(), MaintenanceError> {
//! let maintainer = Maintainer::new(config, RegionStorage::open_all(&tenancy)?)?;
//! if once {
//!     // `Task` is read from text: "compaction", "vacuum", … (`Task::ALL` has them all).
//!     let tasks = if named.is_empty() { Task::ALL.to_vec() } else { named };
//!     let reports = maintainer.run_all_once(&tasks).await?; // one a table; serializes to JSON
//!     let failed = reports.iter().any(|report| report.failures().next().is_some());
//! #   let _ = failed;
//! } else {
//!     maintainer.run(stop).await;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Readers of hot and archived rows together open them with [`TableView::open`].

mod archive;
mod checkpoint;
mod cluster;
mod commit;
mod compact;
mod config;
mod erase;
mod error;
mod fold;
mod live_table;
mod log_cleanup;
mod maintainer;
mod report;
mod retention;
mod rewrite;
mod vacuum;
mod zorder_key;

pub use archive::{Manifest, ManifestFile, ManifestState, StoredFiles, TableView};
pub use config::{
    ArchiveConfig, CheckpointConfig, ClusterConfig, CompactionConfig, ConfigError, LogCleanupConfig, MaintenanceConfig,
    RetentionConfig, RetentionRule, VacuumConfig,
};
pub use erase::{Erased, announce_erasure, erase, person_columns};
pub use error::MaintenanceError;
pub use fold::{Fold, FoldError, Folded};
pub use maintainer::{Maintainer, RegionStorage};
pub use report::{Outcome, PlaceKind, Report, Task, TaskReport, UnknownTask, Work};
