//! A peer that is driven from Python and runs in a JVM: its environment, and one measured run.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::process_tree::{ProcessTree, Usage};

/// A peer: a folder with job.py, requirements.txt and pom.xml, and where its packages are kept.
#[derive(Debug, Clone, Copy)]
pub struct PythonJob<'a> {
    /// Name, for messages and folders.
    pub name: &'a str,
    /// The folder.
    pub dir: &'a Path,
    /// Folder for the Python environment and the jars, kept between runs.
    pub cache_dir: &'a Path,
    /// Interpreters it has packages for, the first that is there is taken.
    pub interpreters: &'a [&'a str],
}

impl PythonJob<'_> {
    /// Makes the Python environment and fetches the jars, once per requirements.txt and pom.xml.
    pub fn prepare(&self) -> Result<()> {
        let requirements = self.dir.join("requirements.txt");
        let pom = self.dir.join("pom.xml");
        let wanted = fs::read_to_string(&requirements)? + &fs::read_to_string(&pom)?;
        let done = self.kept("prepared");
        if fs::read_to_string(&done).is_ok_and(|prepared| prepared == wanted) {
            return Ok(());
        }
        fs::create_dir_all(self.cache_dir)?;
        let venv = self.kept("venv");
        if !venv.join("bin/python").exists() {
            let python = self.interpreters.iter().find(|python| {
                let version =
                    Command::new(python).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
                version.is_ok_and(|status| status.success())
            });
            let python = python.with_context(|| format!("{} needs one of {:?}", self.name, self.interpreters))?;
            check(Command::new(python).args(["-m", "venv"]).arg(&venv))?;
        }
        check(Command::new(venv.join("bin/pip")).args(["install", "--quiet", "--requirement"]).arg(&requirements))?;
        let jars = self.jars();
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

    /// The start of a command: its interpreter with job.py.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.kept("venv").join("bin/python"));
        command.arg(self.dir.join("job.py"));
        command
    }

    /// Where its jars are.
    pub fn jars(&self) -> PathBuf {
        self.kept("jars")
    }

    /// Runs a command to its end: seconds from its start, and what it and its children used.
    pub fn run(&self, command: &mut Command, log: &Path, timeout: Duration) -> Result<(f64, Usage)> {
        let (name, shown) = (self.name, log.display());
        let out = File::create(log)?;
        let started = Instant::now();
        let command = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let mut job = command.spawn().with_context(|| format!("starting {name}"))?;
        let tree = ProcessTree::watch(job.id())?;
        let status = loop {
            if let Some(status) = job.try_wait()? {
                break status;
            }
            if started.elapsed() > timeout {
                job.kill()?;
                job.wait()?;
                bail!("{name} did not finish within {timeout:?}; see {shown}");
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let seconds = started.elapsed().as_secs_f64();
        let usage = tree.finish()?;
        ensure!(status.success(), "{name} ended with {status}; see {shown}");
        Ok((seconds, usage))
    }

    fn kept(&self, what: &str) -> PathBuf {
        self.cache_dir.join(format!("{}-{what}", self.name.to_lowercase()))
    }
}

fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
