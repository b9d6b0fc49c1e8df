//! `companyos detect`: judge rules, try them on events, run them over what is stored.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use chrono::Utc;
use clap::{Args, Subcommand};
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use companyos_detect::{DetectOperator, Finding, RuleBook, events::Defaults, testing};
use companyos_pipelines::WorkerSetup;
use companyos_schemas::{Stream, arrow_schema::table_schema};
use companyos_sinks::delta::{FileReader, table_files};
use companyos_stream::{ShardOperator, TailRows};
use serde_json::{Value, json};

use crate::{cli::ConfigArgs, config::Config, telemetry};

/// What to do with detection rules.
#[derive(Debug, Subcommand)]
pub enum DetectCommand {
    /// Say which Sigma rules of a file or folder load, why others do not, and which fields no schema has; 1 if any is
    /// refused, 2 if there is none
    Check(CheckArgs),
    /// Run rules over the events of a file (NDJSON, plain or gzip); 1 if nothing is found
    Test(TestArgs),
    /// Run rules over the stored events, through the operator that runs in production
    Backtest(BacktestArgs),
}

/// What to check.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Rule, folder of rules or rule set; the shipped rule set if none is given
    path: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// What to try on what.
#[derive(Debug, Args)]
pub struct TestArgs {
    /// Rule, folder of rules or rule set
    rule: PathBuf,
    /// Events: complete ones, or a vendor's records (CloudTrail, Okta, GitHub, Kubernetes, OpenSSH)
    #[arg(long, value_name = "FILE")]
    against: PathBuf,
    /// As JSON, one finding a line
    #[arg(long)]
    json: bool,
}

/// What to run over which history.
#[derive(Debug, Args)]
pub struct BacktestArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Rule, folder of rules or rule set
    rule: PathBuf,
    /// How far back
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30d")]
    since: Duration,
    /// Only this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// As JSON, one finding a line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn run(command: DetectCommand) -> Result<ExitCode> {
    telemetry::log_warnings();
    match command {
        DetectCommand::Check(args) => check(args),
        DetectCommand::Test(args) => {
            let book = Arc::new(RuleBook::load(&args.rule)?);
            refuse_broken(&book)?;
            let findings = testing::test_rules(book, events(&args.against)?, &Defaults::default())?;
            show(&findings, args.json)?;
            Ok(if findings.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        DetectCommand::Backtest(args) => backtest(args).await,
    }
}

/// 0 if everything loads, 1 if something is refused, 2 if there is nothing to check.
fn check(args: CheckArgs) -> Result<ExitCode> {
    let report = match &args.path {
        Some(path) => match testing::check(path) {
            Ok(report) => report,
            Err(error) => {
                eprintln!("companyos: {error}");
                return Ok(ExitCode::from(2));
            }
        },
        None => testing::Report::of(&companyos_pipelines::detections::shipped_rules()?),
    };
    if report.checked.is_empty() {
        let path = args.path.as_deref().unwrap_or(Path::new("")).display();
        eprintln!("companyos: {path}: there is no rule in it");
        return Ok(ExitCode::from(2));
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&check_json(&report))?);
    } else {
        print_check(&report);
    }
    Ok(if report.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check_json(report: &testing::Report) -> Value {
    let rules = report.rules.iter().map(|r| {
        json!({"id": r.id, "title": r.title, "version": r.version, "severity": r.severity.as_str(),
               "tactics": r.tactics(), "techniques": r.techniques()})
    });
    let refused = report.checked.iter().filter(|e| e.refused.is_some()).map(
        |e| json!({"file": e.file, "line": e.line, "kind": e.kind, "id": e.id, "title": e.title, "reason": e.refused}),
    );
    let documents = report.checked.iter().filter(|e| e.refused.is_none()).map(|e| {
        json!({"file": e.file, "line": e.line, "kind": e.kind, "id": e.id, "title": e.title,
               "warnings": e.warnings, "fields": e.fields, "unknown_fields": e.unknown_fields})
    });
    json!({"loaded": rules.collect::<Vec<_>>(), "refused": refused.collect::<Vec<_>>(),
           "documents": documents.collect::<Vec<_>>(), "unknown_fields": unknown_fields(report)})
}

fn print_check(report: &testing::Report) {
    let refused: Vec<_> = report.checked.iter().filter(|e| e.refused.is_some()).collect();
    if !refused.is_empty() {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED).set_header(["where", "rule", "refused because"]);
        for e in &refused {
            let line = e.line.map(|line| format!(":{line}")).unwrap_or_default();
            let rule = e.title.as_ref().or(e.id.as_ref()).cloned().unwrap_or_default();
            table.add_row([format!("{}{line}", e.file), rule, e.refused.clone().unwrap_or_default()]);
        }
        println!("{table}");
    }
    for e in &report.checked {
        for warning in &e.warnings {
            println!("{}: ignored: {warning}", e.file);
        }
    }
    let unknown = unknown_fields(report);
    if !unknown.is_empty() {
        let mut table = Table::new();
        table.load_preset(UTF8_FULL_CONDENSED).set_header(["field that no schema has", "rules", "such as"]);
        for (field, rules) in &unknown {
            table.add_row([field.clone(), rules.len().to_string(), rules.first().cloned().unwrap_or_default()]);
        }
        println!("{table}");
    }
    let loaded = report.checked.len() - refused.len();
    println!("{loaded} documents loaded, {} refused; {} fields that no schema has", refused.len(), unknown.len());
}

/// Fields that no event of the rules' log sources is known to have, and where the rules that ask for them stand.
fn unknown_fields(report: &testing::Report) -> BTreeMap<String, Vec<String>> {
    let mut unknown: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in &report.checked {
        for field in &entry.unknown_fields {
            let line = entry.line.map(|line| format!(":{line}")).unwrap_or_default();
            unknown.entry(field.clone()).or_default().push(format!("{}{line}", entry.file));
        }
    }
    unknown
}

fn refuse_broken(book: &RuleBook) -> Result<()> {
    let broken: Vec<String> = book.refused().iter().map(ToString::to_string).collect();
    match broken.is_empty() {
        true => Ok(()),
        false => bail!("{}", broken.join("\n")),
    }
}

/// The events of an NDJSON file, gzip or plain.
fn events(path: &Path) -> Result<Vec<Value>> {
    let place = || path.display().to_string();
    let file = std::fs::File::open(path).with_context(place)?;
    let reader: Box<dyn Read> = match path.extension().is_some_and(|e| e == "gz") {
        true => Box::new(flate2::read::MultiGzDecoder::new(file)),
        false => Box::new(file),
    };
    let mut events = Vec::new();
    for (number, line) in BufReader::new(reader).lines().enumerate() {
        let line = line.with_context(place)?;
        if !line.trim().is_empty() {
            let event = serde_json::from_str(&line);
            events.push(event.with_context(|| format!("{}, line {}", path.display(), number + 1))?);
        }
    }
    Ok(events)
}

async fn backtest(args: BacktestArgs) -> Result<ExitCode> {
    let config = Config::load(args.config.config.as_deref())?;
    let book = Arc::new(RuleBook::load(&args.rule)?);
    refuse_broken(&book)?;
    let since = Utc::now() - chrono::TimeDelta::from_std(args.since)?;
    let first_day = since.date_naive().to_string();
    let mut findings = Vec::new();
    let mut rows = 0;
    for storage in WorkerSetup::storages(&config.tenancy)?.values() {
        let mut operator = DetectOperator::new(book.clone())?;
        for stream in [Stream::AuditEvents, Stream::OpsEvents, Stream::SecuritySignals] {
            let Some(mut table) = table_files(storage, stream.name(), None).await? else { continue };
            let value = |add: &companyos_sinks::delta::Add, name: &str| {
                add.partition_values.get(name).cloned().flatten().unwrap_or_default()
            };
            table.files.retain(|add| {
                value(add, "day") >= first_day && args.tenant.as_ref().is_none_or(|t| value(add, "tenant") == *t)
            });
            // In the order they were written, as the operator met them live.
            table.files.sort_by_key(|add| (value(add, "day"), add.modification_time));
            let reader = FileReader::new(storage, stream.name(), table_schema(stream));
            for add in &table.files {
                let mut batches = Vec::new();
                reader
                    .read(add, |batch| {
                        batches.push(batch);
                        Ok(())
                    })
                    .await?;
                for batch in &batches {
                    rows += batch.num_rows();
                    let committed_at =
                        chrono::DateTime::from_timestamp_millis(add.modification_time).unwrap_or_default();
                    operator.on_rows(&TailRows { stream, version: table.version, committed_at, batch })?;
                    operator.on_time(committed_at)?;
                }
                findings.append(&mut operator.take_findings());
            }
        }
    }
    show(&findings, args.json)?;
    if !args.json {
        println!("{rows} events looked at, {} findings", findings.len());
    }
    Ok(ExitCode::SUCCESS)
}

/// Findings for people or for scripts.
pub fn show(findings: &[Finding], as_json: bool) -> Result<()> {
    if as_json {
        for finding in findings {
            println!("{}", serde_json::to_string(finding)?);
        }
        return Ok(());
    }
    if findings.is_empty() {
        println!("nothing was found");
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(["when", "severity", "rule", "entity", "evidence", "status"]);
    for finding in findings {
        let when = chrono::DateTime::from_timestamp_micros(finding.occurred_at).unwrap_or_default();
        table.add_row([
            when.format("%F %T").to_string(),
            finding.severity.as_str().to_owned(),
            finding.rule_title.clone(),
            format!("{} {}", finding.entity_type, finding.entity),
            format!("{} events", finding.evidence.len()),
            finding.status().to_owned(),
        ]);
    }
    println!("{table}");
    Ok(())
}
