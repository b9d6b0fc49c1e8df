//! The workers of a run, as processes.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// All workers, newest last. Dropping kills them.
pub(crate) struct Fleet {
    data: PathBuf,
    bootstrap: String,
    seed: u64,
    started: u64,
    workers: Vec<Process>,
}

struct Process {
    number: u64,
    child: Child,
    paused: bool,
}

impl Fleet {
    pub(crate) fn new(data: PathBuf, bootstrap: String, seed: u64) -> Self {
        Self { data, bootstrap, seed, started: 0, workers: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.workers.len()
    }

    /// Starts one more.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.started += 1;
        let log = File::create(self.data.join(format!("worker-{}.log", self.started)))?;
        let child = Command::new(std::env::current_exe()?)
            .args(["worker", "--bootstrap", &self.bootstrap, "--data"])
            .arg(&self.data)
            .args(["--seed", &(self.seed ^ self.started).to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting a worker")?;
        self.workers.push(Process { number: self.started, child, paused: false });
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, index: usize) -> Result<()> {
        let mut process = self.workers.remove(index);
        process.child.kill()?;
        process.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for a clean end.
    pub(crate) async fn stop(&mut self, index: usize) -> Result<()> {
        let mut process = self.workers.remove(index);
        process.signal(Signal::SIGTERM)?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if let Some(status) = process.child.try_wait()? {
                if !status.success() {
                    bail!("worker {} did not end well: {status}", process.number);
                }
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        process.child.kill()?;
        bail!("worker {} did not stop", process.number)
    }

    /// SIGSTOP.
    pub(crate) fn pause(&mut self, index: usize) -> Result<()> {
        self.workers[index].paused = true;
        self.workers[index].signal(Signal::SIGSTOP)
    }

    /// SIGCONT for every paused one.
    pub(crate) fn wake_all(&mut self) -> Result<()> {
        for process in self.workers.iter_mut().filter(|p| p.paused) {
            process.paused = false;
            process.signal(Signal::SIGCONT)?;
        }
        Ok(())
    }

    /// Fails if a worker ended by itself: none has a reason to.
    pub(crate) fn check(&mut self) -> Result<()> {
        for process in &mut self.workers {
            if let Some(status) = process.child.try_wait()? {
                let log = self.data.join(format!("worker-{}.log", process.number));
                bail!("worker {} ended by itself ({status}); see {}", process.number, log.display());
            }
        }
        Ok(())
    }
}

impl Process {
    fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("{signal} to worker {}", self.number))
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for process in &mut self.workers {
            // Nothing can be done about one that is gone already.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}
