//! One broker's JVM: storage formatted, process started, its end noticed.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{layout::Place, probe};

const READY_WITHIN: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);

const LOGGING: &str = "\
log4j.rootLogger=INFO, out
log4j.appender.out=org.apache.log4j.ConsoleAppender
log4j.appender.out.layout=org.apache.log4j.PatternLayout
log4j.appender.out.layout.ConversionPattern=%d{ISO8601} %-5p %c{1} %m%n
";

/// Why a start failed; only a taken port is worth another try.
#[derive(Debug)]
pub(super) struct PortTaken;

impl std::fmt::Display for PortTaken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a port was taken before Kafka could bind it")
    }
}

impl std::error::Error for PortTaken {}

fn java(jars: &Path) -> Command {
    let mut command = Command::new("java");
    command.arg("-cp").arg(jars.join("*"));
    command
}

/// Writes the cluster's id into the broker's storage; leaves storage alone that has one.
pub(super) fn format(jars: &Path, place: &Place, cluster_id: &str) -> Result<()> {
    if place.data().join("meta.properties").is_file() {
        return Ok(());
    }
    let output = java(jars)
        .args(["-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c"])
        .arg(place.file("properties"))
        .output()
        .context("running java (17 or later)")?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("formatting the storage of broker {}: {}", place.id, String::from_utf8_lossy(&said));
    }
    Ok(())
}

/// Starts the JVM in a process group of its own, so that Ctrl-C at a terminal reaches only its parent.
pub(super) fn spawn(jars: &Path, place: &Place) -> Result<Child> {
    use std::os::unix::process::CommandExt;

    let logging = place.file("log4j.properties");
    fs::write(&logging, LOGGING)?;
    let log = File::options().create(true).append(true).open(place.file("log"))?;
    let child = java(jars)
        .args(["-Xmx512m", "-Xms128m", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true"])
        .arg(format!("-Dlog4j.configuration=file:{}", logging.display()))
        .arg("kafka.Kafka")
        .arg(place.file("properties"))
        .current_dir(&place.dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("running java (17 or later)")?;
    fs::write(place.file("pid"), child.id().to_string())?;
    Ok(child)
}

/// Waits until the broker at `place` answers and sees at least `live` brokers; `ended` tells of its JVM's end.
pub(super) fn wait_ready(place: &Place, live: usize, mut ended: impl FnMut() -> Result<Option<String>>) -> Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        let seen = probe::live_brokers(place.port);
        if let Some(status) = ended()? {
            let log = log_tail(place);
            let error = anyhow::anyhow!("broker {} ended with {status} at start:\n{log}", place.id);
            return Err(if log.contains("BindException") || log.contains("Address already in use") {
                error.context(PortTaken)
            } else {
                error
            });
        }
        match seen {
            Ok(seen) if seen >= live => return Ok(()),
            seen if Instant::now() > deadline => {
                let state = seen.map_or_else(|e| e.to_string(), |n| format!("it sees {n} of {live} brokers"));
                bail!("broker {} is not ready after {READY_WITHIN:?}: {state}\n{}", place.id, log_tail(place));
            }
            _ => std::thread::sleep(POLL),
        }
    }
}

/// Waits for `done`, false if it did not come true in time.
pub(super) fn poll(within: Duration, mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + within;
    loop {
        if done()? {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Ok(false);
        }
        std::thread::sleep(POLL);
    }
}

/// The last lines that the broker logged.
pub(super) fn log_tail(place: &Place) -> String {
    let text = fs::read(place.file("log")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// Kills a broker when this process dies in whatever way, SIGKILL included, and removes its temporary folder: a
/// shell that waits for the end of a pipe which only this process holds. (A cluster in a `static` is never dropped.)
#[derive(Debug)]
pub(super) struct Guard {
    shell: Child,
    _pipe: Option<ChildStdin>,
}

/// `$1` is the broker's process, `$2` the folder or nothing. The wait is bounded, as a zombie can still be signalled.
const GUARD: &str = r#"
read _
kill -9 "$1"
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$1" || break; sleep 0.2; done
[ -z "$2" ] || rm -rf "$2"
"#;

impl Guard {
    pub(super) fn new(child: &Child, temporary: Option<&Path>) -> Result<Self> {
        use std::os::unix::process::CommandExt;

        let mut shell = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(child.id().to_string())
            .arg(temporary.unwrap_or(Path::new("")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("running sh")?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, _pipe: pipe })
    }

    /// Ends the shell before the broker ends: the broker's process id may soon be another's.
    pub(super) fn disarm(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_kills_and_cleans_up_when_its_pipe_ends() {
        let folder = tempfile::tempdir().unwrap().keep();
        let mut broker = Command::new("sleep").arg("600").spawn().unwrap();
        let mut guard = Guard::new(&broker, Some(&folder)).unwrap();
        assert!(broker.try_wait().unwrap().is_none());
        guard._pipe = None;
        assert!(!broker.wait().unwrap().success());
        assert!(poll(Duration::from_secs(30), || Ok(!folder.exists())).unwrap(), "the folder is still there");
        guard.disarm();
    }
}
