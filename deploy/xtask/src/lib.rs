//! Tasks of this repository: a real Kafka to test against, the layer check, the one test command.
//!
//! `cargo xtask` runs them; tests of other crates use [`kafka::KafkaCluster`] directly.

pub mod checks;
pub mod kafka;
pub mod layers;

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Where things are kept that cost a download: `$COMPANYOS_CACHE`, else `companyos` in the user's cache folder.
pub fn cache_dir() -> Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("COMPANYOS_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("companyos")))
        .or_else(|| Some(set("HOME")?.join(".cache/companyos")))
        .context("no cache folder: set COMPANYOS_CACHE or HOME")
}
