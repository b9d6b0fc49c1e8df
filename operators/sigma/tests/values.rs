//! Values that are more than text: expressions, networks, placeholders, numbers that are added up.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use arrow::array::StringArray;
use companyos_sigma::{
    CorrelationSet, Correlator, CorrelatorConfig, EventBatch, FieldMapping, Loaded, Refused, RuleSet,
};

fn compile(items: &[&str], mapping: &FieldMapping) -> (RuleSet, Vec<Refused>) {
    let rule =
        |item: &&str| format!("title: t\nlogsource: {{}}\ndetection:\n  sel:\n    {item}\n  condition: sel\n---\n");
    let loaded = Loaded::from_text("v.yml", &items.iter().map(rule).collect::<String>());
    assert!(loaded.refused.is_empty(), "{:?}", loaded.refused);
    RuleSet::compile(&loaded, mapping)
}

/// For each value of `f` the rules that match it.
fn matching(items: &[&str], mapping: &FieldMapping, values: &[&str]) -> Vec<Vec<u32>> {
    let (set, refused) = compile(items, mapping);
    assert!(refused.is_empty(), "{refused:?}");
    let batch = EventBatch::new(values.len()).with("f", Arc::new(StringArray::from(values.to_vec())));
    let mut found = vec![Vec::new(); values.len()];
    for hit in set.evaluate(&batch).hits {
        hit.rows.iter().for_each(|row| found[*row as usize].push(hit.rule));
    }
    found
}

#[test]
fn look_around_and_references_run_in_the_other_engine() {
    let items = [
        "f|re: 'user(?!name)'",
        "f|re: '(?<=pass)word'",
        r"f|re: '\b(\w+) \1\b'",
        "f|re|i: 'USER(?!NAME)'",
        "f|re: 'user[0-9]'",
    ];
    let none = FieldMapping::default();
    assert_eq!(
        matching(&items, &none, &["username", "user7", "password", "the the", "User x", "a word"]),
        [vec![], vec![0, 3, 4], vec![1], vec![2], vec![3], vec![]]
    );
}

#[test]
fn an_expression_that_takes_too_long_gives_up_and_hides_nothing() {
    // Backtracking over these takes exponential time; the neighbour has to be answered all the same.
    let evil = format!("{}!", "a".repeat(60));
    let items = [r"f|re: '^(?:(a|aa)+)+\1b$'", "f|re: 'a+!$'"];
    let started = std::time::Instant::now();
    assert_eq!(matching(&items, &FieldMapping::default(), &[&evil]), [vec![1]]);
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn networks_of_both_families() {
    let items = [
        "f|cidr: '::1/128'",
        "f|cidr: 'fc00::/7'",
        "f|cidr: ['fe80::/10', '10.0.0.0/8']",
        "f|cidr: '2001:db8::/32'",
        "f|cidr: '::/0'",
        "f|cidr: '0.0.0.0/0'",
        "f|cidr: '192.168.1.7'",
        "f|cidr: 'fd12:3456::1/64'",
    ];
    let values = [
        "::1",
        "fd00::5",
        "FE80::1",
        "2001:0db8:0000::1",
        "10.1.2.3",
        "::ffff:10.1.2.3",
        "192.168.1.7",
        "fd12:3456::99",
        "not an address",
    ];
    assert_eq!(
        matching(&items, &FieldMapping::default(), &values),
        [vec![0, 4], vec![1, 4], vec![2, 4], vec![3, 4], vec![2, 5], vec![2, 5], vec![5, 6], vec![1, 4, 7], vec![],]
    );
}

#[test]
fn placeholders_stand_for_any_of_their_values() {
    let mapping = FieldMapping::default()
        .placeholder("admins", vec!["root".to_owned(), "adm_*".to_owned()])
        .placeholder("hosts", vec!["dc1".to_owned(), "dc2".to_owned()])
        .placeholder("nets", vec!["10.0.0.0/8".to_owned(), "fd00::/8".to_owned()]);
    let items = [
        "f|expand: '%admins%'",
        r"f|expand: '%hosts%\\%admins%'",
        "f|contains|expand: '-%hosts%-'",
        "f|expand: ['%hosts%', plain]",
        "f: '%admins%'",
        "f|cidr|expand: '%nets%'",
        "f|expand: '100%'",
    ];
    let values = [
        "root",
        "ADM_eve",
        "adm",
        r"dc2\root",
        r"dc2\adm_1",
        "a-dc1-b",
        "plain",
        "%admins%",
        "10.9.9.9",
        "fd00::1",
        "100%",
    ];
    assert_eq!(
        matching(&items, &mapping, &values),
        [vec![0], vec![0], vec![], vec![1], vec![1], vec![2], vec![3], vec![4], vec![5], vec![5], vec![6],]
    );
    let (_, refused) = compile(&["f|expand: '%nobody%'"], &mapping);
    assert_eq!(
        refused[0].to_string(),
        "v.yml:5: rule \"t\": placeholder '%nobody%' has no values in the configuration"
    );
}

/// What a correlation over the field `bytes` finds, as (end of the window in seconds, value).
fn computed(kind: &str, condition: &str, values: &[(i64, &str)]) -> Vec<(i64, f64)> {
    let text = format!(
        "title: r\nname: r\nlogsource: {{}}\ndetection: {{s: {{f: x}}, condition: s}}\n---\ntitle: c\ncorrelation:\n  type: {kind}\n  rules: [r]\n  group-by: [user]\n  timespan: 10s\n  condition: {condition}\n"
    );
    let loaded = Loaded::from_text("c.yml", &text);
    let (rules, refused) = RuleSet::compile(&loaded, &FieldMapping::default());
    assert!(refused.is_empty() && loaded.refused.is_empty(), "{refused:?} {:?}", loaded.refused);
    let (set, refused) = CorrelationSet::compile(&loaded, &rules, &FieldMapping::default());
    assert!(refused.is_empty(), "{refused:?}");
    let mut correlator = Correlator::new(Arc::new(set), CorrelatorConfig::default());
    let mut hits = Vec::new();
    for (n, (second, value)) in values.iter().enumerate() {
        let lookup = |field: &str| match field {
            "user" => Some("u".to_owned()),
            "bytes" => Some((*value).to_owned()),
            _ => None,
        };
        hits.extend(correlator.on_match("t", 0, second * 1_000_000, &format!("e{n}"), &lookup));
    }
    hits.extend(correlator.advance(10_000_000_000));
    hits.into_iter().map(|h| (h.window_end_us / 1_000_000, h.value)).collect()
}

#[test]
fn values_are_added_up_averaged_and_ranked() {
    let values = [(1, "10"), (2, "2.5"), (3, "no number"), (4, "100"), (20, "1"), (21, "1")];
    // The first window holds 10, 2.5 and 100, the second 1 and 1.
    assert_eq!(computed("value_sum", "{field: bytes, gt: 100}", &values), [(11, 112.5)]);
    assert_eq!(computed("value_sum", "{field: bytes, lte: 2}", &values), [(30, 2.0)]);
    assert_eq!(computed("value_avg", "{field: bytes, gte: 37}", &values), [(11, 37.5)]);
    assert_eq!(computed("value_median", "{field: bytes, gte: 1}", &values), [(11, 10.0), (30, 1.0)]);
    // Between the closest ranks: at 0.75 * 2 = 1.5 of 2.5, 10, 100 stands 10 + 0.5 * 90.
    assert_eq!(computed("value_percentile", "{field: bytes, gte: 55, percentile: 75}", &values), [(11, 55.0)]);
    // Without any number there is nothing to compare.
    assert!(computed("value_sum", "{field: bytes, lt: 100}", &[(1, "x"), (2, "y")]).is_empty());
}

#[test]
fn exists_takes_the_booleans_of_either_yaml() {
    let items = ["f|exists: true", "f|exists: yes", "f|exists: no", "f|exists: 'False'"];
    assert_eq!(matching(&items, &FieldMapping::default(), &["x"]), [vec![0, 1]]);
    let (_, refused) = compile(&["f|exists: perhaps"], &FieldMapping::default());
    assert_eq!(refused[0].reason, "exists wants true or false");
}
