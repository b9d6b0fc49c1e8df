//! Flink's side: the same topics through PyFlink, in the JVM that it starts.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::process_tree::ProcessTree;

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

/// Makes the Python environment and fetches the connector, once per requirements.txt and pom.xml.
pub fn prepare(flink_dir: &Path, cache_dir: &Path) -> Result<()> {
    let requirements = flink_dir.join("requirements.txt");
    let pom = flink_dir.join("pom.xml");
    let wanted = fs::read_to_string(&requirements)? + &fs::read_to_string(&pom)?;
    let done = cache_dir.join("flink-prepared");
    if fs::read_to_string(&done).is_ok_and(|prepared| prepared == wanted) {
        return Ok(());
    }
    fs::create_dir_all(cache_dir)?;
    let venv = cache_dir.join("flink-venv");
    if !venv.join("bin/python").exists() {
        // PyFlink has wheels for Python up to 3.12.
        let python = ["python3.11", "python3.12", "python3.10"].into_iter().find(|python| {
            let version = Command::new(python).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            version.is_ok_and(|status| status.success())
        });
        let python = python.context("PyFlink needs Python 3.10, 3.11 or 3.12")?;
        check(Command::new(python).args(["-m", "venv"]).arg(&venv))?;
    }
    check(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "--requirement"]).arg(&requirements))?;
    let jars = cache_dir.join("flink-jars");
    if jars.exists() {
        fs::remove_dir_all(&jars)?;
    }
    check(
        Command::new("mvn")
            .args(["--quiet", "--batch-mode", "--file"])
            .arg(&pom)
            .arg("dependency:copy-dependencies")
            .arg(format!("-DoutputDirectory={}", jars.display())),
    )?;
    Ok(fs::write(done, wanted)?)
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

fn job(config: &FlinkConfig, answer: Option<&Path>) -> Result<(PathBuf, crate::process_tree::Usage)> {
    prepare(&config.flink_dir, &config.cache_dir)?;
    fs::create_dir_all(&config.work_dir)?;
    let report = config.work_dir.join("flink.json");
    let log = config.work_dir.join("flink.log");
    let out = File::create(&log)?;
    let mut command = Command::new(config.cache_dir.join("flink-venv/bin/python"));
    command
        .arg(config.flink_dir.join("job.py"))
        .args(["--brokers", &config.brokers])
        .arg("--tables")
        .arg(&config.tables)
        .arg("--query")
        .args(&config.queries)
        .arg(format!("--topic-suffix={}", config.suffix))
        .arg("--jars")
        .arg(config.cache_dir.join("flink-jars"))
        .arg("--report")
        .arg(&report)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("JVM_ARGS", format!("-Xmx{}", config.heap))
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out);
    if let Some(suffix) = &config.warm_up_suffix {
        command.arg(format!("--warm-up-suffix={suffix}"));
    }
    if let Some(rules) = &config.rules {
        command.arg("--rules").arg(rules);
    }
    if let Some(answer) = answer {
        command.arg("--answer").arg(answer);
    }
    let started = Instant::now();
    let mut job = command.spawn().context("starting Flink")?;
    let tree = ProcessTree::watch(job.id())?;
    let status = loop {
        if let Some(status) = job.try_wait()? {
            break status;
        }
        if started.elapsed() > config.timeout {
            job.kill()?;
            job.wait()?;
            bail!("Flink did not finish within {:?}; see {}", config.timeout, log.display());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let usage = tree.finish()?;
    ensure!(status.success(), "Flink ended with {status}; see {}", log.display());
    Ok((report, usage))
}

fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
