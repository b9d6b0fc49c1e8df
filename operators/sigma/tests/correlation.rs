//! Correlations with answers worked out by hand, in any order, and across a stored state.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use companyos_sigma::{CorrelationHit, CorrelationSet, Correlator, CorrelatorConfig, FieldMapping, Loaded, RuleSet};

const S: i64 = 1_000_000;

fn set(correlations: &str) -> Arc<CorrelationSet> {
    let rules: String = ["fail", "ok", "priv"]
        .map(|n| format!("title: {n}\nname: {n}\nlogsource: {{}}\ndetection: {{s: {{k: {n}}}, condition: s}}\n---\n"))
        .concat();
    let loaded = Loaded::from_text("c.yml", &format!("{rules}{correlations}"));
    assert!(loaded.refused.is_empty(), "{:?}", loaded.refused);
    let (rules, refused) = RuleSet::compile(&loaded, &FieldMapping::default());
    assert!(refused.is_empty(), "{refused:?}");
    let (set, refused) = CorrelationSet::compile(&loaded, &rules, &FieldMapping::default());
    assert!(refused.is_empty(), "{refused:?}");
    Arc::new(set)
}

/// (rule, second, user, host)
type Event = (u32, i64, &'static str, &'static str);

fn feed(correlator: &mut Correlator, events: &[(usize, Event)]) -> Vec<CorrelationHit> {
    let mut hits = Vec::new();
    for (n, (rule, second, user, host)) in events {
        let lookup = |field: &str| match field {
            "user" | "account" => Some((*user).to_owned()),
            "host" => Some((*host).to_owned()),
            _ => None,
        };
        hits.extend(correlator.on_match("t", *rule, second * S, &format!("e{n}"), &lookup));
    }
    hits
}

fn run(correlations: &str, events: &[Event], until: i64) -> Vec<(String, i64, i64, f64, Vec<String>)> {
    let mut correlator =
        Correlator::new(set(correlations), CorrelatorConfig { allowed_lateness_us: 0, ..Default::default() });
    let numbered: Vec<(usize, Event)> = events.iter().copied().enumerate().collect();
    let mut hits = feed(&mut correlator, &numbered);
    hits.extend(correlator.advance(until * S));
    hits.into_iter()
        .map(|h| {
            let group = h.group.iter().map(|(_, v)| v.as_str()).collect::<Vec<_>>().join("/");
            (group, h.window_start_us / S, h.window_end_us / S, h.value, h.events)
        })
        .collect()
}

fn correlation(kind: &str, rules: &str, condition: &str) -> String {
    format!(
        "title: c\nname: c\ncorrelation:\n  type: {kind}\n  rules: [{rules}]\n  group-by: [user]\n  timespan: 10s\n  {condition}\n"
    )
}

fn e(n: &[usize]) -> Vec<String> {
    n.iter().map(|n| format!("e{n}")).collect()
}

#[test]
fn event_count_fires_once_per_window_and_is_armed_again() {
    let c = correlation("event_count", "fail", "condition: {gte: 3}");
    let events = [
        (0, 1, "a", "h"),
        (0, 2, "b", "h"),
        (0, 3, "a", "h"),
        (0, 4, "a", "h"), // 1..=4: three of a
        (0, 5, "a", "h"),
        (0, 6, "a", "h"),
        (0, 7, "a", "h"), // still that window, which ends at 11
        (0, 11, "a", "h"),
        (0, 12, "a", "h"),
        (0, 13, "a", "h"), // the next
    ];
    assert_eq!(
        run(&c, &events, 100),
        [("a".into(), 1, 4, 3.0, e(&[0, 2, 3])), ("a".into(), 11, 13, 3.0, e(&[7, 8, 9]))]
    );
    // Ten seconds apart is no longer within ten seconds.
    assert_eq!(run(&c, &[(0, 0, "a", ""), (0, 5, "a", ""), (0, 10, "a", "")], 100), []);
}

#[test]
fn counts_that_must_stay_low_are_told_when_the_window_is_over() {
    let c = correlation("event_count", "fail", "condition: {gt: 1, lte: 2}");
    let three = [(0, 1, "a", ""), (0, 2, "a", ""), (0, 3, "a", "")];
    assert_eq!(run(&c, &three, 100), []);
    assert_eq!(run(&c, &three[..2], 100), [("a".into(), 1, 11, 2.0, e(&[0, 1]))]);
    assert_eq!(run(&c, &three[..2], 10), [], "the window is still open");
}

#[test]
fn value_count_counts_distinct_values() {
    let c = correlation("value_count", "fail", "condition: {field: host, gte: 2}");
    let events = [(0, 1, "a", "x"), (0, 2, "a", "x"), (0, 3, "a", "y")];
    assert_eq!(run(&c, &events, 100), [("a".into(), 1, 3, 2.0, e(&[0, 1, 2]))]);
    assert_eq!(run(&c, &events[..2], 100), []);
}

#[test]
fn temporal_takes_any_order_and_ordered_does_not() {
    let any = correlation("temporal", "fail, ok", "generate: true");
    let ordered = correlation("temporal_ordered", "fail, ok", "generate: true");
    let backwards = [(1, 1, "a", ""), (0, 2, "a", "")];
    assert_eq!(run(&any, &backwards, 100).len(), 1);
    assert_eq!(run(&ordered, &backwards, 100), []);
    let forwards = [(1, 0, "a", ""), (0, 1, "a", ""), (1, 2, "b", ""), (1, 3, "a", "")];
    assert_eq!(run(&ordered, &forwards, 100), [("a".into(), 1, 3, 2.0, e(&[1, 3]))]);
    let either = correlation("temporal", "fail, ok, priv", "condition: priv and (fail or ok)");
    assert_eq!(run(&either, &[(2, 1, "a", ""), (1, 2, "a", "")], 100).len(), 1);
    assert_eq!(run(&either, &[(0, 1, "a", ""), (1, 2, "a", "")], 100), []);
}

#[test]
fn correlations_of_correlations_and_aliases() {
    // `many` groups by host only; the user comes from its events.
    let c = "title: many\nname: many\ncorrelation:\n  type: event_count\n  rules: [fail]\n  group-by: [host]\n  timespan: 10s\n  condition: {gte: 2}\n---\ntitle: then\ncorrelation:\n  type: temporal_ordered\n  rules: [many, ok]\n  group-by: [who]\n  timespan: 60s\n  aliases:\n    who: {many: user, ok: account}\n";
    let hits = run(c, &[(0, 1, "a", "h"), (0, 2, "a", "h"), (1, 9, "b", "h"), (1, 20, "a", "h")], 100);
    assert_eq!(hits.len(), 2, "{hits:?}");
    assert_eq!((hits[0].0.as_str(), hits[0].2), ("h", 2));
    assert_eq!((hits[1].0.as_str(), hits[1].1, hits[1].2), ("a", 2, 20));
    assert!(hits[1].4[0].starts_with("correlation:") && hits[1].4[1] == "e3");
}

#[test]
fn held_events_make_the_same_hits_in_any_order() {
    let set = set(&format!(
        "{}---\n{}",
        correlation("event_count", "fail", "condition: {gte: 3}")
            .replace("name: c", "name: c1")
            .replace("title: c", "title: c1"),
        correlation("temporal_ordered", "fail, ok", "generate: true")
    ));
    let events: Vec<(usize, Event)> = (0..60)
        .map(|n| ((n % 3 == 0) as u32, (n * 7 % 60) as i64, if n % 2 == 0 { "a" } else { "b" }, "h"))
        .enumerate()
        .collect();
    let config = CorrelatorConfig { hold_us: 60 * S, allowed_lateness_us: 60 * S, ..Default::default() };
    let answer = |order: &[(usize, Event)]| {
        let mut correlator = Correlator::new(Arc::clone(&set), config.clone());
        let mut hits = feed(&mut correlator, order);
        hits.extend(correlator.advance(1000 * S));
        hits
    };
    let first = answer(&events);
    assert!(first.len() > 4, "{}", first.len());
    for step in [1usize, 7, 11, 13, 29, 59] {
        let order: Vec<(usize, Event)> = (0..60).map(|n| events[(n * step + step) % 60]).collect();
        assert_eq!(answer(&order), first, "step {step}");
    }
}

/// A correlator that goes on from what another one stores.
fn stored(from: &Correlator, set: &Arc<CorrelationSet>, config: &CorrelatorConfig) -> Correlator {
    let mut to = Correlator::new(Arc::clone(set), config.clone());
    assert!(to.restore_head(postcard::from_bytes(&postcard::to_stdvec(&from.head()).unwrap()).unwrap()));
    for (key, part) in from.parts() {
        to.put(&key, Some(postcard::from_bytes(&postcard::to_stdvec(&part).unwrap()).unwrap()));
    }
    to
}

#[test]
fn a_stored_state_goes_on_where_it_was() {
    let set = set(&correlation("event_count", "fail", "condition: {gte: 4}"));
    let events: Vec<(usize, Event)> =
        (0..40).map(|n| (0, n as i64, if n % 3 == 0 { "a" } else { "b" }, "h")).enumerate().collect();
    for hold_us in [0, 5 * S] {
        let config = CorrelatorConfig { hold_us, ..Default::default() };
        let mut whole = Correlator::new(Arc::clone(&set), config.clone());
        let mut want = feed(&mut whole, &events);
        want.extend(whole.advance(200 * S));
        assert!(!want.is_empty());
        for cut in [1, 17, 33] {
            let mut first = Correlator::new(Arc::clone(&set), config.clone());
            let mut got = feed(&mut first, &events[..cut]);
            let mut second = stored(&first, &set, &config);
            // A repeated delivery counts once.
            got.extend(feed(&mut second, &events[cut - 1..]));
            got.extend(second.advance(200 * S));
            assert_eq!(got, want, "cut at {cut}");
            assert_eq!(second.stats().groups, 0, "everything is forgotten in the end");
        }
    }
}

#[test]
fn late_and_ungrouped_events_are_counted() {
    let mut c = Correlator::new(
        set(&correlation("event_count", "fail", "condition: {gte: 1}")),
        CorrelatorConfig { allowed_lateness_us: 5 * S, ..Default::default() },
    );
    c.advance(100 * S);
    assert!(c.on_match("t", 0, 94 * S, "late", &|_| Some("a".into())).is_empty());
    assert_eq!(c.on_match("t", 0, 96 * S, "in time", &|_| Some("a".into())).len(), 1);
    assert!(c.on_match("t", 0, 96 * S, "no user", &|_| None).is_empty());
    assert_eq!((c.stats().late_dropped, c.stats().ungrouped), (1, 1));
    // Tenants never mix.
    assert_eq!(c.on_match("u", 0, 96 * S, "in time", &|_| Some("a".into())).len(), 1);
}
