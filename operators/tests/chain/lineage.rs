//! What a row says about the record it came from, and what a release may waive.

use arrow::{
    array::{Array, AsArray},
    datatypes::{Int32Type, Int64Type, TimestampMicrosecondType},
};
use companyos_operators::{DecodeConfig, DedupConfig, Record, RecordHeaders};
use companyos_schemas::Stream;

use crate::fuzz::{NOW_MS, assert_conserved, chain};

fn event(occurred_at: &str) -> String {
    format!(
        r#"{{"event_id":"1","occurred_at":"{occurred_at}","tenant":"alpha","env":"prod","region":"eu-west-1","kind":"k","service":"s"}}"#
    )
}

#[test]
fn rows_name_their_record() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let long = "x".repeat(2_000);
    for (traceparent, origin, expected) in [
        (&*traceparent, "topic/1/7/0", (Some(TRACE), Some("topic/1/7/0"))),
        (&traceparent.to_uppercase(), &*long, (None, None)),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", "", (None, None)),
    ] {
        let config = DecodeConfig::default();
        let mut chain =
            chain(Stream::OpsEvents, config.clone(), DedupConfig { horizon_seconds: 0, ..DedupConfig::default() });
        let array = format!("[{0},{0}]", event("2026-01-02T00:00:00Z"));
        let headers =
            RecordHeaders { traceparent: Some(traceparent), origin: Some(origin), ..RecordHeaders::default() };
        let record = Record {
            offset: 42,
            timestamp_ms: Some(NOW_MS),
            payload: Some(array.as_bytes()),
            headers,
            ..Record::default()
        };
        let rows = assert_conserved(&mut chain, &config, &[record]).rows.unwrap();
        for row in 0..2 {
            let text = |column: &str| {
                let column = rows[column].as_string::<i32>();
                column.is_valid(row).then(|| column.value(row))
            };
            assert_eq!((text("_trace_id"), text("_origin").filter(|origin| !origin.is_empty())), expected);
            assert_eq!(text("_topic"), Some("topic"));
            assert_eq!(rows["_partition"].as_primitive::<Int32Type>().value(row), 0);
            assert_eq!(rows["_offset"].as_primitive::<Int64Type>().value(row), 42);
            assert_eq!(rows["_index"].as_primitive::<Int32Type>().value(row), row as i32);
            assert_eq!(rows["_ingested_at"].as_primitive::<TimestampMicrosecondType>().value(row), NOW_MS * 1_000);
        }
    }
}

#[test]
fn a_release_waives_the_rule_it_names_and_no_other() {
    let late = event("2026-01-02T01:00:00Z");
    for (waive, routed) in [(None, 0), (Some("clock_skew_past"), 0), (Some("other, clock_skew_future"), 1)] {
        let config = DecodeConfig::default();
        let mut chain = chain(Stream::OpsEvents, config.clone(), DedupConfig::default());
        let headers = RecordHeaders { waive, ..RecordHeaders::default() };
        let record =
            Record { timestamp_ms: Some(NOW_MS), payload: Some(late.as_bytes()), headers, ..Record::default() };
        assert_eq!(assert_conserved(&mut chain, &config, &[record]).stats.routed, routed, "{waive:?}");
    }
}
