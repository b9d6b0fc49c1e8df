//! `companyos schemas`: the published contracts, and whether a new version may replace an old one.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Subcommand;
use companyos_schemas::{Stream, evolution, json_schema::json_schema};
use serde_json::Value;

/// Schema tools.
#[derive(Debug, Subcommand)]
pub enum SchemasCommand {
    /// Say whether the JSON Schema NEW may replace OLD; ends with 1 and the reasons if not
    Check {
        /// The published schema
        old: PathBuf,
        /// Its successor
        new: PathBuf,
    },
    /// Print the JSON Schema of a stream, or of all as one object
    Print {
        /// Name of the stream, such as product_events
        stream: Option<Stream>,
    },
}

/// Runs a schema command.
pub fn run(command: SchemasCommand) -> Result<ExitCode> {
    match command {
        SchemasCommand::Check { old, new } => check(&old, &new),
        SchemasCommand::Print { stream } => print(stream),
    }
}

fn check(old: &Path, new: &Path) -> Result<ExitCode> {
    let found = evolution::check(&read(old)?, &read(new)?)?;
    if found.is_empty() {
        println!("compatible: {} may replace {}", new.display(), old.display());
        return Ok(ExitCode::SUCCESS);
    }
    println!("incompatible: {} may not replace {}", new.display(), old.display());
    for problem in found {
        println!("  {problem}");
    }
    Ok(ExitCode::FAILURE)
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

fn print(stream: Option<Stream>) -> Result<ExitCode> {
    let schema = match stream {
        Some(stream) => json_schema(stream),
        None => Value::Object(Stream::ALL.into_iter().map(|s| (s.name().to_owned(), json_schema(s))).collect()),
    };
    println!("{}", serde_json::to_string_pretty(&schema)?);
    Ok(ExitCode::SUCCESS)
}
