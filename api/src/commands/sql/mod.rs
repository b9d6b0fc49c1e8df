//! `companyos sql`: one statement, or a prompt, against a running server or the storage itself.

mod output;
mod prompt;
mod source;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use companyos_schemas::access::Scope;

use crate::{cli::ConfigArgs, config::Config, telemetry};
use output::Output;
pub use source::Source;

/// What to ask, whom, and how to show the answer.
#[derive(Debug, Args)]
pub struct SqlArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The statement; a prompt with history if none is given
    #[arg(allow_hyphen_values = true)]
    query: Option<String>,
    /// File with the statement
    #[arg(long, short, conflicts_with = "query", value_name = "SQL FILE")]
    file: Option<PathBuf>,
    /// How the answer is written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// File to write it to
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// Query server, such as http://127.0.0.1:8082; needs a token
    #[arg(long, env = "COMPANYOS_URL", conflicts_with = "tenant")]
    url: Option<String>,
    /// Access token with the query permission
    #[arg(long, env = "COMPANYOS_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Read the configuration's storage directly, as this tenant: for operators, without a server
    #[arg(long)]
    tenant: Option<String>,
    /// With --tenant, only this environment; repeatable
    #[arg(long = "env", requires = "tenant")]
    envs: Vec<String>,
    /// With --tenant, only this region; repeatable
    #[arg(long = "region", requires = "tenant")]
    regions: Vec<String>,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// An array of objects
    Json,
    /// With a header line
    Csv,
    /// A file, so it needs --output or a pipe
    Parquet,
}

/// Runs the statement, or the prompt.
pub async fn run(args: SqlArgs) -> Result<ExitCode> {
    telemetry::log_warnings();
    let source = source(&args)?;
    let from_file = match &args.file {
        Some(file) => Some(std::fs::read_to_string(file).with_context(|| file.display().to_string())?),
        None => None,
    };
    let Some(query) = args.query.as_ref().or(from_file.as_ref()) else {
        if args.output.is_some() || args.format == Format::Parquet {
            bail!("--output and --format parquet need a query");
        }
        return prompt::run(source, args.format).await;
    };
    let output = Output::new(args.format, args.output.as_deref())?;
    let answer = source.ask(query).await?;
    output.write(answer).await?;
    Ok(ExitCode::SUCCESS)
}

fn source(args: &SqlArgs) -> Result<Source> {
    if let Some(tenant) = &args.tenant {
        let some = |names: &[String]| (!names.is_empty()).then(|| names.iter().cloned().collect());
        let scope = Scope { tenant: tenant.clone(), envs: some(&args.envs), regions: some(&args.regions) };
        return Source::storage(&Config::load(args.config.config.as_deref())?, scope);
    }
    let url = match &args.url {
        Some(url) => url.clone(),
        None => format!("http://{}", Config::load(args.config.config.as_deref())?.query.listen),
    };
    match &args.token {
        Some(token) => Ok(Source::server(url, token.clone())),
        None => bail!("give --token (or COMPANYOS_TOKEN) for the server at {url}, or --tenant to read the storage"),
    }
}
