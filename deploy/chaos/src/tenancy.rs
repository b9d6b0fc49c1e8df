//! The tenants and regions of a run, the same for the harness and its workers.

use std::path::Path;

use anyhow::{Context, Result};
use companyos_schemas::tenancy::Tenancy;

/// Two regions in folders below `data`; alpha may use both, beta only one.
pub(crate) fn tenancy(data: &Path) -> Result<Tenancy> {
    let root = |name: &str| {
        url::Url::from_directory_path(data.join(name)).ok().context("the data folder must be an absolute path")
    };
    let tenancy: Tenancy = serde_json::from_value(serde_json::json!({
        "home_region": "eu",
        "regions": { "eu": { "storage": root("eu")? }, "us": { "storage": root("us")? } },
        "tenants": {
            "alpha": { "environments": ["prod"], "regions": ["eu", "us"] },
            "beta": { "environments": ["prod"], "regions": ["us"] },
        },
    }))?;
    tenancy.validate()?;
    Ok(tenancy)
}
