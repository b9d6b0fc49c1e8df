//! Spark Structured Streaming on the same topic: spark/job.py, run and measured.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::{delta_log::DeltaLog, python_job::PythonJob};

/// What to run.
#[derive(Debug, Clone)]
pub struct SparkConfig {
    /// Kafka's bootstrap servers.
    pub brokers: String,
    /// A filled topic that nothing writes to.
    pub topic: String,
    /// Events in it.
    pub events: u64,
    /// Their JSON text, in bytes; for MB/s.
    pub bytes: u64,
    /// Folder of job.py, pom.xml and requirements.txt.
    pub spark_dir: PathBuf,
    /// Folder for the Python environment and the jars, kept between runs.
    pub cache_dir: PathBuf,
    /// Folder for the table, the checkpoint and the log; emptied before, kept after.
    pub work_dir: PathBuf,
    /// Records a batch may read.
    pub max_offsets_per_trigger: u64,
    /// `available-now` or `1s`.
    pub trigger: String,
    /// When to give up.
    pub timeout: Duration,
}

/// What it took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SparkResult {
    /// Version of Spark.
    pub version: String,
    /// Rows in the table.
    pub rows: u64,
    /// From starting the process to its end.
    pub seconds: f64,
    /// Events a second over the whole time, start of the JVM included.
    pub events_per_s: f64,
    /// Events a second over the second half of the batches, by Spark's own clock: warmed up.
    pub steady_events_per_s: f64,
    /// Megabytes (10⁶) of JSON a second over the whole time.
    pub mb_per_s: f64,
    /// CPU seconds of Python and JVM per million events, start included.
    pub cpu_s_per_million: f64,
    /// CPU seconds of the JVM per million events in the second half of the batches; none where there
    /// were too few.
    pub steady_cpu_s_per_million: Option<f64>,
    /// Peak resident memory of Python and JVM, in bytes.
    pub peak_rss_bytes: u64,
    /// Batches.
    pub batches: usize,
}

#[derive(Deserialize)]
struct Report {
    spark_version: String,
    batches: Vec<Batch>,
}

#[derive(Deserialize)]
struct Batch {
    rows: u64,
    seconds: f64,
    cpu_s_so_far: Option<f64>,
}

fn python<'a>(dir: &'a Path, cache_dir: &'a Path) -> PythonJob<'a> {
    PythonJob { name: "Spark", dir, cache_dir, interpreters: &["python3"] }
}

/// Makes the Python environment and fetches the jars, if they are not there yet.
pub fn prepare(spark_dir: &Path, cache_dir: &Path) -> Result<()> {
    python(spark_dir, cache_dir).prepare()
}

/// Runs the job to the end of the topic.
pub fn run(config: &SparkConfig) -> Result<SparkResult> {
    let job = python(&config.spark_dir, &config.cache_dir);
    job.prepare()?;
    if config.work_dir.exists() {
        fs::remove_dir_all(&config.work_dir)?;
    }
    fs::create_dir_all(&config.work_dir)?;
    let table = config.work_dir.join("product_events");
    let report = config.work_dir.join("report.json");
    let log = config.work_dir.join("spark.log");
    let mut command = job.command();
    command
        .args(["--brokers", &config.brokers, "--topic", &config.topic, "--trigger", &config.trigger])
        .args(["--events", &config.events.to_string()])
        .args(["--max-offsets-per-trigger", &config.max_offsets_per_trigger.to_string()])
        .arg("--out")
        .arg(&table)
        .arg("--checkpoint")
        .arg(config.work_dir.join("checkpoint"))
        .arg("--jars")
        .arg(job.jars())
        .arg("--report")
        .arg(&report);
    let (seconds, usage) = job.run(&mut command, &log, config.timeout)?;

    let rows = DeltaLog::new(table).refresh()?;
    ensure!(rows == config.events, "Spark's table holds {rows} rows, the topic {} events", config.events);
    let report: Report = serde_json::from_slice(&fs::read(&report)?)?;
    let (steady_events_per_s, steady_cpu_s_per_million) = steady(&report.batches);
    let events = config.events as f64;
    Ok(SparkResult {
        version: report.spark_version,
        rows,
        seconds,
        events_per_s: events / seconds,
        steady_events_per_s,
        mb_per_s: config.bytes as f64 / 1e6 / seconds,
        cpu_s_per_million: usage.cpu_s / (events / 1e6),
        steady_cpu_s_per_million,
        peak_rss_bytes: usage.peak_rss_bytes,
        batches: report.batches.len(),
    })
}

/// Rate and CPU seconds per million events of the second half of the batches.
fn steady(batches: &[Batch]) -> (f64, Option<f64>) {
    let half = batches.len() / 2;
    let (before, after) = batches.split_at(half);
    let rows: u64 = after.iter().map(|b| b.rows).sum();
    let seconds: f64 = after.iter().map(|b| b.seconds).sum();
    let rate = if seconds > 0.0 { rows as f64 / seconds } else { 0.0 };
    let cpu = || Some(after.last()?.cpu_s_so_far? - before.last()?.cpu_s_so_far?);
    (rate, cpu().map(|cpu_s| cpu_s / (rows as f64 / 1e6)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_figures_leave_out_the_first_half() {
        let batch = |rows, seconds, cpu_s_so_far| Batch { rows, seconds, cpu_s_so_far };
        let batches = [
            batch(1_000_000, 20.0, Some(40.0)),
            batch(1_000_000, 12.0, Some(60.0)),
            batch(1_000_000, 5.0, None),
            batch(1_000_000, 5.0, Some(80.0)),
        ];
        assert_eq!(steady(&batches), (200_000.0, Some(10.0)));
        assert_eq!(steady(&batches[..1]), (50_000.0, None));
    }
}
