//! What the tables hold, read the way any Delta reader would.

use std::collections::HashMap;

use anyhow::{Context, Result};
use companyos_schemas::{quarantine, tenancy::Tenancy};
use companyos_sinks::storage::Storage;
use deltalake::{
    arrow::{array::AsArray, datatypes::DataType},
    datafusion::prelude::{SessionContext, cast, col},
};

/// The tables of all regions.
pub(crate) struct Tables {
    storages: Vec<Storage>,
}

impl Tables {
    pub(crate) fn open(tenancy: &Tenancy) -> Result<Self> {
        let storages = tenancy.regions.values().map(Storage::for_region).collect::<Result<_, _>>()?;
        Ok(Self { storages })
    }

    /// Rows by the log alone: events, quarantined events. Cheap enough to poll.
    pub(crate) async fn counts(&self) -> Result<(usize, usize)> {
        let mut counts = (0, 0);
        for storage in &self.storages {
            counts.0 += rows_in_log(storage, "product_events").await?;
            counts.1 += rows_in_log(storage, quarantine::TABLE).await?;
        }
        Ok(counts)
    }

    /// How often each id is in the events table (or, if `quarantined`, in the quarantine).
    pub(crate) async fn ids(&self, quarantined: bool) -> Result<HashMap<String, usize>> {
        let table = if quarantined { quarantine::TABLE } else { "product_events" };
        let mut ids = HashMap::new();
        for storage in &self.storages {
            let Some(delta) = storage.load_table(table).await? else { continue };
            let frame = SessionContext::new()
                .read_table(delta.table_provider().await?)?
                .select([cast(col("event_id"), DataType::Utf8)])?;
            for batch in frame.collect().await? {
                for id in batch.column(0).as_string::<i32>() {
                    *ids.entry(id.context("a row without an event_id")?.to_owned()).or_default() += 1;
                }
            }
        }
        Ok(ids)
    }
}

async fn rows_in_log(storage: &Storage, table: &str) -> Result<usize> {
    let Some(delta) = storage.load_table(table).await? else { return Ok(0) };
    let mut rows = 0;
    for file in delta.snapshot()?.log_data() {
        rows += file.num_records().context("a file without statistics")?;
    }
    Ok(rows)
}
