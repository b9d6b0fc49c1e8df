//! CPU time and memory of a process and everything it started, read from /proc.
//!
//! A process is followed by id and start time, so that a reused id is not mistaken for it, and one
//! that outlives its parent is still counted. What a process uses between the last look and its end
//! is missed; at the interval used (200 ms) that is well under a percent of any run here.

use std::{
    collections::{HashMap, HashSet},
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use nix::unistd::{SysconfVar, sysconf};
use serde::{Deserialize, Serialize};

const INTERVAL: Duration = Duration::from_millis(200);

/// What a tree of processes has used since each of them began.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// User and system CPU seconds of all processes.
    pub cpu_s: f64,
    /// Sum over the processes of each one's peak resident memory (`VmHWM`), in bytes: exact for one
    /// process, an upper bound for more.
    pub peak_rss_bytes: u64,
}

/// Watches a process tree from a thread of its own until asked for the result.
pub struct ProcessTree {
    stop: Arc<AtomicBool>,
    watcher: JoinHandle<Watched>,
}

type Watched = HashMap<Identity, Usage>;

/// Process id and start time in ticks since boot.
type Identity = (u32, u64);

struct Stat {
    identity: Identity,
    parent: u32,
    cpu_ticks: u64,
}

impl ProcessTree {
    /// Starts to watch `root` and its descendants.
    pub fn watch(root: u32) -> Result<Self> {
        let ticks_per_s = sysconf(SysconfVar::CLK_TCK)?.context("the system has no clock tick")? as f64;
        let first = read_stat(root).with_context(|| format!("process {root} is gone"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let watcher = thread::spawn(move || {
            let mut watched = Watched::from([(first.identity, usage(&first, ticks_per_s, None))]);
            loop {
                let last = stopped.load(Ordering::Acquire);
                look(&mut watched, ticks_per_s);
                if last {
                    return watched;
                }
                thread::park_timeout(INTERVAL);
            }
        });
        Ok(Self { stop, watcher })
    }

    /// Looks once more and returns what was used. Call it before the processes are waited for.
    pub fn finish(self) -> Result<Usage> {
        self.stop.store(true, Ordering::Release);
        self.watcher.thread().unpark();
        let watched = self.watcher.join().map_err(|_| anyhow!("the watching thread panicked"))?;
        Ok(Usage {
            cpu_s: watched.values().map(|u| u.cpu_s).sum(),
            peak_rss_bytes: watched.values().map(|u| u.peak_rss_bytes).sum(),
        })
    }
}

fn look(watched: &mut Watched, ticks_per_s: f64) {
    let Ok(entries) = fs::read_dir("/proc") else { return };
    let mut stats: Vec<Stat> =
        entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(read_stat).collect();
    // A parent starts before its children, so one pass in that order finds whole trees.
    stats.sort_unstable_by_key(|s| (s.identity.1, s.identity.0));
    let mut tree = HashSet::new();
    for stat in stats {
        let known = watched.get(&stat.identity).copied();
        if known.is_some() || tree.contains(&stat.parent) {
            tree.insert(stat.identity.0);
            watched.insert(stat.identity, usage(&stat, ticks_per_s, known));
        }
    }
}

fn usage(stat: &Stat, ticks_per_s: f64, before: Option<Usage>) -> Usage {
    let before = before.unwrap_or(Usage { cpu_s: 0.0, peak_rss_bytes: 0 });
    // A process that has ended but was not waited for still has its times, not its memory.
    let peak = peak_rss(stat.identity.0).unwrap_or_default();
    Usage { cpu_s: stat.cpu_ticks as f64 / ticks_per_s, peak_rss_bytes: peak.max(before.peak_rss_bytes) }
}

fn read_stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the numbers start after the last one.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        identity: (pid, number(19)?),
        parent: u32::try_from(number(1)?).ok()?,
        cpu_ticks: number(11)? + number(12)?,
    })
}

fn peak_rss(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn counts_a_child_of_a_child_and_its_memory() {
        // The shell's child burns CPU and fills 64 MiB while the shell itself waits.
        let program = "d = bytearray(64 << 20)\nimport time\nwhile time.process_time() < 0.6: pass";
        let mut shell = Command::new("sh").arg("-c").arg(format!("python3 -c '{program}'; true")).spawn().unwrap();
        let tree = ProcessTree::watch(shell.id()).unwrap();
        shell.wait().unwrap();
        let usage = tree.finish().unwrap();
        assert!((0.3..5.0).contains(&usage.cpu_s), "{usage:?}");
        assert!(usage.peak_rss_bytes > 64 << 20, "{usage:?}");
    }
}
