//! One `companyos` process whose log is a file that can be waited on.

use std::{
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{until, within};

/// A running process; killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `binary` with its output in `folder/name.log`.
    pub(crate) fn start(binary: &Path, folder: &Path, name: &str, arguments: &[&OsStr]) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let child = Command::new(binary)
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {} for {name}", binary.display()))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Whether a line with this text was logged.
    pub(crate) fn has_logged(&self, text: &str) -> Result<bool> {
        Ok(!self.lines_with(text)?.is_empty())
    }

    fn lines_with(&self, text: &str) -> Result<Vec<String>> {
        let log = String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned();
        // What follows the last line's end may be half of a line.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        Ok(whole.lines().filter(|line| line.contains(text)).map(str::to_owned).collect())
    }

    /// What follows `text` in the first line that has it, up to the next blank.
    pub(crate) async fn word_after(&mut self, text: &str) -> Result<String> {
        let what = format!("{text:?} in the log of {}", self.name);
        let line = until(&what, within(60), async || {
            self.check()?;
            Ok(self.lines_with(text)?.into_iter().next())
        })
        .await?;
        let rest = line.split_once(text).map(|(_, rest)| rest.trim_start()).unwrap_or_default();
        Ok(rest.split_whitespace().next().unwrap_or_default().to_owned())
    }

    /// Fails if it ended by itself: none has a reason to.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let end: Vec<&str> = log.lines().rev().take(5).collect();
            let end: Vec<&str> = end.into_iter().rev().collect();
            bail!("{} ended by itself ({status}), saying last:\n{}", self.name, end.join("\n"));
        }
        Ok(())
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for a clean end.
    pub(crate) async fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM)?;
        let status = until(&format!("{} to stop", self.name), within(60), async || Ok(self.child.try_wait()?)).await?;
        if !status.success() {
            bail!("{} did not end well: {status}", self.name);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing can be done about one that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
