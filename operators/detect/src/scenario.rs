//! Simulated attacks: sequences of events with relative times, and what must be found in them.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use companyos_schemas::Stream;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Finding,
    events::{self, Defaults, EventError},
};

/// An attack to simulate.
///
/// ```yaml
/// title: Prompts until one is accepted
/// description: An attacker has the password and pushes prompts until the user gives in.
/// steps:
///   - at: 0s
///     repeat: 5          # times, one `every` so long; {n} counts from 0, {run} is the run's id
///     every: 20s
///     event: { source: okta, record: { eventType: user.mfa.okta_verify.deny_push } }
/// expect: [stateful.mfa_fatigue]
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is.
    pub title: String,
    /// What the attacker does.
    pub description: String,
    /// The events.
    pub steps: Vec<Step>,
    /// Ids of the rules that must find something, and of no others.
    pub expect: BTreeSet<String>,
}

/// Some events.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// When the first happens, after the start.
    pub at: String,
    /// How many there are.
    #[serde(default = "one")]
    pub repeat: u32,
    /// Time between them.
    #[serde(default)]
    pub every: Option<String>,
    /// The event, as [`events::complete`] takes it.
    pub event: Value,
}

fn one() -> u32 {
    1
}

/// A scenario that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// A file that cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is not a scenario.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: serde_yaml_ng::Error,
    },
    /// A time that is not one.
    #[error("step {step}: {text:?} is not a duration such as 90s")]
    Duration {
        /// Which step, from 0.
        step: usize,
        /// What it says.
        text: String,
    },
    /// An event that is not one.
    #[error(transparent)]
    Event(#[from] EventError),
}

impl Scenario {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|source| ScenarioError::Read { path: name.clone(), source })?;
        serde_yaml_ng::from_str(&text).map_err(|source| ScenarioError::Parse { path: name, source })
    }

    /// The complete events in order of time, each with the stream it belongs to. `run` makes their
    /// ids unique, so that a scenario can be simulated again.
    pub fn render(&self, defaults: &Defaults, run: &str) -> Result<Vec<(Stream, Value)>, ScenarioError> {
        let mut timed: Vec<(Duration, Value)> = Vec::new();
        for (step, given) in self.steps.iter().enumerate() {
            let parse = |text: &str| {
                events::duration(text).ok_or_else(|| ScenarioError::Duration { step, text: text.to_owned() })
            };
            let start = parse(&given.at)?;
            let every = given.every.as_deref().map(parse).transpose()?.unwrap_or_default();
            for n in 0..given.repeat {
                let mut event = given.event.clone();
                fill(&mut event, n, run);
                timed.push((start.saturating_add(every.saturating_mul(n)), event));
            }
        }
        timed.sort_by_key(|(at, _)| *at);
        let defaults = Defaults { id_prefix: format!("sim-{run}-"), ..defaults.clone() };
        let complete = |(number, (at, mut event)): (usize, (Duration, Value))| {
            if let Value::Object(event) = &mut event {
                event.insert("at".to_owned(), Value::String(format!("{}s", at.as_secs())));
            }
            Ok(events::complete(&event, number, &defaults)?)
        };
        timed.into_iter().enumerate().map(complete).collect()
    }

    /// Expected rules without a finding, and rules with one that are not expected.
    pub fn compare<'a>(&'a self, findings: &'a [Finding]) -> (Vec<&'a str>, Vec<&'a str>) {
        let found: BTreeSet<&str> = findings.iter().map(|f| f.rule_id.as_str()).collect();
        let expected: BTreeSet<&str> = self.expect.iter().map(String::as_str).collect();
        (expected.difference(&found).copied().collect(), found.difference(&expected).copied().collect())
    }
}

fn fill(value: &mut Value, n: u32, run: &str) {
    match value {
        Value::String(text) if text.contains('{') => {
            *text = text.replace("{n}", &n.to_string()).replace("{run}", run);
        }
        Value::Array(values) => values.iter_mut().for_each(|v| fill(v, n, run)),
        Value::Object(map) => map.values_mut().for_each(|v| fill(v, n, run)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_interleave_by_time_and_are_filled_in() {
        let text = "
title: t
description: d
expect: []
steps:
  - { at: 1m, event: { signal_type: late } }
  - { at: 0s, repeat: 3, every: 40s, event: { signal_type: 's{n}', actor: '{run}' } }
";
        let scenario: Scenario = serde_yaml_ng::from_str(text).unwrap();
        let events = scenario.render(&Defaults::default(), "r1").unwrap();
        let said: Vec<_> = events.iter().map(|(_, e)| e["signal_type"].as_str().unwrap()).collect();
        assert_eq!(said, ["s0", "s1", "late", "s2"]);
        assert_eq!(events[1].1["actor"], "r1");
        assert_eq!(events[3].1["event_id"], "sim-r1-3");
        assert!(events[2].1["occurred_at"].as_str().unwrap().contains("10:01:00"));
    }
}
