//! State tables that no view is read from any more, and putting them away.
//!
//! A reader may be at a table for as long as its query runs, and a registry that was looked at a
//! moment ago still names it: tables stay for a while after the registry let go of them. Names are
//! never used again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use companyos_sinks::storage::Storage;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};

use super::registry::{Generation, View};

/// Tables by the time the registry let go of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Retired(BTreeMap<String, DateTime<Utc>>);

impl Retired {
    pub fn add(&mut self, generation: &Generation, at: DateTime<Utc>) {
        self.0.insert(generation.table.clone(), at);
    }

    pub fn add_all(&mut self, view: &View, at: DateTime<Utc>) {
        for generation in view.current.iter().chain(&view.next) {
            self.add(generation, at);
        }
    }

    /// Those that were let go of at least so long ago.
    pub fn since(&self, keep: Duration) -> impl Iterator<Item = &str> {
        let keep = TimeDelta::from_std(keep).unwrap_or(TimeDelta::MAX);
        let before = Utc::now().checked_sub_signed(keep).unwrap_or(DateTime::UNIX_EPOCH);
        self.0.iter().filter(move |(_, at)| **at <= before).map(|(table, _)| table.as_str())
    }
}

/// Deletes retired tables of a region, each once.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    done: BTreeSet<String>,
}

impl Deletions {
    /// Deletes those that are not deleted yet. What fails is tried again the next time.
    pub async fn run(&mut self, storage: &Storage, tables: impl Iterator<Item = &str>) {
        for table in tables {
            if self.done.contains(table) {
                continue;
            }
            match delete(storage, table).await {
                Ok(objects) => {
                    if objects > 0 {
                        tracing::info!(table, objects, "state of a view that is gone was deleted");
                    }
                    self.done.insert(table.to_owned());
                }
                Err(error) => tracing::warn!(table, %error, "state of a view that is gone cannot be deleted yet"),
            }
        }
    }
}

async fn delete(storage: &Storage, table: &str) -> Result<usize, object_store::Error> {
    let store = storage.store();
    let found: Result<Vec<_>, _> =
        store.list(Some(&Path::from(table))).map_ok(|object| object.location).try_collect().await;
    let found = match found {
        // A local folder that is not there.
        Err(object_store::Error::NotFound { .. }) => return Ok(0),
        other => other?,
    };
    let objects = found.len();
    // The log goes last: without it what is left would not be known for a table's.
    let (log, files): (Vec<_>, Vec<_>) = found.into_iter().partition(|path| path.as_ref().contains("/_delta_log/"));
    for paths in [files, log] {
        futures::stream::iter(paths)
            .map(|path| {
                let store = store.clone();
                async move {
                    match store.delete(&path).await {
                        Err(object_store::Error::NotFound { .. }) => Ok(()),
                        other => other,
                    }
                }
            })
            .buffer_unordered(8)
            .try_collect::<()>()
            .await?;
    }
    Ok(objects)
}
