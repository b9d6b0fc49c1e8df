//! `companyos config check`.

use std::process::ExitCode;

use anyhow::Result;

use crate::{cli::ConfigArgs, config::Config};

/// Says what a process started with this configuration would see.
pub fn check(args: &ConfigArgs) -> Result<ExitCode> {
    let config = Config::load(args.config.as_deref())?;
    println!("the configuration can be used");
    println!("  kafka      {}", config.kafka.brokers);
    for (name, region) in &config.tenancy.regions {
        let home = if *name == config.tenancy.home_region { " (home)" } else { "" };
        println!("  region     {name}{home}: {}", region.storage);
    }
    for (name, tenant) in &config.tenancy.tenants {
        let list = |set: &std::collections::BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
        println!("  tenant     {name}: environments {}; regions {}", list(&tenant.environments), list(&tenant.regions));
    }
    println!("  tokens     {}", config.access.tokens.len());
    let sealed = if config.quarantine.sealer()?.is_some() { "sealed originals" } else { "no originals (no key)" };
    println!("  quarantine {sealed}");
    Ok(ExitCode::SUCCESS)
}
