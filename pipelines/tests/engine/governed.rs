//! What breaks a rule goes to quarantine, in the right place, and stops nothing.

use std::sync::Arc;

use companyos_dlp::DlpConfig;
use companyos_operators::{Redactor, Sealer, WAIVER_HEADER, issue_waiver};

use crate::world::{Sent, World, event};

crate::on_both_brokers!(
    bad_records_are_quarantined_with_reason_and_offset,
    residency_is_kept_even_in_quarantine,
    quarantined_events_are_announced_without_their_payload,
    personal_data_is_redacted_before_it_is_stored,
    a_release_passes_the_rule_it_waives_and_a_forged_one_does_not,
);

async fn bad_records_are_quarantined_with_reason_and_offset(world: World) {
    let bad: Vec<(&str, Sent)> = vec![
        ("invalid_utf8", Sent { payload: Some(vec![b'{', 0xff, 0xfe, b'}']), ..Sent::default() }),
        ("invalid_json", String::from("{\"event_id\":").into()),
        ("not_an_object", String::from("42").into()),
        ("empty_value", Sent { payload: Some(Vec::new()), ..Sent::default() }),
        ("missing_field", event("m", "alpha", "eu", "x").replace("\"role\":\"admin\",", "").into()),
        ("wrong_type", event("w", "alpha", "eu", "x").replace("\"admin\"", "{\"is\":\"admin\"}").into()),
        (
            "invalid_value",
            event("v", "alpha", "eu", "x")
                .replace("\"pii_classification\":\"none", "\"pii_classification\":\"x")
                .into(),
        ),
        ("payload_hash_mismatch", event("h", "alpha", "eu", "x").replace("\"note\":\"x\"", "\"note\":\"y\"").into()),
        ("unknown_tenant", event("t", "gamma", "eu", "x").into()),
        ("duplicate_field", event("d", "alpha", "eu", "x").replace("\"role\":", "\"role\":\"a\",\"role\":").into()),
        (
            "clock_skew_future",
            event("f", "alpha", "eu", "x").replace("\"occurred_at\":\"20", "\"occurred_at\":\"21").into(),
        ),
        (
            "clock_skew_past",
            event("p", "alpha", "eu", "x").replace("\"occurred_at\":\"20", "\"occurred_at\":\"19").into(),
        ),
    ];
    let tombstone = Sent { key: "gone".into(), payload: None, ..Sent::default() };
    let worker = world.worker().await;
    world.send([tombstone]).await;
    let mut expected: Vec<Vec<String>> = Vec::new();
    for (reason, record) in &bad {
        let at = world.send([record.clone()]).await[0];
        expected.push(vec![(*reason).to_owned(), at.0.to_string(), at.1.to_string()]);
        world.send([event(&format!("good-{reason}"), "alpha", "eu", "x")]).await;
    }
    world.settled(bad.len() as u64, bad.len() as u64).await;
    let mut found = world.sql("SELECT reason, _partition, _offset FROM quarantine").await;
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    worker.stop().await;
}

async fn residency_is_kept_even_in_quarantine(world: World) {
    // beta may store in us only; the event claims eu, and holds something that must not be kept there.
    world.send([event("r", "beta", "eu", "BETA-SECRET")]).await;
    // A fault inside an allowed scope stays in that scope's region, original included.
    world.send([event("q", "beta", "us", "x").replace("\"note\":\"x\"", "\"note\":\"y\"")]).await;
    let worker = world.worker().await;
    world.settled(0, 2).await;
    let eu = world.sql("SELECT event_id, reason, payload, sealed IS NULL FROM quarantine_eu").await;
    assert_eq!(eu, [["r", "region_not_allowed", "", "true"]]);
    let us = world.sql("SELECT event_id, reason, sealed IS NULL FROM quarantine_us").await;
    assert_eq!(us, [["q", "payload_hash_mismatch", "false"]]);
    worker.stop().await;
    for entry in walk(&world) {
        let bytes = std::fs::read(&entry).unwrap();
        assert!(!bytes.windows(11).any(|w| w == b"BETA-SECRET"), "{} holds the payload", entry.display());
    }
}

fn walk(world: &World) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    let mut folders: Vec<_> = world.storages.values().map(|s| s.url().to_file_path().unwrap()).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files
}

async fn quarantined_events_are_announced_without_their_payload(world: World) {
    let at = world.send([event("a", "gamma", "eu", "PRIVATE-NOTE")]).await[0];
    let worker = world.worker().await;
    world.settled(0, 1).await;
    worker.stop().await;
    let announced = world.read_topic(&format!("{}-quarantine", world.topic), 1).await;
    let record: serde_json::Value = serde_json::from_slice(&announced[0]).unwrap();
    assert_eq!(record["reason"], "unknown_tenant");
    assert_eq!((record["_partition"].as_i64(), record["_offset"].as_i64()), (Some(i64::from(at.0)), Some(at.1)));
    assert!(!String::from_utf8_lossy(&announced[0]).contains("PRIVATE-NOTE"));
}

async fn personal_data_is_redacted_before_it_is_stored(world: World) {
    let (mail, card) = ("jane.doe@example.com", "4111 1111 1111 1111");
    let text = event("d", "alpha", "eu", &format!("write to {mail} about {card}"));
    let bad = event("b", "alpha", "eu", &format!("write to {mail}")).replace("\"role\":\"admin\",", "");
    world.send([text, bad]).await;
    let redactor = Redactor::new(&DlpConfig::default()).unwrap();
    let worker = world.worker_with(|setup| setup.redactor = Some(Arc::new(redactor))).await;
    world.settled(1, 1).await;
    for table in ["product_events", "quarantine"] {
        let cells = world.sql(&format!("SELECT * FROM {table}")).await.concat().join(" ");
        assert!(cells.contains("write to"), "{cells}");
        assert!(!cells.contains(mail) && !cells.contains(card), "{table}: {cells}");
    }
    let rules = world.sql("SELECT _dlp_rules FROM product_events").await.concat().join(" ");
    assert!(rules.contains("email") && rules.contains("card"), "{rules}");
    worker.stop().await;
}

async fn a_release_passes_the_rule_it_waives_and_a_forged_one_does_not(world: World) {
    const RULE: &str = "payload_hash_mismatch";
    let release = |id: &str, key: [u8; 32], bound_to: Option<&str>| {
        let text = event(id, "alpha", "eu", "x").replace("\"note\":\"x\"", "\"note\":\"y\"");
        let event = bound_to.unwrap_or(&text).as_bytes();
        let waiver = issue_waiver(&Sealer::new("test", key), event, RULE).unwrap();
        Sent { headers: vec![("companyos-origin", "there/0/7/0".into()), (WAIVER_HEADER, waiver)], ..Sent::from(text) }
    };
    let mut unsealed = release("not sealed", [7; 32], None);
    unsealed.headers[1].1 = RULE.into();
    let other_key = release("another key", [8; 32], None);
    let other_event = release("another event", [7; 32], Some("{}"));
    world.send([release("released", [7; 32], None), unsealed, other_key, other_event]).await;
    let worker = world.worker().await;
    world.settled(1, 3).await;
    assert_eq!(world.sql("SELECT event_id, _origin FROM product_events").await, [["released", "there/0/7/0"]]);
    worker.stop().await;
}
