//! `cargo xtask kafka up` and `down`: brokers that outlive the command.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::{
    cluster::CLUSTER_ID,
    jars,
    layout::{self, Place},
    probe, process,
};

/// Kafka's own.
pub const DEFAULT_PORT: u16 = 9092;

const STOP_WITHIN: Duration = Duration::from_secs(30);

/// Starts brokers in the background and returns their bootstrap servers; those of the running ones if they run.
///
/// Without `dir` the data starts empty and goes with [`down`].
pub fn up(brokers: u16, port: u16, dir: Option<PathBuf>) -> Result<String> {
    let temporary = dir.is_none();
    let dir = folder(dir)?;
    let running = running(&dir)?;
    if !running.is_empty() {
        if running.iter().any(|(place, _)| probe::live_brokers(place.port).is_err()) {
            bail!("brokers run in {} but do not answer: `cargo xtask kafka down` first", dir.display());
        }
        eprintln!("Kafka is already running in {}", dir.display());
        return Ok(bootstrap(running.iter().map(|(place, _)| place)));
    }
    if temporary && dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("emptying {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let dir = dir.canonicalize()?;
    let jars = jars::fetch()?;
    let places = layout::places(&dir, brokers, port)?;
    layout::write_properties(&places, &[])?;
    let started = start(&jars, &places);
    if started.is_err() {
        down_in(&dir)?;
    }
    started?;
    Ok(bootstrap(&places))
}

/// Stops the brokers that [`up`] started with the same `dir` and returns how many ran.
pub fn down(dir: Option<PathBuf>) -> Result<usize> {
    let temporary = dir.is_none();
    let dir = folder(dir)?;
    let stopped = down_in(&dir)?;
    if temporary && dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    Ok(stopped)
}

fn folder(dir: Option<PathBuf>) -> Result<PathBuf> {
    match dir {
        Some(dir) if dir.exists() => Ok(dir.canonicalize()?),
        Some(dir) => Ok(dir),
        None => Ok(crate::cache_dir()?.join("kafka-run")),
    }
}

fn bootstrap<'a>(places: impl IntoIterator<Item = &'a Place>) -> String {
    places.into_iter().map(Place::address).collect::<Vec<_>>().join(",")
}

fn start(jars: &Path, places: &[Place]) -> Result<()> {
    let mut children = Vec::new();
    for place in places {
        process::format(jars, place, CLUSTER_ID)?;
        children.push((place, process::spawn(jars, place)?));
    }
    for (place, child) in &mut children {
        process::wait_ready(place, places.len(), || Ok(child.try_wait()?.map(|status| status.to_string())))?;
    }
    Ok(())
}

fn down_in(dir: &Path) -> Result<usize> {
    let running = running(dir)?;
    for (_, pid) in &running {
        kill_process(*pid, Signal::TERM)?;
    }
    for (place, pid) in &running {
        let gone = |pid: Pid| Ok(test_kill_process(pid).is_err() || !is_broker(pid, place));
        if !process::poll(STOP_WITHIN, || gone(*pid))? {
            eprintln!("broker {} does not stop, killing it", place.id);
            kill_process(*pid, Signal::KILL)?;
            process::poll(STOP_WITHIN, || gone(*pid))?;
        }
        let _ = fs::remove_file(place.file("pid"));
    }
    Ok(running.len())
}

/// The brokers whose process lives.
fn running(dir: &Path) -> Result<Vec<(Place, Pid)>> {
    let mut running = Vec::new();
    for place in layout::read_places(dir)? {
        let Ok(text) = fs::read_to_string(place.file("pid")) else { continue };
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|pid| is_broker(*pid, &place)) {
            running.push((place, pid));
        }
    }
    Ok(running)
}

/// A process id outlives its process in the file, so its command line must name the broker's own settings.
fn is_broker(pid: Pid, place: &Place) -> bool {
    let command = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    let settings = place.file("properties");
    command.split(|byte| *byte == 0).any(|argument| argument == settings.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_with_the_old_id_is_not_taken_for_the_broker() {
        let dir = tempfile::tempdir().unwrap();
        let places = layout::places(dir.path(), 1, 0).unwrap();
        layout::write_properties(&places, &[]).unwrap();
        fs::write(places[0].file("pid"), std::process::id().to_string()).unwrap();
        assert!(running(dir.path()).unwrap().is_empty());
        assert_eq!(down(Some(dir.path().to_owned())).unwrap(), 0);
    }
}
