//! `companyos dimension`: tables that describe what events name, for views to join and queries to read.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Seek},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use clap::{Args, Subcommand};
use companyos_pipelines::{
    WorkerSetup,
    views::{LoadDimension, ViewRegistry},
};
use companyos_sinks::storage::Storage;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;

use crate::{cli::ConfigArgs, config::Config, telemetry};

/// What to do with dimensions.
#[derive(Debug, Subcommand)]
pub enum DimensionCommand {
    /// Load one from a file (.csv with a header, .ndjson or .parquet), in place of what it held
    Load(LoadArgs),
    /// List them
    List(ListArgs),
    /// Remove one that no view joins
    Drop(DropArgs),
}

/// What to load.
#[derive(Debug, Args)]
pub struct LoadArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Name in SQL
    name: String,
    /// Rows. A `tenant` column says whose each is; `env` and `region` limit it further
    file: PathBuf,
    /// Every tenant may see all rows; for files without a `tenant` column
    #[arg(long)]
    shared: bool,
}

/// How to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Which to drop.
#[derive(Debug, Args)]
pub struct DropArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Name
    name: String,
}

/// Runs the command.
pub async fn run(command: DimensionCommand) -> Result<ExitCode> {
    telemetry::log_warnings();
    match command {
        DimensionCommand::Load(args) => load(args).await?,
        DimensionCommand::List(args) => {
            let place = Place::open(&args.config).await?;
            list(&place.registry, args.json);
        }
        DimensionCommand::Drop(args) => {
            Place::open(&args.config).await?.registry.drop_dimension(&args.name).await?;
            println!("{}: dropped", args.name);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Where dimensions are kept.
pub(super) struct Place {
    pub home_region: String,
    pub storages: BTreeMap<String, Storage>,
    pub registry: ViewRegistry,
}

impl Place {
    async fn open(args: &ConfigArgs) -> Result<Self> {
        Self::of(&Config::load(args.config.as_deref())?).await
    }

    pub async fn of(config: &Config) -> Result<Self> {
        let storages = WorkerSetup::storages(&config.tenancy)?;
        let storages: BTreeMap<String, Storage> =
            storages.into_iter().map(|(name, storage)| (name.to_string(), storage)).collect();
        let home_region = config.tenancy.home_region.clone();
        let mut registry = ViewRegistry::new(storages.get(&home_region).context("the home region has no storage")?);
        registry.refresh().await?;
        Ok(Self { home_region, storages, registry })
    }
}

async fn load(args: LoadArgs) -> Result<()> {
    let rows = rows_of(&args.file).with_context(|| args.file.display().to_string())?;
    let mut place = Place::open(&args.config).await?;
    let load = LoadDimension {
        name: &args.name,
        rows: &rows,
        shared: args.shared,
        home_region: &place.home_region,
        storages: &place.storages,
    };
    let rows = load.run(&mut place.registry).await.with_context(|| args.file.display().to_string())?;
    println!("{}: {rows} rows", args.name);
    Ok(())
}

fn list(registry: &ViewRegistry, as_json: bool) {
    for (name, dimension) in registry.dimensions().iter() {
        let columns = dimension.schema.fields().iter();
        if as_json {
            let columns: Vec<_> =
                columns.map(|f| json!({"name": f.name(), "type": f.data_type().to_string()})).collect();
            let (rows, shared) = (dimension.rows, dimension.shared);
            println!("{}", json!({"name": name, "rows": rows, "shared": shared, "columns": columns}));
        } else {
            let columns: Vec<_> = columns.map(|f| f.name().as_str()).collect();
            let whose = if dimension.shared { "shared" } else { "by tenant" };
            println!("{name}: {} rows, {whose}, columns {}", dimension.rows, columns.join(", "));
        }
    }
}

/// Rows of a file, typed by what its values look like.
fn rows_of(path: &Path) -> Result<Vec<RecordBatch>> {
    let mut file = File::open(path)?;
    let rows = match path.extension().and_then(|e| e.to_str()) {
        Some("csv") => {
            let format = arrow::csv::reader::Format::default().with_header(true);
            let (schema, _) = format.infer_schema(&mut file, None)?;
            file.rewind()?;
            let reader = arrow::csv::ReaderBuilder::new(Arc::new(schema)).with_format(format).build(file)?;
            reader.collect::<Result<_, _>>()?
        }
        Some("ndjson" | "jsonl" | "json") => {
            let mut reader = BufReader::new(file);
            let (schema, _) = arrow::json::reader::infer_json_schema(&mut reader, None)?;
            reader.rewind()?;
            arrow::json::ReaderBuilder::new(Arc::new(schema)).build(reader)?.collect::<Result<_, _>>()?
        }
        Some("parquet") => ParquetRecordBatchReaderBuilder::try_new(file)?.build()?.collect::<Result<_, _>>()?,
        _ => bail!("the name must end in .csv, .ndjson or .parquet"),
    };
    Ok(rows)
}
