//! Operators whose definitions are files: read again when a file changes, without losing state.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use chrono::{DateTime, Utc};
use companyos_stream::{Input, OperatorStats, Output, ShardOperator, SnapshotKind, StateBatch, StreamError, TailRows};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The latest definitions that could be loaded.
pub type Definitions<D> = watch::Receiver<Arc<D>>;

/// Watches files and folders: whenever one changes, `load` is called, and what it gives becomes the
/// definitions; an error is logged, and the old ones stay.
pub fn watch_files<D, E>(
    first: D,
    paths: Vec<PathBuf>,
    every: Duration,
    stop: CancellationToken,
    load: impl Fn() -> Result<D, E> + Send + 'static,
) -> Definitions<D>
where
    D: Send + Sync + 'static,
    E: std::fmt::Display + Send,
{
    let (sender, receiver) = watch::channel(Arc::new(first));
    if paths.is_empty() {
        return receiver;
    }
    tokio::spawn(async move {
        let mut seen = fingerprint(&paths);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sender.closed() => return,
                () = tokio::time::sleep(every) => {}
            }
            let now = fingerprint(&paths);
            if now == seen {
                continue;
            }
            seen = now;
            match load() {
                Ok(definitions) => {
                    info!(?paths, "definitions were read again");
                    sender.send_replace(Arc::new(definitions));
                }
                Err(error) => warn!(?paths, %error, "changed definitions cannot be used; the old ones stay"),
            }
        }
    });
    receiver
}

/// Names, sizes and times of all files below the paths.
fn fingerprint(paths: &[PathBuf]) -> Vec<(PathBuf, u64, Option<SystemTime>)> {
    let mut found = Vec::new();
    for path in paths {
        collect(path, &mut found);
    }
    found.sort();
    found
}

fn collect(path: &Path, found: &mut Vec<(PathBuf, u64, Option<SystemTime>)>) {
    let Ok(meta) = path.metadata() else { return };
    if !meta.is_dir() {
        found.push((path.to_owned(), meta.len(), meta.modified().ok()));
        return;
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        collect(&entry.path(), found);
    }
}

/// An operator that takes new definitions as they come.
pub struct Reloading<O, D> {
    operator: O,
    definitions: Definitions<D>,
    apply: fn(&mut O, Arc<D>) -> Result<(), StreamError>,
}

impl<O, D> Reloading<O, D> {
    /// `operator` was made with the latest of `definitions`; `apply` gives it newer ones.
    pub fn new(operator: O, definitions: Definitions<D>, apply: fn(&mut O, Arc<D>) -> Result<(), StreamError>) -> Self {
        Self { operator, definitions, apply }
    }
}

impl<O: ShardOperator, D: Send + Sync> ShardOperator for Reloading<O, D> {
    fn name(&self) -> &'static str {
        self.operator.name()
    }

    fn inputs(&self) -> Vec<Input> {
        self.operator.inputs()
    }

    fn on_rows(&mut self, rows: &TailRows<'_>) -> Result<(), StreamError> {
        self.operator.on_rows(rows)
    }

    fn on_time(&mut self, now: DateTime<Utc>) -> Result<(), StreamError> {
        if self.definitions.has_changed().unwrap_or(false) {
            let inputs = self.operator.inputs();
            let latest = self.definitions.borrow_and_update().clone();
            (self.apply)(&mut self.operator, latest)?;
            if self.operator.inputs() != inputs {
                // The runtime reads other columns only after a start; state is taken back then.
                return Err(StreamError::Operator("the new definitions read other columns: starting again".into()));
            }
        }
        self.operator.on_time(now)
    }

    fn take_output(&mut self) -> Output {
        self.operator.take_output()
    }

    fn snapshot(&mut self, kind: SnapshotKind) -> Result<Vec<StateBatch>, StreamError> {
        self.operator.snapshot(kind)
    }

    fn restore(&mut self, state: &[StateBatch]) -> Result<(), StreamError> {
        self.operator.restore(state)
    }

    fn stats(&self) -> OperatorStats {
        self.operator.stats()
    }
}
