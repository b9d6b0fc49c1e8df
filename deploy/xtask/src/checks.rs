//! The one test command: every check a change must pass, each named with its time.

use std::{
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{kafka::jars, layers};

/// A part of the test command, for running alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Step {
    /// Fetch Kafka's jars
    Kafka,
    /// The layer order
    Layers,
    /// `cargo fmt --check`
    Format,
    /// All tests
    Test,
    /// Clippy, warnings are errors
    Lint,
    /// Licences and advisories, if cargo-deny is installed
    Deny,
}

const ALL: [Step; 6] = [Step::Kafka, Step::Layers, Step::Format, Step::Lint, Step::Test, Step::Deny];

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Skipped(&'static str),
    Failed(String),
}

/// Runs the steps (all if `only` is empty), goes on after one that failed, and sums up.
pub fn run(only: &[Step]) -> Result<ExitCode> {
    let mut done = Vec::new();
    for step in ALL.into_iter().filter(|step| only.is_empty() || only.contains(step)) {
        println!("\n== {}", name(step));
        let started = Instant::now();
        let outcome = perform(step).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        done.push((step, outcome, started.elapsed()));
    }
    println!("\n{}", summary(&done));
    let failed = done.iter().any(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_)));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn name(step: Step) -> &'static str {
    match step {
        Step::Kafka => "kafka jars",
        Step::Layers => "layers",
        Step::Format => "cargo fmt --check",
        Step::Lint => "cargo clippy",
        Step::Test => "cargo test",
        Step::Deny => "cargo deny check",
    }
}

fn perform(step: Step) -> Result<Outcome> {
    match step {
        Step::Kafka => {
            println!("{}", jars::fetch()?.display());
            Ok(Outcome::Passed)
        }
        Step::Layers => {
            let violations = layers::check()?;
            if violations.is_empty() { Ok(Outcome::Passed) } else { Ok(Outcome::Failed(violations.join("; "))) }
        }
        Step::Format => cargo(&["fmt", "--all", "--check"]),
        Step::Lint => cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        Step::Test => cargo(&["test", "--workspace", "--no-fail-fast"]),
        Step::Deny => {
            let installed = Command::new("cargo-deny").arg("--version").output().is_ok_and(|o| o.status.success());
            if installed { cargo(&["deny", "check"]) } else { Ok(Outcome::Skipped("cargo-deny is not installed")) }
        }
    }
}

fn cargo(arguments: &[&str]) -> Result<Outcome> {
    // Not $CARGO: that is this toolchain's binary, and a user may have wrapped the name.
    let status = Command::new("cargo").args(arguments).current_dir(root()?).status().context("running cargo")?;
    Ok(if status.success() { Outcome::Passed } else { Outcome::Failed(status.to_string()) })
}

fn root() -> Result<&'static Path> {
    match Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2) {
        Some(root) => Ok(root),
        None => bail!("xtask has moved within the repository"),
    }
}

fn summary(done: &[(Step, Outcome, Duration)]) -> String {
    let line = |(step, outcome, took): &(Step, Outcome, Duration)| {
        let word = match outcome {
            Outcome::Passed => "passed".to_owned(),
            Outcome::Skipped(why) => format!("skipped: {why}"),
            Outcome::Failed(why) => format!("FAILED: {why}"),
        };
        format!("{:<18} {:>8.1} s  {word}", name(*step), took.as_secs_f64())
    };
    done.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_tells_why() {
        let done = [
            (Step::Layers, Outcome::Failed("low depends on high".to_owned()), Duration::from_millis(1500)),
            (Step::Deny, Outcome::Skipped("not there"), Duration::ZERO),
        ];
        let text = summary(&done);
        assert!(text.contains("FAILED: low depends on high") && text.contains("1.5 s"), "{text}");
        assert!(text.contains("skipped: not there"), "{text}");
    }

    #[test]
    fn the_root_holds_the_workspace() {
        assert!(root().unwrap().join("deploy/kafka/pom.xml").is_file());
    }
}
