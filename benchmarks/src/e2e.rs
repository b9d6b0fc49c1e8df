//! End to end: a worker drains a filled topic into Delta tables, and what that took.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{
    delta_log::{self, DeltaLog},
    engine::{self, Role},
    process_tree::ProcessTree,
};

const POLL: Duration = Duration::from_millis(100);

/// What to run.
#[derive(Debug, Clone)]
pub struct E2eConfig {
    /// Kafka's bootstrap servers.
    pub brokers: String,
    /// A filled topic that nothing writes to.
    pub topic: String,
    /// Events in it.
    pub events: u64,
    /// Their JSON text, in bytes; for MB/s.
    pub bytes: u64,
    /// Whether the DLP operator runs.
    pub dlp: bool,
    /// The engine's binary.
    pub companyos: PathBuf,
    /// Configuration template, see e2e.toml.
    pub template: PathBuf,
    /// Folder for the configuration, the log and the tables; emptied before, kept after.
    pub work_dir: PathBuf,
    /// When to give up.
    pub timeout: Duration,
}

/// What it took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct E2eResult {
    /// Whether the DLP operator ran.
    pub dlp: bool,
    /// Rows in the product events' table.
    pub rows: u64,
    /// Rows in quarantine.
    pub quarantined: u64,
    /// From starting the process until the last row was committed.
    pub seconds: f64,
    /// Until the first rows were committed.
    pub first_commit_s: f64,
    /// Events a second over the whole time, start included.
    pub events_per_s: f64,
    /// Events a second from the first commit on.
    pub steady_events_per_s: f64,
    /// Megabytes (10⁶) of JSON a second over the whole time.
    pub mb_per_s: f64,
    /// CPU seconds of the worker in all, start included.
    pub cpu_s: f64,
    /// CPU seconds of the worker per million events.
    pub cpu_s_per_million: f64,
    /// Peak resident memory of the worker, in bytes.
    pub peak_rss_bytes: u64,
    /// Commits in the product events' table's log.
    pub commits: u64,
    /// Files in the product events' table at the end.
    pub files: usize,
}

/// Runs a worker until its tables hold every event of the topic.
pub fn run(config: &E2eConfig) -> Result<E2eResult> {
    let data = config.work_dir.join("data");
    if config.work_dir.exists() {
        fs::remove_dir_all(&config.work_dir).with_context(|| config.work_dir.display().to_string())?;
    }
    fs::create_dir_all(&data)?;
    let file = write_config(config, &data.canonicalize()?)?;

    let started = Instant::now();
    let mut worker = Role::start(&config.companyos, "worker", &file)?;
    let tree = ProcessTree::watch(worker.id())?;
    let mut tables = Tables::new(&data);
    let mut first: Option<(f64, u64)> = None;
    let seconds = loop {
        let at = started.elapsed().as_secs_f64();
        let rows = tables.refresh()?;
        if first.is_none() && rows > 0 {
            first = Some((at, rows));
        }
        if rows >= config.events {
            break at;
        }
        worker.check_alive()?;
        if started.elapsed() > config.timeout {
            bail!("{rows} of {} events after {:?}; the log ends:\n{}", config.events, config.timeout, worker.log_end());
        }
        std::thread::sleep(POLL);
    };
    let usage = tree.finish()?;
    worker.stop()?;

    let rows = tables.refresh()?;
    ensure!(rows == config.events, "the tables hold {rows} rows, the topic {} events", config.events);
    let (first_commit_s, first_rows) = first.context("no rows")?;
    let events = config.events as f64;
    Ok(E2eResult {
        dlp: config.dlp,
        rows: tables.product_rows(),
        quarantined: rows - tables.product_rows(),
        seconds,
        first_commit_s,
        events_per_s: events / seconds,
        steady_events_per_s: steady_rate(rows - first_rows, seconds - first_commit_s),
        mb_per_s: config.bytes as f64 / 1e6 / seconds,
        cpu_s: usage.cpu_s,
        cpu_s_per_million: usage.cpu_s / (events / 1e6),
        peak_rss_bytes: usage.peak_rss_bytes,
        commits: tables.product().map_or(0, DeltaLog::commits),
        files: tables.product().map_or(0, DeltaLog::files),
    })
}

/// Zero where everything came in one commit, so that there is no steady state to speak of.
fn steady_rate(rows: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { rows as f64 / seconds } else { 0.0 }
}

fn write_config(config: &E2eConfig, data: &Path) -> Result<PathBuf> {
    let template = fs::read_to_string(&config.template).with_context(|| config.template.display().to_string())?;
    let text = engine::render(
        &template,
        &[
            ("brokers", &config.brokers),
            ("topic", &config.topic),
            ("group", &format!("companyos-bench-{}", std::process::id())),
            ("data", &data.display().to_string()),
            ("dlp", if config.dlp { "true" } else { "false" }),
        ],
    )?;
    let path = config.work_dir.join("companyos.toml");
    fs::write(&path, text)?;
    Ok(path)
}

/// Where an event may end up below the storage root: the product events' table and quarantine, told
/// by their names. Other tables, such as those of views, hold no events.
struct Tables {
    root: PathBuf,
    logs: Vec<(PathBuf, DeltaLog, u64)>,
}

impl Tables {
    fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), logs: Vec::new() }
    }

    /// Events in all of them.
    fn refresh(&mut self) -> Result<u64> {
        for path in delta_log::find_tables(&self.root)? {
            let holds_events = path.file_name().is_some_and(|name| name == "product_events" || name == "quarantine");
            if holds_events && !self.logs.iter().any(|(known, ..)| *known == path) {
                self.logs.push((path.clone(), DeltaLog::new(path), 0));
            }
        }
        for (_, log, rows) in &mut self.logs {
            *rows = log.refresh()?;
        }
        Ok(self.logs.iter().map(|(.., rows)| rows).sum())
    }

    fn product(&self) -> Option<&DeltaLog> {
        self.logs.iter().find(|(path, ..)| path.ends_with("product_events")).map(|(_, log, _)| log)
    }

    fn product_rows(&self) -> u64 {
        self.logs.iter().filter(|(path, ..)| path.ends_with("product_events")).map(|(.., rows)| rows).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stand-in for the engine cannot show its speed, but it shows what the runner does with it.
    #[test]
    fn waits_for_the_last_row_and_charges_the_worker() {
        let folder = tempfile::tempdir().unwrap();
        let template = folder.path().join("e2e.toml");
        fs::write(&template, "{{brokers}} {{topic}} {{group}} {{dlp}}\n{{data}}").unwrap();
        let companyos = folder.path().join("companyos");
        let commit = |table: &str, version: u32, rows: u32| {
            format!(
                "mkdir -p \"$D/{table}/_delta_log\"\n\
                 echo '{{\"add\":{{\"path\":\"f{version}\",\"stats\":\"{{\\\"numRecords\\\":{rows}}}\"}}}}' \
                 > \"$D/t.tmp\"; mv \"$D/t.tmp\" \"$D/{table}/_delta_log/{version:020}.json\"\n"
            )
        };
        let script = format!(
            "#!/bin/sh\nD=$(sed -n 2p \"$3\")\n{}{}{}while :; do sleep 0.1; done\n",
            commit("eu/product_events", 0, 70),
            commit("eu/quarantine", 0, 5),
            commit("eu/product_events", 1, 25),
        );
        fs::write(&companyos, script).unwrap();
        fs::set_permissions(&companyos, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let config = E2eConfig {
            brokers: "b".into(),
            topic: "t".into(),
            events: 100,
            bytes: 40_000,
            dlp: true,
            companyos,
            template,
            work_dir: folder.path().join("work"),
            timeout: Duration::from_secs(20),
        };
        let result = run(&config).unwrap();
        assert_eq!((result.rows, result.quarantined, result.commits, result.files), (95, 5, 2, 2));
        assert!(result.peak_rss_bytes > 0 && result.seconds < 20.0);
        let too_few = run(&E2eConfig { events: 101, timeout: Duration::from_secs(1), ..config });
        assert!(too_few.unwrap_err().to_string().contains("100 of 101 events"));
    }
}
