//! Purge: rows are deleted from the table, and with the next vacuum from the store.
//!
//! A rewrite that raced a compaction could double or revive rows, so the deletion is committed only
//! on the very version it was planned on, and planned anew otherwise.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use companyos_schemas::quarantine;
use companyos_sinks::storage::Storage;
use deltalake::{
    DeltaTableError,
    datafusion::prelude::{col, lit},
    kernel::transaction::{CommitProperties, TransactionError},
};

use super::{
    ActArgs,
    actions::{self, Deed, Verb},
    rows::{self, Filter, Row},
};
use crate::config::Config;

/// Live ingestion commits about once a second; a plan takes less than that on most tables.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);
/// Most ids in one deletion's predicate.
const CHUNK: usize = 500;

/// Purges the selected rows.
pub async fn purge(config: &Config, filter: &Filter, act: &ActArgs) -> Result<ExitCode> {
    let rows = rows::read(config, filter, None).await?;
    if act.dry_run {
        rows.iter().for_each(|row| println!("would purge {}", row.id));
        println!("{} would be purged", rows.len());
        return Ok(ExitCode::SUCCESS);
    }
    let deed = Deed { verb: Verb::Purge, actor: act.actor(), why: act.why.clone() };
    for (region, storage) in rows::regions(config)? {
        let here: Vec<&Row> = rows.iter().filter(|row| row.region == region).collect();
        for chunk in here.chunks(CHUNK) {
            // Recorded first: a deletion nobody knows of would be worse than a record of one that
            // a second run completes.
            actions::record(&storage, &deed, chunk).await?;
            delete(&storage, chunk).await.with_context(|| format!("region {region}"))?;
        }
    }
    println!("{} purged; the files they were in go with the next vacuum past its retention", rows.len());
    Ok(ExitCode::SUCCESS)
}

async fn delete(storage: &Storage, rows: &[&Row]) -> Result<()> {
    let ids = rows.iter().map(|row| lit(row.id.as_str())).collect::<Vec<_>>();
    for _ in 0..ATTEMPTS {
        let Some(table) = storage.load_table(quarantine::TABLE).await? else { return Ok(()) };
        let only_as_planned = CommitProperties::default().with_max_retries(0).with_create_checkpoint(false);
        let deleted = table
            .delete()
            .with_predicate(col("quarantine_id").in_list(ids.clone(), false))
            .with_commit_properties(only_as_planned)
            .await;
        match deleted {
            Ok(_) => return Ok(()),
            Err(DeltaTableError::Transaction { source }) if is_race(&source) => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("the table changed under every one of {ATTEMPTS} attempts; try again when less is written")
}

fn is_race(error: &TransactionError) -> bool {
    matches!(
        error,
        TransactionError::MaxCommitAttempts(_)
            | TransactionError::VersionAlreadyExists(_)
            | TransactionError::CommitConflict(_)
    )
}
