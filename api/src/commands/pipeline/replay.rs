//! `companyos pipeline replay`: an operator over the tables' history again, and whether it puts out
//! what is stored.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use arrow::array::{Array, AsArray, RecordBatch};
use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use companyos_detect::DetectOperator;
use companyos_pipelines::{
    WorkerSetup,
    detections::load_rules,
    slo::load_slos,
    tasks::{Replay, Replayed},
};
use companyos_sinks::{
    delta::{FileReader, table_files},
    storage::Storage,
};
use companyos_slo::SloOperator;
use companyos_stream::{Output, OutputTable, ShardOperator};
use serde_json::json;

use crate::{cli::ConfigArgs, config::Config};

/// What to replay.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Operator
    #[arg(value_enum)]
    operator: Operator,
    /// Commits from then on: a time such as 2026-11-20T08:00:00Z, or how long ago, such as 2h
    #[arg(long, value_parser = moment)]
    from: DateTime<Utc>,
    /// Commits before then; now unless given
    #[arg(long, value_parser = moment)]
    until: Option<DateTime<Utc>>,
    /// Only this tenant
    #[arg(long)]
    tenant: Option<String>,
    /// Folder for what comes out: one NDJSON file a table
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Say whether the stored tables hold the same since `--from`; 1 if they do not
    #[arg(long)]
    compare: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Operators whose history can be replayed. Views are made anew by `backfill`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Operator {
    /// Security detections
    Detect,
    /// SLO burn rates and alerts
    Slo,
}

/// Tables that can be compared, and what tells their rows apart and when they came to be.
const COMPARED: [(&str, &[&str], &str); 2] =
    [("detections", &["finding_id"], "detected_at"), ("slo_alerts", &["alert_id", "state"], "at")];

fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return chrono::TimeDelta::from_std(ago).map(|ago| Utc::now() - ago).map_err(|e| e.to_string());
    }
    text.parse().map_err(|e| format!("neither a time nor a duration: {e}"))
}

/// Replays every region.
pub async fn run(args: ReplayArgs) -> Result<ExitCode> {
    let config = Config::load(args.config.config.as_deref())?;
    let replay = Replay { from: args.from, until: args.until.unwrap_or_else(Utc::now), tenant: args.tenant.clone() };
    let mut total = Replayed::default();
    let mut rows: BTreeMap<&'static str, Vec<RecordBatch>> = BTreeMap::new();
    let mut notices = 0;
    let storages: BTreeMap<_, _> = WorkerSetup::storages(&config.tenancy)?.into_iter().collect();
    for storage in storages.values() {
        let mut operator = make(args.operator, &config)?;
        let put = |output: Output| {
            notices += output.notices.len();
            for (OutputTable { name, .. }, batch) in output.rows {
                rows.entry(name).or_default().push(batch);
            }
        };
        let done = replay.run(operator.as_mut(), storage, put).await?;
        total.commits += done.commits;
        total.rows += done.rows;
    }
    if let Some(dir) = &args.out {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        for (table, batches) in &rows {
            write(&dir.join(format!("{table}.ndjson")), batches)?;
        }
    }
    let counts: BTreeMap<_, usize> =
        rows.iter().map(|(table, batches)| (*table, batches.iter().map(RecordBatch::num_rows).sum())).collect();
    let mut differences = BTreeMap::new();
    if args.compare {
        for (table, keys, time) in COMPARED {
            if counts.contains_key(table) || matches!((args.operator, table), (Operator::Detect, "detections")) {
                let ours = keys_of(rows.get(table).map_or(&[], Vec::as_slice), keys, None, &args);
                let mut stored = BTreeSet::new();
                for storage in storages.values() {
                    stored.extend(stored_keys(storage, table, keys, time, &args).await?);
                }
                differences.insert(table, Difference::between(&ours, &stored));
            }
        }
    }
    let same = differences.values().all(|d| d.only_replayed.is_empty() && d.only_stored.is_empty());
    if args.json {
        let found: BTreeMap<_, _> = differences.iter().map(|(table, d)| (table, d.summary())).collect();
        let replayed = json!({"commits": total.commits, "rows": total.rows});
        println!("{}", json!({"replayed": replayed, "rows": counts, "notices": notices, "compared": found}));
    } else {
        println!("{} rows of {} commits replayed", total.rows, total.commits);
        for (table, count) in &counts {
            println!("{table}: {count} rows");
        }
        for (table, difference) in &differences {
            println!("{table}: {difference}");
        }
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn make(operator: Operator, config: &Config) -> Result<Box<dyn ShardOperator>> {
    Ok(match operator {
        Operator::Detect => Box::new(DetectOperator::new(load_rules(&config.detect)?.into())?),
        Operator::Slo => Box::new(SloOperator::new(load_slos(&config.slo.paths).into())),
    })
}

fn write(path: &Path, batches: &[RecordBatch]) -> Result<()> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    let mut writer = arrow::json::LineDelimitedWriter::new(BufWriter::new(file));
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    writer.into_inner().flush().with_context(|| path.display().to_string())
}

/// The rows that only one side has.
struct Difference {
    same: usize,
    only_replayed: Vec<String>,
    only_stored: Vec<String>,
}

impl Difference {
    fn between(replayed: &BTreeSet<String>, stored: &BTreeSet<String>) -> Self {
        Self {
            same: replayed.intersection(stored).count(),
            only_replayed: replayed.difference(stored).cloned().collect(),
            only_stored: stored.difference(replayed).cloned().collect(),
        }
    }

    fn summary(&self) -> serde_json::Value {
        json!({"same": self.same, "only_replayed": self.only_replayed, "only_stored": self.only_stored})
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} the same as stored", self.same)?;
        for (side, keys) in [("only replayed", &self.only_replayed), ("only stored", &self.only_stored)] {
            if !keys.is_empty() {
                write!(f, ", {side}: {}", keys.join(", "))?;
            }
        }
        Ok(())
    }
}

/// Keys of rows of the replayed time, or of all rows if no column tells it.
fn keys_of(batches: &[RecordBatch], keys: &[&str], time: Option<&str>, args: &ReplayArgs) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for batch in batches {
        let texts: Vec<_> =
            keys.iter().filter_map(|k| batch.column_by_name(k)).filter_map(|c| c.as_string_opt::<i32>()).collect();
        let tenants = batch.column_by_name("tenant").and_then(|c| c.as_string_opt::<i32>());
        let times = time.and_then(|name| batch.column_by_name(name));
        let times = times.and_then(|c| c.as_primitive_opt::<arrow::datatypes::TimestampMicrosecondType>());
        for row in 0..batch.num_rows() {
            let in_time = times.is_none_or(|times| {
                let at = DateTime::from_timestamp_micros(times.value(row)).unwrap_or_default();
                at >= args.from && args.until.is_none_or(|until| at < until)
            });
            let wanted = match (&args.tenant, tenants) {
                (Some(wanted), Some(tenants)) => tenants.value(row) == wanted,
                _ => true,
            };
            if in_time && wanted {
                found.insert(
                    texts.iter().map(|t| if t.is_null(row) { "" } else { t.value(row) }).collect::<Vec<_>>().join("/"),
                );
            }
        }
    }
    found
}

async fn stored_keys(
    storage: &Storage,
    table: &str,
    keys: &[&str],
    time: &str,
    args: &ReplayArgs,
) -> Result<BTreeSet<String>> {
    let Some(files) = table_files(storage, table, None).await? else { return Ok(BTreeSet::new()) };
    let schema = match table {
        "slo_alerts" => companyos_slo::slo_alerts_table().schema,
        _ => companyos_detect::table().schema,
    };
    let reader = FileReader::new(storage, table, schema);
    let mut batches = Vec::new();
    for add in &files.files {
        reader
            .read(add, |batch| {
                batches.push(batch);
                Ok(())
            })
            .await?;
    }
    Ok(keys_of(&batches, keys, Some(time), args))
}
