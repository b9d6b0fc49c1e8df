//! `companyos erase`: a person's rows out of every table and, with them, out of every view.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Args;
use companyos_maintenance::{Erased, announce_erasure, erase, person_columns};
use companyos_pipelines::views::erase_from_dimensions;
use companyos_sinks::storage::Storage;
use serde_json::json;

use super::dimension::Place;
use crate::{cli::ConfigArgs, config::Config, telemetry};

/// Whom to erase.
#[derive(Debug, Args)]
pub struct EraseArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Tenant
    #[arg(long)]
    tenant: String,
    /// User, as the tables hold it (`user_id`, `actor`)
    #[arg(long)]
    user: String,
    /// As JSON, one object a table
    #[arg(long)]
    json: bool,
}

/// Erases, table by table; 1 if one could not be rewritten.
pub async fn run(args: EraseArgs) -> Result<ExitCode> {
    telemetry::log_warnings();
    let config = Config::load(args.config.config.as_deref())?;
    ensure!(config.tenancy.tenants.contains_key(&args.tenant), "no tenant {:?}", args.tenant);
    let mut failed = false;
    for (name, region) in &config.tenancy.regions {
        let hot = Storage::for_region(region)?;
        let archive = Storage::archive_of(region)?;
        for (table, column) in person_columns() {
            let mut archived = 0;
            // The archive first: what is made of both tables looks at them after the hot one changed.
            for (place, storage) in archive.iter().map(|storage| ("archive", storage)).chain([("hot", &hot)]) {
                let mut done = erase(storage, table, &args.tenant, column, &args.user).await;
                if let Ok(Erased { version: None, .. }) = done
                    && place == "hot"
                    && archived > 0
                {
                    let announced = announce_erasure(storage, table, &args.tenant).await;
                    done = announced.map(|version| Erased { version, ..Erased::default() });
                }
                let done = match done {
                    Ok(done) => done,
                    Err(error) => {
                        eprintln!("companyos: {name} {place} {table}: {error}");
                        failed = true;
                        continue;
                    }
                };
                archived += done.rows;
                if args.json {
                    println!("{}", json!({"region": name, "place": place, "table": table, "erased": done}));
                } else if let (Some(version), 1..) = (done.version, done.rows) {
                    let (rows, files) = (done.rows, done.files);
                    println!("{name} {place} {table}: {rows} rows of {files} files erased, version {version}");
                }
            }
        }
    }
    let mut place = Place::of(&config).await?;
    let (home, storages) = (place.home_region.clone(), place.storages.clone());
    for (name, rows) in erase_from_dimensions(&mut place.registry, &home, &storages, &args.tenant, &args.user).await? {
        match args.json {
            true => println!("{}", json!({"dimension": name, "erased": {"rows": rows}})),
            false => println!("dimension {name}: {rows} rows erased"),
        }
    }
    if !args.json {
        println!(
            "views follow within seconds; old files go with vacuum, {} after today",
            humantime::format_duration(config.maintenance.vacuum.retention)
        );
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
