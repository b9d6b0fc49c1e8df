//! The engine as a child process, started from a configuration template.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Fills `{{name}}` placeholders; refuses a template that asks for a value that is not given.
pub fn render(template: &str, values: &[(&str, &str)]) -> Result<String> {
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    if let Some(start) = text.find("{{") {
        let rest = &text[start..];
        bail!("the template has no value for {}", &rest[..rest.find("}}").map_or(rest.len(), |end| end + 2)]);
    }
    Ok(text)
}

/// A running role of the engine; killed when dropped.
pub struct Role {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Role {
    /// Runs `companyos ROLE --config CONFIG`, its output in `ROLE.log` beside the configuration.
    pub fn start(companyos: &Path, role: &str, config: &Path) -> Result<Self> {
        let log = config.with_file_name(format!("{role}.log"));
        let out = File::create(&log).with_context(|| log.display().to_string())?;
        let child = Command::new(companyos)
            .arg(role)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("starting {} {role}", companyos.display()))?;
        Ok(Self { name: role.to_owned(), child, log })
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of its log if the process has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}; its log ends:\n{}", self.name, self.log_end()),
        }
    }

    /// The last lines of its log.
    pub fn log_end(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let start = text.len().saturating_sub(4_000);
        String::from_utf8_lossy(&text[start..]).into_owned()
    }

    /// Asks the process to end (SIGTERM) and kills it if it does not within half a minute.
    pub fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("{} did not end within {STOP_TIMEOUT:?} and was killed; its log ends:\n{}", self.name, self.log_end())
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Nothing can be done here about a process that is already gone.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_or_refused_by_name() {
        assert_eq!(render("a = \"{{x}}\"\nb = {{y}}", &[("x", "1"), ("y", "true")]).unwrap(), "a = \"1\"\nb = true");
        let error = render("a = {{x}}\nb = {{other}}", &[("x", "1")]).unwrap_err().to_string();
        assert!(error.contains("{{other}}"), "{error}");
    }

    #[test]
    fn a_role_that_ends_early_is_reported_with_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("broken");
        fs::write(&program, "#!/bin/sh\necho no such topic >&2\nexit 3\n").unwrap();
        fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut role = Role::start(&program, "worker", &folder.path().join("c.toml")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let error = loop {
            match role.check_alive() {
                Err(error) => break error.to_string(),
                Ok(()) => assert!(Instant::now() < deadline, "the role's end went unnoticed"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(error.contains("no such topic") && error.contains("worker"), "{error}");
    }
}
