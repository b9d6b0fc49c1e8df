//! Log checkpoints: readers and writers open a table from the last one instead of replaying
//! every commit since the beginning.

use companyos_sinks::storage::Storage;
use deltalake::{DeltaTableError, protocol::checkpoints::create_checkpoint};
use object_store::{ObjectStoreExt, path::Path};
use serde::Deserialize;
use tracing::info;

use crate::{CheckpointConfig, MaintenanceError, PlaceKind, Work, live_table::LiveTable, rewrite::read_object};

/// Writes a checkpoint if enough commits follow the last one.
pub(crate) async fn run(
    storage: &Storage,
    place: (&str, PlaceKind),
    name: &str,
    config: &CheckpointConfig,
) -> Result<Work, MaintenanceError> {
    let gauge = |metric: &'static str, value: u64| {
        let (region, place) = (place.0.to_owned(), place.1.name());
        metrics::gauge!(metric, "table" => name.to_owned(), "region" => region, "place" => place).set(value as f64);
    };
    let fail = |e: DeltaTableError| MaintenanceError::delta(name, e);
    let log_store = storage.log_store(name);
    let last = last_checkpoint(storage, name).await?;
    let latest = match log_store.get_latest_version(last.unwrap_or(0)).await {
        Ok(version) => Some(version),
        // The hint is missing or points below the cleaned-up part of the log: replay decides.
        Err(DeltaTableError::InvalidVersion(_)) => None,
        Err(error) => return Err(fail(error)),
    };
    if let Some(latest) = latest {
        let since = latest.saturating_sub(last.unwrap_or(0));
        gauge("companyos_maintenance_commits_since_checkpoint", since);
        if since < config.every_commits {
            return Ok(Work { version: Some(latest), ..Default::default() });
        }
    }
    let Some(table) = LiveTable::open(storage, name).await? else { return Ok(Work::default()) };
    create_checkpoint(table.delta(), None).await.map_err(fail)?;
    info!(table = name, version = table.version, files = table.files.len(), "log checkpoint written");
    gauge("companyos_maintenance_commits_since_checkpoint", 0);
    gauge("companyos_maintenance_table_files", table.files.len() as u64);
    Ok(Work { files_added: 1, version: Some(table.version), ..Default::default() })
}

/// Version of the checkpoint that `_last_checkpoint` names.
pub(crate) async fn last_checkpoint(storage: &Storage, name: &str) -> Result<Option<u64>, MaintenanceError> {
    #[derive(Deserialize)]
    struct Hint {
        version: u64,
    }
    let store = storage.log_store(name).object_store(None);
    let path = Path::from("_delta_log/_last_checkpoint");
    match store.head(&path).await {
        Ok(_) => {}
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(source) => return Err(MaintenanceError::Object { path: path.to_string(), source }),
    }
    let hint = read_object(&store, &path).await?;
    // An unreadable hint is no hint: readers fall back to listing the log, and so do we.
    Ok(serde_json::from_slice::<Hint>(&hint).ok().map(|hint| hint.version))
}
