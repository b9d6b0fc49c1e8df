//! Flink's side: the same topics through PyFlink, in the JVM that it starts.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{process_tree::Usage, python_job::PythonJob};

/// What to run.
#[derive(Debug, Clone)]
pub struct FlinkConfig {
    /// Kafka's bootstrap servers.
    pub brokers: String,
    /// SQL file that declares the sources.
    pub tables: PathBuf,
    /// SQL files with the SELECTs.
    pub queries: Vec<PathBuf>,
    /// Folder of Sigma rules, where the sources ask for them.
    pub rules: Option<PathBuf>,
    /// End of the topics' names.
    pub suffix: String,
    /// End of the names of the topics to run over first; without it nothing is warm.
    pub warm_up_suffix: Option<String>,
    /// Heap of the JVM, such as 4g.
    pub heap: String,
    /// Folder of job.py, pom.xml and requirements.txt.
    pub flink_dir: PathBuf,
    /// Folder for Flink's Python environment and jars, kept between runs.
    pub cache_dir: PathBuf,
    /// Folder for the log and the report.
    pub work_dir: PathBuf,
    /// When to give up.
    pub timeout: Duration,
}

/// What it took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FlinkResult {
    /// Version of Flink.
    pub version: String,
    /// From submitting the job to its end, in a JVM that has run it before over other events.
    pub seconds: f64,
    /// CPU seconds of the JVM in that time.
    pub cpu_s: f64,
    /// CPU seconds of the JVM before that: its start and the run to warm up.
    pub before_cpu_s: f64,
    /// CPU seconds of Python and JVM from beginning to end.
    pub whole_cpu_s: f64,
    /// Peak resident memory of Python and JVM, in bytes.
    pub peak_rss_bytes: u64,
    /// The JVM's heap, as it was given.
    pub heap: String,
    /// Rules that became predicates.
    pub rules: usize,
}

#[derive(Deserialize)]
struct Report {
    version: String,
    before_cpu_s: f64,
    seconds: f64,
    cpu_s: f64,
    rules: usize,
}

fn python<'a>(dir: &'a Path, cache_dir: &'a Path) -> PythonJob<'a> {
    // PyFlink has wheels for Python up to 3.12.
    PythonJob { name: "Flink", dir, cache_dir, interpreters: &["python3.11", "python3.12", "python3.10"] }
}

/// Makes the Python environment and fetches the jars, if they are not there yet.
pub fn prepare(flink_dir: &Path, cache_dir: &Path) -> Result<()> {
    python(flink_dir, cache_dir).prepare()
}

/// Runs the job to the end of its topics, into sinks that keep nothing.
pub fn run(config: &FlinkConfig) -> Result<FlinkResult> {
    let (report, usage) = job(config, None)?;
    let report: Report = serde_json::from_slice(&fs::read(&report)?)?;
    Ok(FlinkResult {
        version: report.version,
        seconds: report.seconds,
        cpu_s: report.cpu_s,
        before_cpu_s: report.before_cpu_s,
        whole_cpu_s: usage.cpu_s,
        peak_rss_bytes: usage.peak_rss_bytes,
        heap: config.heap.clone(),
        rules: report.rules,
    })
}

/// Runs the job and writes its answers to the file.
pub fn answer(config: &FlinkConfig, to: &Path) -> Result<()> {
    job(config, Some(to)).map(drop)
}

fn job(config: &FlinkConfig, answer: Option<&Path>) -> Result<(PathBuf, Usage)> {
    let job = python(&config.flink_dir, &config.cache_dir);
    job.prepare()?;
    fs::create_dir_all(&config.work_dir)?;
    let report = config.work_dir.join("flink.json");
    let mut command = job.command();
    command
        .args(["--brokers", &config.brokers])
        .arg("--tables")
        .arg(&config.tables)
        .arg("--query")
        .args(&config.queries)
        .arg(format!("--topic-suffix={}", config.suffix))
        .arg("--jars")
        .arg(job.jars())
        .arg("--report")
        .arg(&report)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("JVM_ARGS", format!("-Xmx{}", config.heap));
    if let Some(suffix) = &config.warm_up_suffix {
        command.arg(format!("--warm-up-suffix={suffix}"));
    }
    if let Some(rules) = &config.rules {
        command.arg("--rules").arg(rules);
    }
    if let Some(answer) = answer {
        command.arg("--answer").arg(answer);
    }
    let (_, usage) = job.run(&mut command, &config.work_dir.join("flink.log"), config.timeout)?;
    Ok((report, usage))
}
