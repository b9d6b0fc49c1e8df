//! Everything in one run: one Kafka, one topic, every contender on it, one report.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::{
    bare::{self, BareConfig},
    e2e::{self, E2eConfig},
    engine::{self, Role},
    fill::{self, FillConfig},
    freshness::{self, FreshnessConfig, FreshnessResult},
    generator::GeneratorConfig,
    report::{Host, Results},
    spark::{self, SparkConfig},
};

/// Where `cargo xtask kafka up` listens.
pub const XTASK_BROKERS: &str = "127.0.0.1:9092";

/// A part of the suite, for leaving out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Decode and write alone.
    Bare,
    /// The engine, DLP off and on.
    E2e,
    /// Spark.
    Spark,
    /// Produce to visible.
    Freshness,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct SuiteConfig {
    /// Kafka's bootstrap servers; none starts one through `cargo xtask` and stops it afterwards.
    pub brokers: Option<String>,
    /// Events in the topic.
    pub events: u64,
    /// Partitions of the topics.
    pub partitions: i32,
    /// Shape of the events.
    pub generator: GeneratorConfig,
    /// The engine's binary.
    pub companyos: PathBuf,
    /// The benchmarks' own folder, for templates and the Spark job.
    pub benchmarks_dir: PathBuf,
    /// Folder for topics' tables and logs.
    pub work_dir: PathBuf,
    /// Folder for Spark's environment and jars.
    pub cache_dir: PathBuf,
    /// Folder for latest.json and latest.md.
    pub results_dir: PathBuf,
    /// Parts to leave out.
    pub skip: Vec<Part>,
    /// Events a second for the freshness run.
    pub rate: u64,
    /// Seconds of the freshness run.
    pub seconds: u64,
    /// Longest time for any one run.
    pub timeout: Duration,
}

/// Runs the suite and writes its report; results are written after every part, so that a late
/// failure loses nothing.
pub async fn run(config: &SuiteConfig) -> Result<Results> {
    let kafka = match &config.brokers {
        Some(_) => None,
        None => Some(XtaskKafka::start()?),
    };
    let brokers = config.brokers.as_deref().unwrap_or(XTASK_BROKERS);
    let outcome = run_parts(config, brokers).await;
    let stopped = kafka.map_or(Ok(()), XtaskKafka::stop);
    let results = outcome?;
    stopped?;
    Ok(results)
}

async fn run_parts(config: &SuiteConfig, brokers: &str) -> Result<Results> {
    let mut results = Results {
        at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        host: Host::read(),
        optimised: !cfg!(debug_assertions),
        ..Results::default()
    };
    let runs = |part: Part| !config.skip.contains(&part);
    let topic = format!("bench-{}", chrono::Utc::now().timestamp_millis());

    if runs(Part::Bare) {
        progress("bare limit");
        results.bare = bare::run(&BareConfig {
            events: config.events,
            block_rows: 8_192,
            row_group_rows: 1 << 20,
            generator: config.generator.clone(),
        })?;
        save(config, &mut results)?;
    }
    if runs(Part::E2e) || runs(Part::Spark) {
        progress("filling the topic");
        let filled = fill::run(&FillConfig {
            brokers: brokers.to_owned(),
            topic: topic.clone(),
            partitions: config.partitions,
            events: config.events,
            compression: "lz4".to_owned(),
            generator: config.generator.clone(),
        })
        .await?;
        results.fill = Some(filled.clone());
        save(config, &mut results)?;
        if runs(Part::E2e) {
            for dlp in [false, true] {
                progress(if dlp { "end to end, DLP on" } else { "end to end, DLP off" });
                results.e2e.push(e2e::run(&E2eConfig {
                    brokers: brokers.to_owned(),
                    topic: topic.clone(),
                    events: filled.events,
                    bytes: filled.bytes,
                    dlp,
                    companyos: config.companyos.clone(),
                    template: config.benchmarks_dir.join("e2e.toml"),
                    work_dir: config.work_dir.join(if dlp { "e2e-dlp" } else { "e2e" }),
                    timeout: config.timeout,
                })?);
                save(config, &mut results)?;
            }
        }
        if runs(Part::Spark) {
            progress("Spark");
            results.spark = Some(spark::run(&SparkConfig {
                brokers: brokers.to_owned(),
                topic: topic.clone(),
                events: filled.events,
                bytes: filled.bytes,
                spark_dir: config.benchmarks_dir.join("spark"),
                cache_dir: config.cache_dir.clone(),
                work_dir: config.work_dir.join("spark"),
                max_offsets_per_trigger: spark_batch(config.events),
                trigger: "available-now".to_owned(),
                timeout: config.timeout,
            })?);
            save(config, &mut results)?;
        }
    }
    if runs(Part::Freshness) {
        progress("freshness");
        results.freshness = Some(freshness(config, brokers).await?);
    }
    save(config, &mut results)?;
    Ok(results)
}

/// A tenth of the topic, at most half a million: enough batches to tell warm-up from steady state,
/// each large enough to hide Spark's cost per batch.
fn spark_batch(events: u64) -> u64 {
    (events / 10).clamp(1_000, 500_000)
}

/// Starts worker and query server with a token of this run, and measures on a topic of its own.
async fn freshness(config: &SuiteConfig, brokers: &str) -> Result<FreshnessResult> {
    let work_dir = config.work_dir.join("freshness");
    if work_dir.exists() {
        fs::remove_dir_all(&work_dir)?;
    }
    let data = work_dir.join("data");
    fs::create_dir_all(&data)?;
    let topic = format!("bench-fresh-{}", chrono::Utc::now().timestamp_millis());
    crate::kafka::create_topic(brokers, &topic, config.partitions, true).await?;
    let token: String = std::iter::repeat_with(fastrand::alphanumeric).take(40).collect();
    let listen = free_address()?;
    let template = config.benchmarks_dir.join("freshness.toml");
    let text = engine::render(
        &fs::read_to_string(&template).with_context(|| template.display().to_string())?,
        &[
            ("brokers", brokers),
            ("topic", &topic),
            ("group", &topic),
            ("data", &data.canonicalize()?.display().to_string()),
            ("listen", &listen),
            ("token_sha256", &hex::encode(Sha256::digest(token.as_bytes()))),
        ],
    )?;
    let file = work_dir.join("companyos.toml");
    fs::write(&file, text)?;
    let mut worker = Role::start(&config.companyos, "worker", &file)?;
    let mut query = Role::start(&config.companyos, "query", &file)?;
    let measured = freshness::run(&FreshnessConfig {
        brokers: brokers.to_owned(),
        topic,
        partitions: config.partitions,
        rate: config.rate,
        seconds: config.seconds,
        warm_up_s: 10,
        url: format!("http://{listen}"),
        token,
        poll_pause: Duration::from_millis(20),
        timeout: Duration::from_secs(60),
    })
    .await;
    worker.check_alive()?;
    query.check_alive()?;
    let result = measured.with_context(|| format!("logs are in {}", work_dir.display()))?;
    query.stop()?;
    worker.stop()?;
    Ok(result)
}

/// An address nobody listens on at the moment.
fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

fn save(config: &SuiteConfig, results: &mut Results) -> Result<()> {
    results.compare();
    write(&config.results_dir, "latest.json", &(serde_json::to_string_pretty(results)? + "\n"))?;
    write(&config.results_dir, "latest.md", &results.to_markdown()?)
}

pub(crate) fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    fs::create_dir_all(folder)?;
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| path.display().to_string())
}

pub(crate) fn progress(what: &str) {
    eprintln!("{} {what}", chrono::Local::now().format("%H:%M:%S"));
}

/// A real Kafka, started and stopped by the workspace's own task.
pub(crate) struct XtaskKafka;

impl XtaskKafka {
    pub(crate) fn start() -> Result<Self> {
        xtask("up")?;
        Ok(Self)
    }

    pub(crate) fn stop(self) -> Result<()> {
        xtask("down")
    }
}

fn xtask(what: &str) -> Result<()> {
    let status = Command::new("cargo").args(["xtask", "kafka", what]).status().context("cargo")?;
    ensure!(status.success(), "cargo xtask kafka {what} ended with {status}");
    Ok(())
}
