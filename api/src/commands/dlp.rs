//! `companyos dlp scan`: every finding in a text, for anyone to judge the recognizers on their own data.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, ErrorKind},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use companyos_dlp::report::{Format, scan_lines};

/// Data loss prevention tools.
#[derive(Debug, Subcommand)]
pub enum DlpCommand {
    /// Print what the recognizers find in NDJSON {"text": …} or plain text, never the text itself
    Scan(ScanArgs),
}

/// What to scan.
#[derive(Debug, Args)]
pub struct ScanArgs {
    /// File to read; standard input if not given, or -
    file: Option<PathBuf>,
    /// One JSON object a finding instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs a DLP command.
pub async fn run(command: DlpCommand) -> Result<ExitCode> {
    let DlpCommand::Scan(args) = command;
    tokio::task::spawn_blocking(move || scan(&args)).await?
}

fn scan(args: &ScanArgs) -> Result<ExitCode> {
    let reader: Box<dyn BufRead> = match args.file.as_deref().filter(|path| path.as_os_str() != "-") {
        Some(path) => {
            Box::new(BufReader::new(File::open(path).with_context(|| format!("cannot read {}", path.display()))?))
        }
        None => Box::new(io::stdin().lock()),
    };
    let format = if args.json { Format::JsonLines } else { Format::Table };
    match scan_lines(reader, BufWriter::new(io::stdout().lock()), format) {
        Ok(summary) => {
            if !args.json {
                eprintln!("{} findings in {} lines", summary.findings, summary.lines);
            }
            Ok(ExitCode::SUCCESS)
        }
        // `… | head` has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error).context("scanning"),
    }
}
