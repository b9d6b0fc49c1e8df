//! Trust, exceptions, repeats, reloads and restarts.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use companyos_detect::{
    DetectOperator, Finding, Mode, RuleBook, RuleSetConfig,
    events::{self, Defaults},
};
use companyos_schemas::Stream;
use companyos_sigma::FieldMapping;
use companyos_stream::{ShardOperator, SnapshotKind, TailRows};
use serde_json::{Value, json};

pub(crate) const RULE: &str = "
title: Bad Thing
id: 11111111-1111-4111-8111-111111111111
status: stable
date: 2026-01-01
logsource: { product: companyos }
detection: { selection: { signal_type: bad }, condition: selection }
level: high
tags: [attack.impact]
";
pub(crate) const ID: &str = "11111111-1111-4111-8111-111111111111";

const CORRELATION: &str = "
title: Step
id: 22222222-2222-4222-8222-222222222222
name: step
status: stable
logsource: { product: companyos }
detection: { selection: { signal_type: step }, condition: selection }
---
title: Three Steps
id: 33333333-3333-4333-8333-333333333333
status: stable
correlation: { type: event_count, rules: [step], group-by: [actor], timespan: 10m, condition: { gte: 3 } }
level: high
";

pub(crate) fn book(config: &str, candidates: &[(String, String)]) -> Arc<RuleBook> {
    let config: RuleSetConfig = serde_yaml_ng::from_str(config).unwrap();
    let rules = [("bad.yaml".to_owned(), RULE.to_owned()), ("steps.yaml".to_owned(), CORRELATION.to_owned())];
    let book = RuleBook::from_texts(config, &rules, candidates, &FieldMapping::default()).unwrap();
    assert!(book.refused().is_empty(), "{:?}", book.refused());
    Arc::new(book)
}

/// Feeds events, one commit each; offsets go on from `offset`.
pub(crate) fn feed(operator: &mut DetectOperator, events: &[Value], offset: usize) {
    for (i, event) in events.iter().enumerate() {
        let (stream, event) = events::complete(event, offset + i, &Defaults::default()).unwrap();
        let at = DateTime::parse_from_rfc3339(event["occurred_at"].as_str().unwrap()).unwrap().with_timezone(&Utc);
        let batch = events::batch(stream, &[event], offset + i).unwrap();
        operator.on_rows(&TailRows { stream, version: 1, committed_at: at, batch: &batch }).unwrap();
        operator.on_time(at).unwrap();
    }
}

pub(crate) fn found(operator: &mut DetectOperator, events: &[Value]) -> Vec<Finding> {
    feed(operator, events, 0);
    operator.take_findings()
}

pub(crate) fn bad(at: &str, actor: &str) -> Value {
    json!({"signal_type": "bad", "actor": actor, "at": at})
}

pub(crate) fn step(at: &str) -> Value {
    json!({"signal_type": "step", "actor": "eve", "at": at})
}

#[test]
fn a_live_finding_is_a_row_and_a_notice() {
    let mut operator = DetectOperator::new(book("{}", &[])).unwrap();
    feed(&mut operator, &[bad("0s", "eve")], 7);
    let output = operator.take_output();
    assert_eq!(output.notices.len(), 1);
    assert_eq!((output.notices[0].kind, output.notices[0].tenant.as_str()), ("detection", "acme"));
    let body: Value = serde_json::from_str(&output.notices[0].body).unwrap();
    assert_eq!(body["rule_id"], ID);
    assert_eq!(body["entity"], "eve");
    assert_eq!(
        body["evidence"],
        json!([{"topic": "security_signals", "partition": 0, "offset": 7, "index": 0, "event_id": "event-7"}])
    );
    let (table, batch) = &output.rows[0];
    assert_eq!((table.name, batch.num_rows()), ("detections", 1));
    assert!(operator.take_output().is_empty());
}

#[test]
fn repeats_and_exceptions_are_recorded_and_not_sent() {
    let config = "
exceptions:
  dedup: 10m
  allow: [{ match: { entities: [scanner] }, until: 2026-01-06T00:00:00Z, reason: test }]
";
    let mut operator = DetectOperator::new(book(config, &[])).unwrap();
    let findings = found(
        &mut operator,
        &[bad("0s", "eve"), bad("9m", "eve"), bad("9m", "bob"), bad("10m", "eve"), bad("10m", "scanner")],
    );
    let said: Vec<_> = findings.iter().map(|f| f.suppressed_by.as_deref()).collect();
    assert_eq!(said, [None, Some("dedup"), None, None, Some("allow-list: test")]);
    operator.on_time(Utc::now()).unwrap();
    let mut operator = DetectOperator::new(book(config, &[])).unwrap();
    feed(&mut operator, &[bad("0s", "scanner"), bad("0s", "eve"), bad("1s", "eve")], 0);
    let output = operator.take_output();
    assert_eq!((output.rows[0].1.num_rows(), output.notices.len()), (3, 1));
}

#[test]
fn ids_are_the_same_in_every_run() {
    let ids = || -> Vec<String> {
        let mut operator = DetectOperator::new(book("{}", &[])).unwrap();
        let events = [bad("0s", "a"), step("1s"), step("2s"), step("3s"), bad("4s", "b")];
        found(&mut operator, &events).into_iter().map(|f| f.finding_id).collect()
    };
    let first = ids();
    assert_eq!(first.len(), 3);
    assert_eq!(first, ids());
}

#[test]
fn a_shadow_rule_and_a_canary_notify_nobody() {
    let shadow = format!("rollouts: [{{ rule: {ID}, mode: shadow }}]");
    let mut operator = DetectOperator::new(book(&shadow, &[])).unwrap();
    feed(&mut operator, &[bad("0s", "eve")], 0);
    let output = operator.take_output();
    assert_eq!((output.rows[0].1.num_rows(), output.notices.len()), (1, 0));

    let canary = |share: &str| {
        let config = format!("rollouts: [{{ rule: {ID}, mode: canary, share: {share}, candidate: new.yaml }}]");
        let new = RULE.replace("signal_type: bad", "signal_type: [bad, worse]").replace("2026-01-01", "2026-02-02");
        book(&config, &[("new.yaml".to_owned(), new)])
    };
    let run = |share: &str| {
        let mut operator = DetectOperator::new(canary(share)).unwrap();
        found(&mut operator, &[bad("0s", "eve"), json!({"signal_type": "worse", "actor": "eve", "at": "1s"})])
            .into_iter()
            .map(|f| (f.mode, f.rule_version.starts_with("2026-02-02")))
            .collect::<Vec<_>>()
    };
    assert_eq!(run("0.0"), [(Mode::Live, false)], "the live version stays live");
    assert_eq!(run("1.0"), [(Mode::Live, false), (Mode::Canary, true), (Mode::Canary, true)]);
}

#[test]
fn false_positives_take_a_version_back_and_a_new_version_is_not_its_heir() {
    let book = book("rollback: { min_feedback: 3, max_false_positives: 0.5 }", &[]);
    let version = book.rules().iter().find(|r| r.id == ID).unwrap().version.clone();
    let verdict = |verdict: &str| {
        json!({"stream": "audit_events", "action": "finding_feedback", "resource": "f", "actor": "analyst",
            "payload": {"rule_id": ID, "rule_version": version, "verdict": verdict}})
    };
    let mut operator = DetectOperator::new(Arc::clone(&book)).unwrap();
    feed(&mut operator, &[verdict("false_positive"), verdict("false_positive"), verdict("maybe")], 0);
    assert_eq!((operator.counts().rollbacks, operator.counts().bad_feedback), (0, 1));
    assert_eq!(found(&mut operator, &[bad("0s", "a")])[0].mode, Mode::Live);
    feed(&mut operator, &[verdict("true_positive")], 0);
    assert_eq!(operator.counts().rollbacks, 1, "two of three are wrong");
    // It stays taken back after a restart.
    let state = operator.snapshot(SnapshotKind::Full).unwrap();
    let mut operator = DetectOperator::new(book).unwrap();
    operator.restore(&state).unwrap();
    assert_eq!(found(&mut operator, &[bad("1s", "b")])[0].mode, Mode::Shadow);
}

#[test]
fn state_survives_a_restart_and_a_reload() {
    let three: Vec<Value> = ["0s", "10s", "20s"].map(step).to_vec();
    let expected: Vec<_> = found(&mut DetectOperator::new(book("{}", &[])).unwrap(), &three);
    assert_eq!(expected.len(), 1);

    let mut first = DetectOperator::new(book("{}", &[])).unwrap();
    let full = first.snapshot(SnapshotKind::Full).unwrap();
    feed(&mut first, &three[..2], 0);
    let more = first.snapshot(SnapshotKind::Incremental).unwrap();
    let mut second = DetectOperator::new(book("{}", &[])).unwrap();
    second.restore(&full).unwrap();
    second.restore(&more).unwrap();
    feed(&mut second, &three[2..], 2);
    assert_eq!(second.take_findings(), expected, "restored");

    let mut reloaded = DetectOperator::new(book("{}", &[])).unwrap();
    feed(&mut reloaded, &three[..2], 0);
    reloaded.set_rules(book("exceptions: { dedup: 5m }", &[])).unwrap();
    feed(&mut reloaded, &three[2..], 2);
    assert_eq!(reloaded.take_findings(), expected, "reloaded");
}

#[test]
fn late_rows_are_seen_by_rules_and_not_by_windows() {
    let mut operator = DetectOperator::new(book("lateness: 1m", &[])).unwrap();
    let findings = found(&mut operator, &[step("1h"), bad("0s", "eve"), step("0s"), step("1s"), step("2s")]);
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].rule_id, ID);
    assert_eq!(operator.stats().late_rows, 4);
    assert_eq!(operator.inputs().iter().filter(|i| i.stream == Stream::SecuritySignals).count(), 1);
}

#[test]
fn tenants_are_never_mixed() {
    let mut events: Vec<Value> = ["0s", "10s", "20s"].map(step).to_vec();
    events[1]["tenant"] = json!("other");
    let mut operator = DetectOperator::new(book("{}", &[])).unwrap();
    assert_eq!(found(&mut operator, &events), []);
}

#[test]
fn a_source_that_must_sign_is_not_believed_without() {
    let config = "trust: { sources: { gateway: { required: true, mtls: [nobody] } } }";
    let mut operator = DetectOperator::new(book(config, &[])).unwrap();
    let mut forged = bad("0s", "eve");
    forged["source"] = json!("gateway");
    let findings = found(&mut operator, &[forged, bad("1s", "bob")]);
    assert_eq!(findings.iter().map(|f| f.entity.as_str()).collect::<Vec<_>>(), ["bob"]);
    assert_eq!(operator.trust().refused, 1);
}
