//! `companyos-bench`: the benchmarks, one by one or all in one run. See README.md.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use companyos_benchmarks::{
    bare::{self, BareConfig},
    e2e::{self, E2eConfig},
    fill::{self, FillConfig},
    freshness::{self, FreshnessConfig},
    generator::GeneratorConfig,
    nexmark::{self, NexmarkConfig, question::Question},
    report::{Host, Results},
    spark::{self, SparkConfig},
    suite::{self, Part, SuiteConfig},
};

#[derive(Parser)]
#[command(name = "companyos-bench", about = "Measures the path from Kafka to governed Delta tables.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write generated events to a file as NDJSON
    Gen {
        #[command(flatten)]
        events: Events,
        /// File to write
        #[arg(long)]
        out: PathBuf,
    },
    /// Create a topic and fill it with generated events
    Fill {
        #[command(flatten)]
        events: Events,
        #[command(flatten)]
        topic: Topic,
        /// Partitions of the topic
        #[arg(long, default_value_t = 4)]
        partitions: i32,
        /// none, gzip, snappy, lz4 or zstd
        #[arg(long, default_value = "lz4")]
        compression: String,
    },
    /// Measure decoding and writing alone, for every decoder
    Bare {
        #[command(flatten)]
        events: Events,
        /// Events decoded into one batch
        #[arg(long, default_value_t = 8_192)]
        block_rows: usize,
        /// Rows in a Parquet row group
        #[arg(long, default_value_t = 1 << 20)]
        row_group_rows: usize,
    },
    /// Run a worker over a filled topic and measure it
    E2e {
        #[command(flatten)]
        topic: Topic,
        /// Events in the topic
        #[arg(long)]
        events: u64,
        /// Average size of an event in bytes, for MB/s
        #[arg(long, default_value_t = 410)]
        event_bytes: u64,
        /// Whether the DLP operator runs
        #[arg(long, value_enum, default_value = "off")]
        dlp: OnOff,
        /// The engine's binary [default: the one beside this binary]
        #[arg(long)]
        companyos: Option<PathBuf>,
        /// Configuration template
        #[arg(long, default_value = "benchmarks/e2e.toml")]
        template: PathBuf,
        /// Folder for tables and logs; emptied first
        #[arg(long, default_value = "target/bench/e2e")]
        work_dir: PathBuf,
        /// Seconds until giving up
        #[arg(long, default_value_t = 900)]
        timeout: u64,
    },
    /// Run Spark over a filled topic and measure it
    Spark {
        #[command(flatten)]
        topic: Topic,
        /// Events in the topic
        #[arg(long)]
        events: u64,
        /// Average size of an event in bytes, for MB/s
        #[arg(long, default_value_t = 410)]
        event_bytes: u64,
        /// Records a batch may read
        #[arg(long, default_value_t = 500_000)]
        max_offsets_per_trigger: u64,
        /// available-now or 1s
        #[arg(long, default_value = "available-now")]
        trigger: String,
        #[command(flatten)]
        spark: SparkFolders,
        /// Folder for the table, the checkpoint and the log; emptied first
        #[arg(long, default_value = "target/bench/spark")]
        work_dir: PathBuf,
        /// Seconds until giving up
        #[arg(long, default_value_t = 900)]
        timeout: u64,
    },
    /// Fetch Spark's Python packages and jars, and run nothing
    SparkPrepare {
        #[command(flatten)]
        spark: SparkFolders,
    },
    /// Produce at a fixed rate and measure how soon SQL sees the events of a running engine
    Freshness {
        #[command(flatten)]
        topic: Topic,
        /// Partitions of the topic, if it has to be made
        #[arg(long, default_value_t = 4)]
        partitions: i32,
        /// Events a second
        #[arg(long, default_value_t = 20_000)]
        rate: u64,
        /// Seconds to measure
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        /// Seconds to produce before measuring
        #[arg(long, default_value_t = 10)]
        warm_up: u64,
        /// Root URL of the query server
        #[arg(long, default_value = "http://127.0.0.1:8081")]
        url: String,
        /// Token that may query tenant alpha
        #[arg(long, env = "COMPANYOS_TOKEN", hide_env_values = true)]
        token: String,
        /// Milliseconds between an answer and the next query
        #[arg(long, default_value_t = 20)]
        poll_pause: u64,
        /// Seconds the last event may take to appear
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
    /// Nexmark's queries and our own mix, against Flink SQL, in one run with one report
    Nexmark {
        /// Events of Nexmark
        #[arg(long, default_value_t = 10_000_000)]
        events: u64,
        /// Events of the mix [default: as many]
        #[arg(long)]
        mix_events: Option<u64>,
        /// What to ask [default: all]
        #[arg(long, value_enum, value_delimiter = ',')]
        queries: Vec<Question>,
        /// Compare answers and measure nothing
        #[arg(long)]
        check: bool,
        /// Measure without comparing answers
        #[arg(long, conflicts_with = "check")]
        no_check: bool,
        /// Events that answers are compared on
        #[arg(long, default_value_t = 200_000)]
        check_events: u64,
        /// Chooses the events
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Heap of Flink's JVM
        #[arg(long, default_value = "4g")]
        flink_heap: String,
        /// Kafka's bootstrap servers; without it a Kafka is started through cargo xtask
        #[arg(long)]
        brokers: Option<String>,
        /// Partitions of the topics
        #[arg(long, default_value_t = 4)]
        partitions: i32,
        /// The engine's binary [default: the one beside this binary]
        #[arg(long)]
        companyos: Option<PathBuf>,
        /// Folder of this crate, for its SQL and the Flink job
        #[arg(long, default_value = "benchmarks")]
        benchmarks_dir: PathBuf,
        /// Folder of the shipped rules
        #[arg(long, default_value = "pipelines/detections/rules")]
        rules_dir: PathBuf,
        /// Folder for Flink's Python environment and jars, kept between runs [default: ~/.cache/companyos]
        #[arg(long)]
        cache_dir: Option<PathBuf>,
        /// Folder for tables and logs
        #[arg(long, default_value = "target/bench/nexmark")]
        work_dir: PathBuf,
        /// Report: this with .json and .md behind it
        #[arg(long, default_value = "benchmarks/results/nexmark")]
        results: PathBuf,
        /// Seconds until giving up on any one run
        #[arg(long, default_value_t = 900)]
        timeout: u64,
    },
    /// Write Nexmark's events to a file as NDJSON
    NexmarkGen {
        /// Number of events
        #[arg(long, default_value_t = 200_000)]
        events: u64,
        /// Chooses the events
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Time of the first event (ms since the epoch)
        #[arg(long)]
        base_ms: u64,
        /// File to write
        #[arg(long)]
        out: PathBuf,
    },
    /// Everything in one run, with one report
    All {
        #[command(flatten)]
        events: Events,
        /// Kafka's bootstrap servers; without it a Kafka is started through cargo xtask
        #[arg(long)]
        brokers: Option<String>,
        /// Partitions of the topics
        #[arg(long, default_value_t = 4)]
        partitions: i32,
        /// The engine's binary [default: the one beside this binary]
        #[arg(long)]
        companyos: Option<PathBuf>,
        #[command(flatten)]
        spark: SparkFolders,
        /// Folder of this crate, for its templates
        #[arg(long, default_value = "benchmarks")]
        benchmarks_dir: PathBuf,
        /// Folder for tables and logs
        #[arg(long, default_value = "target/bench")]
        work_dir: PathBuf,
        /// Folder for latest.json and latest.md
        #[arg(long, default_value = "benchmarks/results")]
        results_dir: PathBuf,
        /// Parts to leave out
        #[arg(long, value_enum, value_delimiter = ',')]
        skip: Vec<Part>,
        /// Events a second for the freshness run
        #[arg(long, default_value_t = 20_000)]
        rate: u64,
        /// Seconds of the freshness run
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        /// Seconds until giving up on any one run
        #[arg(long, default_value_t = 1_800)]
        timeout: u64,
    },
}

#[derive(Args)]
struct Events {
    /// Number of events
    #[arg(long, default_value_t = 5_000_000)]
    events: u64,
    /// Chooses the events
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Events happen within the hour before this time (ms since the epoch) [default: now]
    #[arg(long)]
    base_ms: Option<u64>,
    /// Average length of the payload; the rest of an event takes about 340 bytes
    #[arg(long, default_value_t = 72)]
    payload_bytes: usize,
}

#[derive(Args)]
struct Topic {
    /// Kafka's bootstrap servers
    #[arg(long, default_value = suite::XTASK_BROKERS)]
    brokers: String,
    /// The topic
    #[arg(long, default_value = "bench")]
    topic: String,
}

#[derive(Args)]
struct SparkFolders {
    /// Folder of job.py, pom.xml and requirements.txt
    #[arg(long, default_value = "benchmarks/spark")]
    spark_dir: PathBuf,
    /// Folder for Spark's Python environment and jars, kept between runs [default: ~/.cache/companyos]
    #[arg(long)]
    cache_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OnOff {
    On,
    Off,
}

impl Events {
    fn generator(&self) -> Result<GeneratorConfig> {
        let base_ms = match self.base_ms {
            Some(base_ms) => base_ms,
            None => u64::try_from(chrono::Utc::now().timestamp_millis())?,
        };
        Ok(GeneratorConfig { payload_bytes: self.payload_bytes, ..GeneratorConfig::new(self.seed, base_ms) })
    }
}

impl SparkFolders {
    fn cache_dir(&self) -> PathBuf {
        self.cache_dir.clone().unwrap_or_else(default_cache_dir)
    }
}

fn default_cache_dir() -> PathBuf {
    match std::env::home_dir() {
        Some(home) => home.join(".cache/companyos"),
        None => PathBuf::from("target/bench/cache"),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("companyos-bench was built without optimisation: its figures say nothing about speed");
    }
    match Cli::parse().command {
        Command::Gen { events, out } => {
            let bytes = bare::write_ndjson(events.generator()?, events.events, &out)?;
            println!("{} events, {bytes} bytes in {}", events.events, out.display());
        }
        Command::Fill { events, topic, partitions, compression } => {
            let filled = fill::run(&FillConfig {
                brokers: topic.brokers,
                topic: topic.topic,
                partitions,
                events: events.events,
                compression,
                generator: events.generator()?,
            })
            .await?;
            println!(
                "{} events of {:.1} bytes in {:.1} s: {:.0} events/s, {:.1} MB/s",
                filled.events,
                filled.bytes as f64 / filled.events as f64,
                filled.seconds,
                filled.events as f64 / filled.seconds,
                filled.bytes as f64 / 1e6 / filled.seconds
            );
        }
        Command::Bare { events, block_rows, row_group_rows } => {
            let bare = bare::run(&BareConfig {
                events: events.events,
                block_rows,
                row_group_rows,
                generator: events.generator()?,
            })?;
            print(Results { bare, ..Results::default() })?;
        }
        Command::E2e { topic, events, event_bytes, dlp, companyos, template, work_dir, timeout } => {
            let result = e2e::run(&E2eConfig {
                brokers: topic.brokers,
                topic: topic.topic,
                events,
                bytes: events * event_bytes,
                dlp: dlp == OnOff::On,
                companyos: binary(companyos)?,
                template,
                work_dir,
                timeout: Duration::from_secs(timeout),
            })?;
            println!("{}", serde_json::to_string_pretty(&result)?);
        }
        Command::Spark { topic, events, event_bytes, max_offsets_per_trigger, trigger, spark, work_dir, timeout } => {
            let result = spark::run(&SparkConfig {
                brokers: topic.brokers,
                topic: topic.topic,
                events,
                bytes: events * event_bytes,
                cache_dir: spark.cache_dir(),
                spark_dir: spark.spark_dir,
                work_dir,
                max_offsets_per_trigger,
                trigger,
                timeout: Duration::from_secs(timeout),
            })?;
            println!("{}", serde_json::to_string_pretty(&result)?);
        }
        Command::SparkPrepare { spark } => spark::prepare(&spark.spark_dir, &spark.cache_dir())?,
        Command::Freshness { topic, partitions, rate, seconds, warm_up, url, token, poll_pause, timeout } => {
            let result = freshness::run(&FreshnessConfig {
                brokers: topic.brokers,
                topic: topic.topic,
                partitions,
                rate,
                seconds,
                warm_up_s: warm_up,
                url,
                token,
                poll_pause: Duration::from_millis(poll_pause),
                timeout: Duration::from_secs(timeout),
            })
            .await?;
            println!("{}", serde_json::to_string_pretty(&result)?);
        }
        Command::NexmarkGen { events, seed, base_ms, out } => {
            nexmark::events::write_ndjson(seed, base_ms, events, &out)?
        }
        Command::Nexmark {
            events,
            mix_events,
            queries,
            check,
            no_check,
            check_events,
            seed,
            flink_heap,
            brokers,
            partitions,
            companyos,
            benchmarks_dir,
            rules_dir,
            cache_dir,
            work_dir,
            results,
            timeout,
        } => {
            let report = nexmark::run(&NexmarkConfig {
                brokers,
                events,
                mix_events: mix_events.unwrap_or(events),
                check_events: (!no_check).then_some(check_events),
                check_only: check,
                seed,
                questions: if queries.is_empty() { Question::ALL.to_vec() } else { queries },
                partitions,
                flink_heap,
                companyos: binary(companyos)?,
                benchmarks_dir,
                rules_dir,
                work_dir,
                cache_dir: cache_dir.unwrap_or_else(default_cache_dir),
                results,
                timeout: Duration::from_secs(timeout),
            })
            .await?;
            println!("{}", report.to_markdown()?);
            if report.checks.values().any(|check| !check.agrees()) {
                std::process::exit(1);
            }
        }
        Command::All {
            events,
            brokers,
            partitions,
            companyos,
            spark,
            benchmarks_dir,
            work_dir,
            results_dir,
            skip,
            rate,
            seconds,
            timeout,
        } => {
            let results = suite::run(&SuiteConfig {
                brokers,
                events: events.events,
                partitions,
                generator: events.generator()?,
                companyos: binary(companyos)?,
                cache_dir: spark.cache_dir(),
                benchmarks_dir,
                work_dir,
                results_dir,
                skip,
                rate,
                seconds,
                timeout: Duration::from_secs(timeout),
            })
            .await?;
            println!("{}", results.to_markdown()?);
        }
    }
    Ok(())
}

fn binary(given: Option<PathBuf>) -> Result<PathBuf> {
    match given {
        Some(path) => Ok(path),
        None => Ok(std::env::current_exe()?.with_file_name("companyos")),
    }
}

fn print(mut results: Results) -> Result<()> {
    results.at = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    results.host = Host::read();
    results.optimised = !cfg!(debug_assertions);
    results.compare();
    println!("{}", results.to_markdown()?);
    Ok(())
}
