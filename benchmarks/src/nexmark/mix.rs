//! The events of our own mix: product events, SLI samples and security signals, as three topics.
//!
//! Of ten events six are product events (those of the other benchmarks), two are SLI samples and two are signals.
//! Signals are records of four vendors (`nexmark/signals.ndjson`), of which about one in a hundred is what a shipped rule
//! looks for. Event `i` of a stream depends on the seed, the base time and `i` alone.

use anyhow::{Context, Result};
use companyos_schemas::Stream;
use fastrand::Rng;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::generator::{Timestamps, pick, push_decimal, push_event_id, push_member};

/// Length of the time over which samples and signals are spread, in milliseconds.
const WINDOW_MS: u64 = 3_600_000;
/// Outlives a seed shared with the product events' generator: ids must differ between streams.
const SALT: u64 = 0x5163_4e41_4c53;

const SERVICES: [&str; 6] = ["checkout", "search", "accounts", "catalog", "payments", "mail"];
const SLI_TYPES: [&str; 3] = ["availability", "latency", "error_rate"];

/// How many of `events` are of each stream.
pub fn shares(events: u64) -> [(Stream, u64); 3] {
    let fifth = events / 5;
    [(Stream::ProductEvents, events - 2 * fifth), (Stream::SliMetrics, fifth), (Stream::SecuritySignals, fifth)]
}

/// Time of event `index` of `count`: they rise evenly over the hour before the base time.
fn time(base_ms: u64, index: u64, count: u64) -> u64 {
    base_ms - WINDOW_MS + WINDOW_MS * index / count.max(1)
}

/// Appends what every event begins with, up to and including its tenant and scope.
fn push_head(rng: &mut Rng, times: &mut Timestamps, ms: u64, index: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"event_id\":\"");
    push_event_id(out, ms, rng.u16(..), index);
    out.extend_from_slice(b"\",\"occurred_at\":\"");
    times.push(out, ms);
    out.push(b'"');
    push_member(out, "tenant", if rng.u32(0..10) < 8 { "alpha" } else { "beta" });
    push_member(out, "region", "eu-west-1");
    push_member(out, "env", if rng.u32(0..10) == 0 { "staging" } else { "prod" });
}

/// SLI samples of six services and three kinds.
#[derive(Debug)]
pub struct Samples {
    seed: u64,
    base_ms: u64,
    count: u64,
    times: Timestamps,
}

impl Samples {
    /// `count` samples over the hour before `base_ms`.
    pub fn new(seed: u64, base_ms: u64, count: u64) -> Self {
        Self { seed: seed ^ SALT, base_ms, count, times: Timestamps::default() }
    }

    /// Appends sample `index`.
    pub fn write_event(&mut self, index: u64, out: &mut Vec<u8>) {
        let mut rng = Rng::with_seed(self.seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        push_head(&mut rng, &mut self.times, time(self.base_ms, index, self.count), index, out);
        push_member(out, "service", pick(&mut rng, &SERVICES));
        push_member(out, "sli_type", pick(&mut rng, &SLI_TYPES));
        push_member(out, "window", "10s");
        let total = rng.u64(50..2_000);
        let bad = if rng.u32(0..50) == 0 { rng.u64(0..20) } else { 0 };
        out.extend_from_slice(b",\"value\":0.9");
        push_decimal(out, rng.u64(0..1_000), 3);
        out.extend_from_slice(b",\"objective\":0.999,\"good\":");
        push_decimal(out, total - bad, 1);
        out.extend_from_slice(b",\"total\":");
        push_decimal(out, total, 1);
        out.push(b'}');
    }
}

#[derive(Deserialize)]
struct Template<'a> {
    weight: u32,
    source: &'a str,
    #[serde(borrow)]
    evidence: &'a RawValue,
}

/// Security signals from the templates.
#[derive(Debug)]
pub struct Signals {
    seed: u64,
    base_ms: u64,
    count: u64,
    times: Timestamps,
    templates: Vec<Prepared>,
}

/// A template, cut at its placeholders.
#[derive(Debug)]
struct Prepared {
    /// Sum of the weights up to and including this one.
    up_to: u32,
    source: String,
    /// A text, then the placeholder that follows it.
    pieces: Vec<(String, Option<Placeholder>)>,
}

#[derive(Debug, Clone, Copy)]
enum Placeholder {
    Time,
    Ip,
    User,
    Number,
}

const PLACEHOLDERS: [(&str, Placeholder); 4] = [
    ("{time}", Placeholder::Time),
    ("{ip}", Placeholder::Ip),
    ("{user}", Placeholder::User),
    ("{n}", Placeholder::Number),
];

impl Signals {
    /// `count` signals over the hour before `base_ms`.
    pub fn new(seed: u64, base_ms: u64, count: u64) -> Result<Self> {
        let mut templates = Vec::new();
        let mut up_to = 0;
        for line in include_str!("../../nexmark/signals.ndjson").lines() {
            let template: Template<'_> = serde_json::from_str(line).context("signals.ndjson")?;
            up_to += template.weight;
            templates.push(Prepared {
                up_to,
                source: template.source.to_owned(),
                pieces: pieces(template.evidence.get()),
            });
        }
        Ok(Self { seed: seed ^ SALT ^ 1, base_ms, count, times: Timestamps::default(), templates })
    }

    /// Appends signal `index`.
    pub fn write_event(&mut self, index: u64, out: &mut Vec<u8>) {
        let mut rng = Rng::with_seed(self.seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let ms = time(self.base_ms, index, self.count);
        push_head(&mut rng, &mut self.times, ms, index, out);
        let drawn = rng.u32(0..self.templates.last().map_or(1, |last| last.up_to));
        let Some(template) = self.templates.iter().find(|template| drawn < template.up_to) else { return };
        let user = rng.u64(0..2_000);
        out.extend_from_slice(b",\"actor\":\"user-");
        push_decimal(out, user, 4);
        out.push(b'"');
        push_member(out, "signal_type", "audit_record");
        push_member(out, "severity", "info");
        push_member(out, "source", &template.source);
        out.extend_from_slice(b",\"evidence\":");
        for (text, placeholder) in &template.pieces {
            out.extend_from_slice(text.as_bytes());
            match placeholder {
                Some(Placeholder::Time) => self.times.push(out, ms),
                Some(Placeholder::Ip) => {
                    // An address belongs to a user, so that most of them do not seem to travel.
                    out.extend_from_slice(b"198.51.");
                    push_decimal(out, user / 250, 1);
                    out.push(b'.');
                    push_decimal(out, user % 250 + 1, 1);
                }
                Some(Placeholder::User) => {
                    out.extend_from_slice(b"user-");
                    push_decimal(out, user, 4);
                }
                Some(Placeholder::Number) => push_decimal(out, rng.u64(0..500), 1),
                None => {}
            }
        }
        out.push(b'}');
    }
}

fn pieces(text: &str) -> Vec<(String, Option<Placeholder>)> {
    let mut pieces = Vec::new();
    let mut rest = text;
    loop {
        let next =
            PLACEHOLDERS.iter().filter_map(|(name, kind)| Some((rest.find(name)?, *name, *kind))).min_by_key(|p| p.0);
        let Some((at, name, kind)) = next else {
            pieces.push((rest.to_owned(), None));
            return pieces;
        };
        pieces.push((rest[..at].to_owned(), Some(kind)));
        rest = &rest[at + name.len()..];
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use serde_json::Value;

    use super::*;

    const BASE_MS: u64 = 1_767_225_600_000;

    fn check(stream: Stream, events: Vec<Vec<u8>>) -> Vec<Value> {
        let mut ids = HashSet::new();
        let mut before = String::new();
        events
            .into_iter()
            .map(|bytes| {
                let event: Value = serde_json::from_slice(&bytes).unwrap();
                for field in stream.fields().iter().filter(|f| f.required) {
                    assert!(!event[field.name].is_null(), "{} is missing from {event}", field.name);
                }
                let at = event["occurred_at"].as_str().unwrap().to_owned();
                assert!(at >= before, "times fall");
                before = at;
                assert!(ids.insert(event["event_id"].as_str().unwrap().to_owned()), "an id came twice");
                event
            })
            .collect()
    }

    #[test]
    fn samples_keep_the_contract_and_some_are_bad() {
        let mut samples = Samples::new(1, BASE_MS, 3_000);
        let written = (0..3_000).map(|i| {
            let mut out = Vec::new();
            samples.write_event(i, &mut out);
            out
        });
        let events = check(Stream::SliMetrics, written.collect());
        let bad = events.iter().filter(|e| e["good"].as_u64() < e["total"].as_u64()).count();
        assert!((20..150).contains(&bad), "{bad} of 3000 samples are bad");
    }

    #[test]
    fn signals_keep_the_contract_and_few_are_suspicious() {
        let mut signals = Signals::new(1, BASE_MS, 5_000).unwrap();
        let written = (0..5_000).map(|i| {
            let mut out = Vec::new();
            signals.write_event(i, &mut out);
            out
        });
        let mut by_source: HashMap<String, u32> = HashMap::new();
        let mut suspicious = 0;
        for event in check(Stream::SecuritySignals, written.collect()) {
            assert!(event["evidence"].is_object());
            let text = event["evidence"].to_string();
            assert!(PLACEHOLDERS.iter().all(|(name, _)| !text.contains(name)), "{text}");
            *by_source.entry(event["source"].as_str().unwrap().to_owned()).or_default() += 1;
            suspicious +=
                u32::from(event["evidence"]["eventName"] == "StopLogging" || event["evidence"]["verb"] == "create");
        }
        assert_eq!(by_source.len(), 4, "{by_source:?}");
        assert!((1..50).contains(&suspicious), "{suspicious} of 5000 signals");
    }
}
