//! Rules changed while running, candidates taken back, and quiet times that begin and end.

use companyos_detect::{DetectOperator, Finding, Mode};
use companyos_stream::{ShardOperator, SnapshotKind};
use serde_json::{Value, json};

use crate::operating::{ID, RULE, bad, book, feed, found, step};

fn verdict(version: &str, verdict: &str) -> Value {
    json!({"stream": "audit_events", "action": "finding_feedback", "resource": "f", "actor": "analyst",
        "payload": {"rule_id": ID, "rule_version": version, "verdict": verdict}})
}

fn login(at: &str, outcome: &str) -> Value {
    json!({"signal_type": format!("login_{outcome}"), "actor": "eve", "at": at})
}

fn said(findings: &[Finding]) -> Vec<Option<&str>> {
    findings.iter().map(|f| f.suppressed_by.as_deref()).collect()
}

const FORCE: &str = "detectors: { brute_force: { failures: 2, window: 10m } }";

#[test]
fn a_reload_keeps_detectors_repeats_and_feedback() {
    let first = book(FORCE, &[]);
    let version = first.rules().iter().find(|r| r.id == ID).unwrap().version.clone();
    let mut operator = DetectOperator::new(first).unwrap();
    let before = found(&mut operator, &[bad("0s", "eve"), login("1s", "failed"), login("2s", "failed")]);
    assert_eq!(said(&before), [None]);
    operator.set_rules(book(&format!("{FORCE}\nexceptions: {{ dedup: 2h }}"), &[])).unwrap();
    feed(&mut operator, &[login("3s", "success"), bad("90m", "eve")], 3);
    let after = operator.take_findings();
    let rules: Vec<_> = after.iter().map(|f| f.rule_id.as_str()).collect();
    assert_eq!(rules, ["stateful.brute_force", ID]);
    assert_eq!(said(&after), [None, Some("dedup")], "the finding before the reload is remembered");

    let tired: Vec<Value> = (0..10).map(|_| verdict(&version, "false_positive")).collect();
    feed(&mut operator, &tired, 10);
    operator.set_rules(book(FORCE, &[])).unwrap();
    assert_eq!(found(&mut operator, &[bad("3h", "bob")])[0].mode, Mode::Shadow, "it stays taken back");
}

#[test]
fn what_happens_around_a_reload_is_in_the_snapshots() {
    let mut operator = DetectOperator::new(book(FORCE, &[])).unwrap();
    let mut chain = operator.snapshot(SnapshotKind::Full).unwrap();
    feed(&mut operator, &[step("0s"), login("1s", "failed")], 0);
    // Not yet stored when the rules change.
    operator.set_rules(book(&format!("{FORCE}\nexceptions: {{ dedup: 2h }}"), &[])).unwrap();
    feed(&mut operator, &[step("2s"), login("3s", "failed")], 2);
    chain.extend(operator.snapshot(SnapshotKind::Incremental).unwrap());
    let last = [step("4s"), login("5s", "success")];
    feed(&mut operator, &last, 4);
    let expected = operator.take_findings();
    assert_eq!(expected.len(), 2);

    let mut restored = DetectOperator::new(book(&format!("{FORCE}\nexceptions: {{ dedup: 2h }}"), &[])).unwrap();
    restored.restore(&chain).unwrap();
    feed(&mut restored, &last, 4);
    assert_eq!(restored.take_findings(), expected);
}

/// Modes by whether the finding is the candidate's.
fn modes(findings: &[Finding]) -> Vec<(bool, Mode)> {
    findings.iter().map(|f| (f.rule_version.starts_with("2026-02-02"), f.mode)).collect()
}

fn canary(rollback: &str) -> DetectOperator {
    let config =
        format!("rollouts: [{{ rule: {ID}, mode: canary, share: 1.0, candidate: new.yaml }}]\nrollback: {rollback}");
    let new = RULE.replace("signal_type: bad", "signal_type: [bad, worse]").replace("2026-01-01", "2026-02-02");
    DetectOperator::new(book(&config, &[("new.yaml".to_owned(), new)])).unwrap()
}

#[test]
fn a_canary_that_cries_wolf_is_taken_back_and_the_live_version_stays() {
    let mut operator = canary("{ min_feedback: 3, max_false_positives: 0.5 }");
    let first = found(&mut operator, &[bad("0s", "a")]);
    assert_eq!(modes(&first), [(false, Mode::Live), (true, Mode::Canary)]);
    let candidate = first[1].rule_version.clone();
    feed(&mut operator, &[verdict(&candidate, "false_positive"), verdict(&candidate, "false_positive")], 1);
    assert_eq!(modes(&found(&mut operator, &[bad("1s", "b")]))[1], (true, Mode::Canary), "two are not enough");
    feed(&mut operator, &[verdict(&candidate, "false_positive")], 4);
    assert_eq!(operator.counts().rollbacks, 1);
    assert_eq!(modes(&found(&mut operator, &[bad("2s", "c")])), [(false, Mode::Live), (true, Mode::Shadow)]);
    // After a restart too.
    let state = operator.snapshot(SnapshotKind::Full).unwrap();
    let mut restarted = canary("{ min_feedback: 3, max_false_positives: 0.5 }");
    restarted.restore(&state).unwrap();
    assert_eq!(modes(&found(&mut restarted, &[bad("3s", "d")])), [(false, Mode::Live), (true, Mode::Shadow)]);
}

#[test]
fn a_canary_worse_than_the_live_version_is_taken_back() {
    let run = |live_is_wrong: usize| {
        let mut operator = canary("{ min_feedback: 4, max_false_positives: 0.9, max_increase: 0.25 }");
        let versions: Vec<_> = found(&mut operator, &[bad("0s", "a")]).into_iter().map(|f| f.rule_version).collect();
        let wrong = |n: usize, of: usize| if n < of { "false_positive" } else { "true_positive" };
        let live: Vec<_> = (0..4).map(|n| verdict(&versions[0], wrong(n, live_is_wrong))).collect();
        let candidate: Vec<_> = (0..4).map(|n| verdict(&versions[1], wrong(n, 2))).collect();
        feed(&mut operator, &[live, candidate].concat(), 1);
        operator.counts().rollbacks
    };
    assert_eq!(run(0), 1, "half of it is wrong, and nothing of the live version");
    assert_eq!(run(1), 0, "a quarter more is still allowed");
}

#[test]
fn a_window_is_quiet_while_it_lasts() {
    // Events begin on Monday 5 January 2026 at 10:00 UTC.
    let config = "
exceptions:
  dedup: 1s
  suppress:
    - { match: { entities: [eve] }, from: 2026-01-05T10:05:00Z, until: 2026-01-05T10:10:00Z, reason: moving house }
    - { match: { entities: [bob] }, weekly: [{ days: [Mon], from_hour: 11, to_hour: 12 }], reason: restore }
";
    let mut operator = DetectOperator::new(book(config, &[])).unwrap();
    let times = ["4m", "5m", "9m", "10m"];
    let eve: Vec<_> = found(&mut operator, &times.map(|at| bad(at, "eve")));
    assert_eq!(said(&eve), [None, Some("window: moving house"), Some("window: moving house"), None]);
    let bob: Vec<_> = found(&mut operator, &["30m", "90m", "150m"].map(|at| bad(at, "bob")));
    assert_eq!(said(&bob), [None, Some("window: restore"), None]);
    // What is quiet is a row all the same, and nobody is told.
    feed(&mut operator, &[bad("95m", "bob")], 20);
    let output = operator.take_output();
    assert_eq!((output.rows[0].1.num_rows(), output.notices.len()), (1, 0));
}

#[test]
fn an_allow_list_ends_while_events_come() {
    let config = "
exceptions:
  allow: [{ match: { entities: ['scan*'] }, until: 2026-01-05T10:05:00Z, reason: penetration test }]
";
    let mut operator = DetectOperator::new(book(config, &[])).unwrap();
    let findings = found(&mut operator, &["1m", "4m", "5m", "6m"].map(|at| bad(at, "scanner")));
    let allowed = Some("allow-list: penetration test");
    assert_eq!(said(&findings), [allowed, allowed, None, Some("dedup")]);
    // A reload with a later end allows again, from then on.
    operator.set_rules(book(&config.replace("10:05", "23:00"), &[])).unwrap();
    assert_eq!(said(&found(&mut operator, &[bad("3h", "scanner")])), [allowed]);
}
