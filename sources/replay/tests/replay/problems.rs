//! Rows that cannot be mapped or sent: none is lost in silence.

use companyos_source_replay::{Counts, ReplayError, StopReason};
use rdkafka::Message;

use crate::harness::{World, ids, ndjson, problem, run};

#[tokio::test(flavor = "multi_thread")]
async fn rows_the_map_does_not_fit_are_sent_as_they_are_with_the_reason() {
    let world = World::start().await;
    let bad = ["{\"id\": \"no time\"}", "{broken", "[1]"];
    let file = world.write("a.ndjson", format!("{}{}\n\n{}", ndjson(0..2), bad.join("\n"), ndjson(2..3)));
    let summary = run(world.options(&file)).await.unwrap();
    assert_eq!(summary.counts, Counts { mapped: 3, unmapped: 3, blank: 1, oversized: 0 });
    assert_eq!(summary.unmapped_by_field["occurred_at"], 1);
    assert_eq!(summary.unmapped_by_field["row"], 2);
    assert_eq!(summary.first_unmapped.iter().map(|row| row.line).collect::<Vec<_>>(), [3, 4, 5]);
    let records = world.records("product_events").await;
    assert_eq!(records.len(), 6);
    for raw in bad {
        let record = records.iter().find(|r| r.payload().unwrap() == raw.as_bytes()).unwrap();
        assert!(problem(record).is_some(), "{raw}");
    }
    let no_time = records.iter().filter_map(problem).find(|p| p.contains("occurred_at")).unwrap();
    assert_eq!(no_time, "field \"occurred_at\": has no value and no default");
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_stops_at_the_first_such_row_and_keeps_what_was_before() {
    let world = World::start().await;
    let file = world.write("a.ndjson", format!("{}{{broken\n{}", ndjson(0..2), ndjson(2..3)));
    let mut options = world.options(&file);
    options.strict = true;
    let error = run(options.clone()).await.unwrap_err();
    let ReplayError::Stopped { reason: StopReason::Unmapped { line: 3, .. }, summary } = &error else {
        panic!("{error}");
    };
    assert_eq!(summary.counts.mapped, 2);
    assert_eq!(world.event_ids().await, ids(0..2));
    // Going on after it is a decision: without strict the row is sent, and the first two are not again.
    (options.strict, options.resume) = (false, true);
    let summary = run(options).await.unwrap();
    assert_eq!((summary.resumed_after, summary.counts.mapped, summary.counts.unmapped), (2, 1, 1));
    assert_eq!(world.records("product_events").await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_too_large_stops_it_or_is_counted() {
    let world = World::start().await;
    let large = format!("{{\"id\":\"{}\",\"at\":1}}\n", "x".repeat(3_000));
    let file = world.write("a.ndjson", format!("{}{large}{}", ndjson(0..1), ndjson(1..2)));
    let mut options = world.options(&file);
    options.max_row_bytes = 1_000;
    let error = run(options.clone()).await.unwrap_err();
    assert!(matches!(&error, ReplayError::Stopped { reason: StopReason::TooLarge { line: 2, .. }, .. }), "{error}");
    options.skip_oversized = true;
    let summary = run(options).await.unwrap();
    assert_eq!(summary.counts, Counts { mapped: 2, unmapped: 0, blank: 0, oversized: 1 });
    assert_eq!(summary.first_unmapped[0].line, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_cut_off_in_the_middle_is_told_with_what_came_before() {
    let world = World::start().await;
    let whole = zstd::encode_all(ndjson(0..2_000).as_bytes(), 3).unwrap();
    let file = world.write("a.ndjson.zst", &whole[..whole.len() - 40]);
    let error = run(world.options(&file)).await.unwrap_err();
    let ReplayError::Stopped { reason: StopReason::Read { .. }, summary } = &error else { panic!("{error}") };
    let sent = world.records("product_events").await.len() as u64;
    assert_eq!(sent, summary.counts.rows(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_or_a_broker_that_cannot_be_used_is_said_before_anything_is_sent() {
    let world = World::start().await;
    let file = world.write("a.ndjson", ndjson(0..1));
    let map = world.write("wrong.yaml", "stream: product_events\nfields: { event_id: id }\n");
    let error = run(world.options_by(&file, &map)).await.unwrap_err();
    assert!(matches!(&error, ReplayError::Map(_)), "{error}");
    let mut options = world.options(&file);
    options.kafka.insert("no.such.setting".to_owned(), "hunter2".to_owned());
    let error = run(options).await.unwrap_err().to_string();
    assert!(error.contains("no.such.setting") && !error.contains("hunter2"), "{error}");
    let mut options = world.options(&file);
    (options.brokers, options.broker_timeout) = ("127.0.0.1:1".to_owned(), std::time::Duration::from_millis(300));
    assert!(matches!(run(options).await.unwrap_err(), ReplayError::Unreachable { .. }));
}
