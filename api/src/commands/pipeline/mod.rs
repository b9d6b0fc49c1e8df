//! `companyos pipeline`: materialized views from SQL files, listed, shown, dropped, built anew.

mod replay;
mod show;

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use companyos_pipelines::{
    WorkerSetup,
    views::{RegistryError, View, ViewRegistry},
};
use companyos_views::{ViewPlan, ViewStatement, explain, parse_file};

use super::dimension::Place;
use crate::{cli::ConfigArgs, config::Config, telemetry};

/// What to do with views.
#[derive(Debug, Subcommand)]
pub enum PipelineCommand {
    /// Make or change the views of SQL files (CREATE and DROP MATERIALIZED VIEW)
    Apply(ApplyArgs),
    /// List the views and how far they are built
    List(ListArgs),
    /// Show one view: its statement, columns, and where its state stands
    Show(ShowArgs),
    /// Remove a view
    Drop(DropArgs),
    /// Build a view anew from the tables, beside the old one, which is read until then
    Backfill(NameArgs),
    /// Run an operator over the history again, and compare what comes out with what is stored
    Replay(replay::ReplayArgs),
    /// Print the partial and final plans of a view, or of the statements of a file
    Explain(ExplainArgs),
}

/// Files.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// SQL files
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Only check that the statements can be views
    #[arg(long)]
    check: bool,
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

/// Which to show.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// View
    name: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Which to drop.
#[derive(Debug, Args)]
pub struct DropArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// View
    name: String,
    /// A missing view is no error
    #[arg(long)]
    if_exists: bool,
}

/// Which view.
#[derive(Debug, Args)]
pub struct NameArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// View
    name: String,
}

/// What to explain.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// View, or a file whose name ends in .sql
    target: String,
}

/// Runs the command.
pub async fn run(command: PipelineCommand) -> Result<ExitCode> {
    telemetry::log_warnings();
    match command {
        PipelineCommand::Apply(args) => apply(args).await,
        PipelineCommand::List(args) => {
            let views = Views::open(&args.config).await?;
            show::list(views.registry.views(), args.json)
        }
        PipelineCommand::Show(args) => {
            let views = Views::open(&args.config).await?;
            let view = views.find(&args.name)?;
            show::one(&args.name, view, &WorkerSetup::storages(&views.config.tenancy)?, args.json).await
        }
        PipelineCommand::Drop(args) => {
            let mut views = Views::open(&args.config).await?;
            match views.registry.drop_view(&args.name).await {
                Ok(()) => println!("{}: dropped", args.name),
                Err(RegistryError::Unknown(_)) if args.if_exists => println!("{}: is not there", args.name),
                Err(error) => return Err(error.into()),
            }
            Ok(ExitCode::SUCCESS)
        }
        PipelineCommand::Backfill(args) => {
            let mut views = Views::open(&args.config).await?;
            let view = views.find(&args.name)?;
            let newest = view.next.as_ref().or(view.current.as_ref()).context("the view has no definition")?;
            let (sql, built_in) = (newest.sql.clone(), newest.built_in);
            let (regions, shards) = views.extent();
            views.registry.create(&sql, regions, shards, built_in, true).await?;
            println!("{}: will be built anew; `companyos pipeline show {}` tells how far it is", args.name, args.name);
            Ok(ExitCode::SUCCESS)
        }
        PipelineCommand::Replay(args) => replay::run(args).await,
        PipelineCommand::Explain(args) => explain_target(args).await,
    }
}

struct Views {
    config: Config,
    registry: ViewRegistry,
}

impl Views {
    async fn open(args: &ConfigArgs) -> Result<Self> {
        let config = Config::load(args.config.as_deref())?;
        let registry = Place::of(&config).await?.registry;
        Ok(Self { config, registry })
    }

    fn find(&self, name: &str) -> Result<&View> {
        self.registry.views().get(name).with_context(|| format!("there is no view {name:?}"))
    }

    /// Regions and shards a view is kept in.
    fn extent(&self) -> (BTreeSet<String>, u32) {
        (self.config.tenancy.regions.keys().cloned().collect(), self.config.tasks.shards)
    }
}

/// All statements are checked before the first is carried out.
async fn apply(args: ApplyArgs) -> Result<ExitCode> {
    let mut views = match Views::open(&args.config).await {
        Ok(views) => Some(views),
        // Statements without a dimension can be checked without the deployment.
        Err(_) if args.check => None,
        Err(error) => return Err(error),
    };
    let dimensions = views.as_ref().map(|v| v.registry.dimensions().clone()).unwrap_or_default();
    let mut statements = Vec::new();
    for file in &args.files {
        let place = || file.display().to_string();
        let text = std::fs::read_to_string(file).with_context(place)?;
        for statement in parse_file(&text).with_context(place)? {
            if let ViewStatement::Create { name, options, query, .. } = &statement {
                ViewPlan::new(name, query, options.clone(), &dimensions)
                    .with_context(|| format!("{}: view {name}", place()))?;
            }
            statements.push(statement);
        }
    }
    let Some(views) = views.as_mut().filter(|_| !args.check) else {
        println!("{} statements can be carried out", statements.len());
        return Ok(ExitCode::SUCCESS);
    };
    let (regions, shards) = views.extent();
    for statement in statements {
        match statement {
            ViewStatement::Create { name, sql, .. } => {
                let changed = views.registry.create(&sql, regions.clone(), shards, false, false).await?;
                println!("{name}: {}", if changed { "will be built" } else { "is the same already" });
            }
            ViewStatement::Drop { name, if_exists } => match views.registry.drop_view(&name).await {
                Ok(()) => println!("{name}: dropped"),
                Err(RegistryError::Unknown(_)) if if_exists => println!("{name}: is not there"),
                Err(error) => return Err(error.into()),
            },
            _ => bail!("a file to apply holds CREATE and DROP statements only"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn explain_target(args: ExplainArgs) -> Result<ExitCode> {
    if !args.target.ends_with(".sql") {
        let views = Views::open(&args.config).await?;
        let view = views.find(&args.target)?;
        let newest = view.next.as_ref().or(view.current.as_ref()).context("the view has no definition")?;
        println!("{}", explain(&newest.plan).await?);
        return Ok(ExitCode::SUCCESS);
    }
    let text = std::fs::read_to_string(&args.target).with_context(|| args.target.clone())?;
    let views = Views::open(&args.config).await.ok();
    let dimensions = views.map(|v| v.registry.dimensions().clone()).unwrap_or_default();
    for statement in parse_file(&text).with_context(|| args.target.clone())? {
        if let ViewStatement::Create { name, options, query, .. } = statement {
            println!("{}", explain(&ViewPlan::new(&name, &query, options, &dimensions)?).await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}
