//! The maintenance role.

use std::{collections::HashMap, sync::Arc};

use anyhow::Result;
use companyos_maintenance::{Maintainer, RegionStorage};
use companyos_pipelines::WorkerSetup;
use companyos_schemas::quarantine;
use companyos_sinks::storage::Storage;

use super::Context;

/// Runs every enabled task on its interval until told to stop.
pub async fn run(context: Context) -> Result<()> {
    let regions = RegionStorage::open_all(&context.config.tenancy)?;
    let maintainer = Maintainer::new(context.config.maintenance.clone(), regions)?;
    let storages = Arc::new(WorkerSetup::storages(&context.config.tenancy)?);
    context.readiness.add("maintain", move || storage_answers(storages.clone()));
    maintainer.run(context.shutdown.cancelled()).await;
    Ok(())
}

/// Whether every region's store answers. It need not hold any table yet.
pub async fn storage_answers(storages: Arc<HashMap<Arc<str>, Storage>>) -> Result<(), String> {
    for (region, storage) in storages.iter() {
        storage.table_exists(quarantine::TABLE).await.map_err(|e| format!("region {region}: {e}"))?;
    }
    Ok(())
}
