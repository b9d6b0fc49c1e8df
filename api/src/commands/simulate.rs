//! `companyos simulate attack`: a scenario's events through Kafka, and what is found in them.

use std::{
    collections::BTreeSet,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use arrow::array::AsArray;
use chrono::Utc;
use clap::{Args, Subcommand};
use companyos_detect::{events::Defaults, scenario::Scenario};
use companyos_pipelines::detections::{shipped_scenario, shipped_scenarios};
use companyos_schemas::access::Scope;
use companyos_sinks::kafka::{KafkaSink, OutgoingRecord};
use futures::TryStreamExt;
use serde_json::json;

use super::sql::Source;
use crate::{cli::ConfigArgs, config::Config, telemetry};

/// What to simulate.
#[derive(Debug, Subcommand)]
pub enum SimulateCommand {
    /// Send an attack's events and wait for what must be found; 1 if something is not
    Attack(AttackArgs),
}

/// Which attack, on whom.
#[derive(Debug, Args)]
pub struct AttackArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Name of a shipped scenario, or a file; names are listed if there is none such
    scenario: String,
    /// Tenant to attack
    #[arg(long)]
    tenant: String,
    /// Environment
    #[arg(long, default_value = "prod")]
    env: String,
    /// Region; the tenant's first if none is given
    #[arg(long)]
    region: Option<String>,
    /// How long to wait for the findings
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30s")]
    wait: Duration,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn run(command: SimulateCommand) -> Result<ExitCode> {
    telemetry::log_warnings();
    let SimulateCommand::Attack(args) = command;
    let config = Config::load(args.config.config.as_deref())?;
    let scenario = find(&args.scenario)?;
    let tenant = config.tenancy.tenants.get(&args.tenant).with_context(|| format!("no tenant {:?}", args.tenant))?;
    let region = match &args.region {
        Some(region) => region.clone(),
        None => tenant.regions.iter().next().cloned().context("the tenant has no region")?,
    };
    let run = uuid::Uuid::now_v7().simple().to_string();
    let run = &run[run.len() - 10..];
    let now = Utc::now();
    let mut defaults =
        Defaults { tenant: args.tenant.clone(), env: args.env.clone(), region, start: now, ..Defaults::default() };
    // The last of the events happens now.
    let length = scenario.render(&defaults, run)?.iter().filter_map(|(_, event)| time_of(event)).max();
    defaults.start = now - (length.unwrap_or(now) - now);
    let events = scenario.render(&defaults, run)?;
    let sink = KafkaSink::new(&config.kafka.brokers, &config.kafka.settings)?;
    let started = Instant::now();
    let mut ids = BTreeSet::new();
    for (stream, event) in &events {
        let id = event.get("event_id").and_then(|id| id.as_str()).unwrap_or_default();
        ids.insert(id.to_owned());
        let record = OutgoingRecord {
            key: format!("{}/{id}", args.tenant),
            payload: serde_json::to_vec(event)?,
            headers: Vec::new(),
        };
        sink.send_all(stream.name(), vec![record]).await?;
    }
    let scope = Scope { tenant: args.tenant.clone(), envs: None, regions: None };
    let source = Source::storage(&config, scope)?;
    let missing = loop {
        let found = found(&source, &format!("sim-{run}-")).await?;
        let missing: Vec<String> = scenario.expect.iter().filter(|rule| !found.contains(*rule)).cloned().collect();
        if missing.is_empty() || started.elapsed() > args.wait {
            break missing;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        let report = json!({
            "scenario": args.scenario, "run": run, "events": events.len(), "expected": scenario.expect,
            "missing": missing, "seconds": seconds,
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}: {} events sent", scenario.title, events.len());
        for rule in &scenario.expect {
            println!("  {} {rule}", if missing.contains(rule) { "MISSED" } else { "found " });
        }
        println!("{} of {} found after {seconds:.1} s", scenario.expect.len() - missing.len(), scenario.expect.len());
    }
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn time_of(event: &serde_json::Value) -> Option<chrono::DateTime<Utc>> {
    event.get("occurred_at")?.as_str()?.parse().ok()
}

fn find(name: &str) -> Result<Scenario> {
    if Path::new(name).is_file() {
        return Ok(Scenario::load(Path::new(name))?);
    }
    match shipped_scenario(name) {
        Some(scenario) => Ok(scenario.with_context(|| name.to_owned())?),
        None => bail!("no scenario {name:?}; there are: {}", shipped_scenarios().join(", ")),
    }
}

/// Rules with findings whose evidence is of this run.
async fn found(source: &Source, prefix: &str) -> Result<BTreeSet<String>> {
    let sql = format!("SELECT DISTINCT rule_id FROM detections WHERE evidence LIKE '%{prefix}%'");
    let batches: Vec<_> = source.ask(&sql).await?.batches.try_collect().await?;
    let mut rules = BTreeSet::new();
    for batch in &batches {
        if let Some(column) = batch.column(0).as_string_opt::<i32>() {
            rules.extend(column.iter().flatten().map(str::to_owned));
        }
    }
    Ok(rules)
}
