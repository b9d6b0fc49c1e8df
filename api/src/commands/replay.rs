//! `companyos replay`: a file's rows as events into a topic.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Args;
use companyos_source_replay::{Outcome, ReplayOptions, Speed, replay};

use crate::{cli::ConfigArgs, config::Config, shutdown, telemetry};

/// What to replay, and how.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// NDJSON, CSV, Parquet or log file; .gz and .zst are unpacked
    file: PathBuf,
    /// YAML map from the file's rows to events
    #[arg(long)]
    map: PathBuf,
    /// Topic to send to; the name of the map's stream if not given
    #[arg(long)]
    topic: Option<String>,
    /// Kafka brokers; those of the configuration if not given
    #[arg(long)]
    brokers: Option<String>,
    /// "max", or how many times faster than the events' own times
    #[arg(long, default_value = "max")]
    speed: Speed,
    /// With a speed, cut longer pauses in the data to this
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    max_pause: Option<Duration>,
    /// Go on after the last acknowledged row of an earlier run
    #[arg(long)]
    resume: bool,
    /// Stop at the first row that the map does not fit, instead of sending it as it is
    #[arg(long)]
    strict: bool,
    /// Count rows that are too large, instead of stopping at the first
    #[arg(long)]
    skip_oversized: bool,
    /// Stop after so many rows
    #[arg(long)]
    limit: Option<u64>,
    /// Folder for the checkpoint; beside the file if not given
    #[arg(long)]
    state_dir: Option<PathBuf>,
    /// No progress bar
    #[arg(long)]
    quiet: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// Replays the file. Ends with 0 when all that was asked for is in Kafka, 130 when interrupted.
pub async fn run(args: ReplayArgs) -> Result<ExitCode> {
    telemetry::log_warnings();
    let config = Config::load(args.config.config.as_deref())?;
    let brokers = args.brokers.unwrap_or_else(|| config.kafka.brokers.clone());
    let options = ReplayOptions {
        topic: args.topic,
        kafka: config.kafka.settings.clone(),
        speed: args.speed,
        max_pause: args.max_pause,
        resume: args.resume,
        strict: args.strict,
        skip_oversized: args.skip_oversized,
        limit: args.limit,
        state_dir: args.state_dir,
        progress: !args.quiet,
        ..ReplayOptions::new(args.file, args.map, brokers)
    };
    let summary = replay(options, shutdown::on_signals()?).await?;
    match args.json {
        true => println!("{}", serde_json::to_string(&summary)?),
        false => println!("{summary}"),
    }
    Ok(match summary.outcome {
        Outcome::Interrupted => ExitCode::from(130),
        Outcome::Complete | Outcome::LimitReached => ExitCode::SUCCESS,
        Outcome::Failed => ExitCode::FAILURE,
    })
}
