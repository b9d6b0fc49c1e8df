//! The engine's side: a worker takes in the topics and keeps one question's answer, and what that took.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    delta_log::DeltaLog,
    engine::{self, Role},
    process_tree::ProcessTree,
};

const POLL: Duration = Duration::from_millis(100);
const REGION: &str = "eu-west-1";

/// What the worker has to do.
#[derive(Debug, Clone)]
pub struct OursConfig {
    /// Kafka's bootstrap servers.
    pub brokers: String,
    /// Topics by stream, with the events in each.
    pub topics: Vec<(String, String, u64)>,
    /// Files with a view to keep each, and the views' names.
    pub views: Vec<(PathBuf, String)>,
    /// OpenSLO file to watch.
    pub slo: Option<PathBuf>,
    /// Whether the shipped detections run.
    pub detect: bool,
    /// The engine's binary.
    pub companyos: PathBuf,
    /// Configuration template, see nexmark/worker.toml.
    pub template: PathBuf,
    /// Folder for the configuration, the log and the tables; emptied before.
    pub work_dir: PathBuf,
    /// How long to let the worker go on after everything is accounted for: what it tells at most once a second is
    /// then told. Not part of what is measured.
    pub settle: Duration,
    /// When to give up.
    pub timeout: Duration,
}

/// What it took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OursResult {
    /// From starting the worker until tables, view and operators accounted for the last event.
    pub seconds: f64,
    /// Until the tables alone did.
    pub stored_s: f64,
    /// CPU seconds of the worker, start included.
    pub cpu_s: f64,
    /// Peak resident memory of the worker, in bytes.
    pub peak_rss_bytes: u64,
}

/// What a query of the answer took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReadResult {
    /// Wall time of `companyos sql`, start included.
    pub seconds: f64,
    /// Its CPU seconds.
    pub cpu_s: f64,
    /// Its peak resident memory, in bytes.
    pub peak_rss_bytes: u64,
}

/// A run's tables, for reading.
#[derive(Debug)]
pub struct Stored {
    companyos: PathBuf,
    config: PathBuf,
    work_dir: PathBuf,
}

/// Runs a worker until everything asked for accounts for every event.
pub fn run(config: &OursConfig) -> Result<(OursResult, Stored)> {
    if config.work_dir.exists() {
        fs::remove_dir_all(&config.work_dir).with_context(|| config.work_dir.display().to_string())?;
    }
    let data = config.work_dir.join("data");
    fs::create_dir_all(&data)?;
    let file = write_config(config, &data.canonicalize()?)?;
    for (view, _) in &config.views {
        let status = Command::new(&config.companyos)
            .args(["pipeline", "apply"])
            .arg(view)
            .arg("--config")
            .arg(&file)
            .stdout(File::create(config.work_dir.join("apply.log"))?)
            .status()?;
        ensure!(status.success(), "applying {} ended with {status}", view.display());
    }
    let states = state_tables(config, &file)?.into_iter().map(|table| data.join(REGION).join(table)).collect();

    let started = Instant::now();
    let mut worker = Role::start(&config.companyos, "worker", &file)?;
    let tree = ProcessTree::watch(worker.id())?;
    let mut progress = Progress::new(config, data.join(REGION), states);
    let mut stored_s = None;
    let seconds = loop {
        let at = started.elapsed().as_secs_f64();
        if progress.stored()? {
            let stored = *stored_s.get_or_insert(at);
            if progress.answered()? {
                break at.max(stored);
            }
        }
        worker.check_alive()?;
        if started.elapsed() > config.timeout {
            bail!("{progress:?} after {:?}; the log ends:\n{}", config.timeout, worker.log_end());
        }
        std::thread::sleep(POLL);
    };
    let usage = tree.finish()?;
    std::thread::sleep(config.settle);
    worker.stop()?;
    progress.check_counts()?;
    let result = OursResult {
        seconds,
        stored_s: stored_s.unwrap_or(seconds),
        cpu_s: usage.cpu_s,
        peak_rss_bytes: usage.peak_rss_bytes,
    };
    let stored = Stored { companyos: config.companyos.clone(), config: file, work_dir: config.work_dir.clone() };
    Ok((result, stored))
}

/// Names of the tables that hold the views' state.
fn state_tables(config: &OursConfig, file: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct View {
        name: String,
        table: String,
    }
    let listed = Command::new(&config.companyos).args(["pipeline", "list", "--json", "--config"]).arg(file).output()?;
    ensure!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed: Vec<View> = serde_json::from_slice(&listed.stdout)?;
    let table = |(_, name): &(PathBuf, String)| {
        let found = listed.iter().find(|view| view.name == *name);
        Ok(found.with_context(|| format!("there is no view {name}"))?.table.clone())
    };
    config.views.iter().map(table).collect()
}

fn write_config(config: &OursConfig, data: &Path) -> Result<PathBuf> {
    let template = fs::read_to_string(&config.template).with_context(|| config.template.display().to_string())?;
    let group = format!("nexmark-{}-{}", std::process::id(), chrono::Utc::now().timestamp_millis());
    let pipelines: String = config
        .topics
        .iter()
        .map(|(stream, topic, _)| format!("[[pipelines]]\nstream = \"{stream}\"\ntopics = [\"{topic}\"]\n"))
        .collect();
    let slo = match &config.slo {
        Some(path) => format!("{:?}", path.canonicalize().with_context(|| path.display().to_string())?),
        None => String::new(),
    };
    let text = engine::render(
        &template,
        &[
            ("brokers", &config.brokers),
            ("group", &group),
            ("data", &data.display().to_string()),
            ("pipelines", &pipelines),
            ("slo", &slo),
            ("detect", if config.detect { "true" } else { "false" }),
        ],
    )?;
    let path = config.work_dir.join("companyos.toml");
    fs::write(&path, text)?;
    Ok(path)
}

impl Stored {
    /// Asks once, as a process of its own, and writes the answer to `to`, as CSV if its name says so, else as Parquet.
    pub fn read(&self, tenant: &str, query: &Path, to: &Path) -> Result<ReadResult> {
        let format = if to.extension().is_some_and(|ending| ending == "csv") { "csv" } else { "parquet" };
        let log = File::create(self.work_dir.join("read.log"))?;
        let started = Instant::now();
        let mut child = Command::new(&self.companyos)
            .args(["sql", "--tenant", tenant, "--format", format, "--config"])
            .arg(&self.config)
            .arg("--output")
            .arg(to)
            .arg("--file")
            .arg(query)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting companyos sql")?;
        let tree = ProcessTree::watch(child.id())?;
        let before = children_cpu_s()?;
        let status = child.wait()?;
        let seconds = started.elapsed().as_secs_f64();
        // A query may be over before it was looked at; what the kernel charged for it is exact.
        let (cpu_s, usage) = (children_cpu_s()? - before, tree.finish()?);
        if !status.success() {
            bail!("{}: {}", query.display(), fs::read_to_string(self.work_dir.join("read.log")).unwrap_or_default());
        }
        Ok(ReadResult { seconds, cpu_s, peak_rss_bytes: usage.peak_rss_bytes })
    }

    /// Removes the tables.
    pub fn remove(self) -> Result<()> {
        let data = self.work_dir.join("data");
        fs::remove_dir_all(&data).with_context(|| data.display().to_string())
    }
}

/// CPU seconds of all children that were waited for.
fn children_cpu_s() -> Result<f64> {
    use nix::sys::{
        resource::{UsageWho, getrusage},
        time::TimeValLike,
    };
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok((usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6)
}

/// How far tables, view and operators have come, read from what they wrote and by nothing of the engine.
#[derive(Debug)]
struct Progress {
    root: PathBuf,
    /// By stream: its table's log and the events it should hold.
    tables: Vec<(String, DeltaLog, u64)>,
    quarantine: DeltaLog,
    views: Vec<DeltaLog>,
    operators: Vec<&'static str>,
}

impl Progress {
    fn new(config: &OursConfig, root: PathBuf, states: Vec<PathBuf>) -> Self {
        let table =
            |(stream, _, events): &(String, String, u64)| (stream.clone(), DeltaLog::new(root.join(stream)), *events);
        let mut operators = Vec::new();
        if config.slo.is_some() {
            operators.push("slo");
        }
        if config.detect {
            operators.push("detect");
        }
        Self {
            tables: config.topics.iter().map(table).collect(),
            quarantine: DeltaLog::new(root.join("quarantine")),
            views: states.into_iter().map(DeltaLog::new).collect(),
            operators,
            root,
        }
    }

    fn stored(&mut self) -> Result<bool> {
        let mut all = true;
        let mut rows = self.quarantine.refresh()?;
        for (_, log, events) in &mut self.tables {
            let held = log.refresh()?;
            rows += held;
            all &= held >= *events;
        }
        Ok(all || rows >= self.tables.iter().map(|(.., events)| events).sum())
    }

    /// Whether view and operators have read every table's last commit.
    fn answered(&mut self) -> Result<bool> {
        let product = self.tables.iter().find(|(stream, ..)| stream == "product_events");
        let newest = product.map_or(0, |(_, table, _)| table.commits().saturating_sub(1));
        for log in &mut self.views {
            log.refresh()?;
            if log.position("view/0").is_none_or(|position| position < newest) {
                return Ok(false);
            }
        }
        for operator in &self.operators {
            let Some(positions) = checkpoint(&self.root, operator)? else { return Ok(false) };
            let behind = |(stream, log, _): &(String, DeltaLog, u64)| {
                positions.get(stream).is_some_and(|read| *read + 1 < log.commits())
            };
            // An operator that has no position of a stream yet may be about to read it: one it follows must be there.
            let needed = if *operator == "slo" { "sli_metrics" } else { "security_signals" };
            if !positions.contains_key(needed) || self.tables.iter().any(behind) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn check_counts(&mut self) -> Result<()> {
        for (stream, log, events) in &mut self.tables {
            let held = log.refresh()?;
            ensure!(held == *events, "{stream} holds {held} rows, its topic {events} events");
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Manifest {
    positions: std::collections::HashMap<String, u64>,
}

/// Positions of an operator's newest checkpoint.
fn checkpoint(root: &Path, operator: &str) -> Result<Option<std::collections::HashMap<String, u64>>> {
    let folder = root.join("_state").join(operator).join("0-of-1/manifest");
    let Ok(entries) = fs::read_dir(&folder) else { return Ok(None) };
    let names =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
    let Some(newest) = names.max() else { return Ok(None) };
    // One that was just replaced may be gone again; the next look finds the new one.
    let Ok(text) = fs::read(&newest) else { return Ok(None) };
    let manifest: Manifest = serde_json::from_slice(&text).with_context(|| newest.display().to_string())?;
    Ok(Some(manifest.positions))
}
