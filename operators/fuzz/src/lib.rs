//! Arbitrary bytes through a chain, and the books checked afterwards.
//!
//! The first byte chooses the stream (lower three bits) and how the rest is taken (next two): as one
//! plain record, one structured CloudEvent, one binary-mode CloudEvent (header lines `name: value`, an
//! empty line, then the value) or several records separated by 0xFF, an empty one a tombstone. The
//! operators' tests include this file, so that the corpus also runs on a stable toolchain.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Date32Type, Int32Type, Int64Type},
};
use companyos_operators::{
    ChainConfig, ChainOutput, CloudEventHeaders, DecodeConfig, DedupConfig, PartitionChain, Record, RecordHeaders,
    Sealer,
};
use companyos_schemas::{Stream, tenancy::Tenancy};
use serde_json::{Value, value::RawValue};

/// 2026-01-02T00:00:00Z: when the records of tests are written and received.
pub const NOW_MS: i64 = 1_767_312_000_000;

/// Alpha may use the home region, beta only another one.
pub fn tenancy() -> Arc<Tenancy> {
    let tenancy: Tenancy = toml::from_str(
        r#"
        home_region = "eu-west-1"
        [regions.eu-west-1]
        storage = "memory:///eu"
        [regions.us-east-1]
        storage = "memory:///us"
        [tenants.alpha]
        environments = ["prod", "staging"]
        regions = ["eu-west-1"]
        [tenants.beta]
        environments = ["prod"]
        regions = ["us-east-1"]
        "#,
    )
    .unwrap();
    tenancy.validate().unwrap();
    Arc::new(tenancy)
}

/// A chain of `topic/0`, without a redactor.
pub fn chain(stream: Stream, decode: DecodeConfig, dedup: DedupConfig) -> PartitionChain {
    let config = ChainConfig { stream, topic: "topic".into(), partition: 0, decode, dedup };
    PartitionChain::new(config, tenancy(), None, Some(Arc::new(Sealer::new("k1", [7; 32]))))
}

/// Runs one input and panics if anything is lost, doubled or misplaced.
pub fn decode(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let stream = Stream::ALL[usize::from(mode & 7) % Stream::ALL.len()];
    let headers;
    let records: Vec<Record<'_>> = match mode >> 3 & 3 {
        0 => vec![record(0, Some(rest), RecordHeaders::default())],
        1 => {
            let content_type = Some("application/cloudevents+json; charset=utf-8");
            vec![record(0, Some(rest), RecordHeaders { content_type, ..RecordHeaders::default() })]
        }
        2 => {
            let (head, value) = match rest.windows(2).position(|pair| pair == b"\n\n") {
                Some(at) => (&rest[..at], &rest[at + 2..]),
                None => (&[][..], rest),
            };
            headers = String::from_utf8_lossy(head).into_owned();
            vec![record(0, Some(value), binary_headers(&headers))]
        }
        _ => rest
            .split(|byte| *byte == 0xff)
            .enumerate()
            .map(|(at, value)| record(at as i64, (!value.is_empty()).then_some(value), RecordHeaders::default()))
            .collect(),
    };
    // Small limits bring both sides of them within reach.
    let config =
        DecodeConfig { max_depth: 8, max_events_per_record: 16, max_event_bytes: 1 << 16, ..DecodeConfig::default() };
    let mut chain = chain(stream, config.clone(), DedupConfig { max_entries: 3, ..DedupConfig::default() });
    assert_conserved(&mut chain, &config, &records);
}

fn record<'a>(offset: i64, payload: Option<&'a [u8]>, headers: RecordHeaders<'a>) -> Record<'a> {
    Record { offset, timestamp_ms: Some(NOW_MS), key: None, payload, headers }
}

fn binary_headers(head: &str) -> RecordHeaders<'_> {
    let mut headers = RecordHeaders::default();
    let mut attributes = Vec::new();
    for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
        match name {
            "content-type" => headers.content_type = Some(value),
            "traceparent" => headers.traceparent = Some(value),
            _ => attributes.push((name, value)),
        }
    }
    headers.cloud_event = Some(CloudEventHeaders { attributes });
    headers
}

/// Pushes records with distinct offsets, flushes, and checks that every event among them came out
/// exactly once: routed, dropped as a duplicate, or quarantined.
pub fn assert_conserved(chain: &mut PartitionChain, config: &DecodeConfig, records: &[Record<'_>]) -> ChainOutput {
    for record in records {
        chain.push(record, NOW_MS * 1_000);
    }
    let output = chain.flush().expect("a chain never fails on what it is fed");
    let decoded = output.rows.as_ref().map(positions).unwrap_or_default();
    let mut routed = vec![false; decoded.len()];
    for (route, rows) in &output.routes {
        let batch = output.rows.as_ref().unwrap();
        for row in rows.iter().map(|row| *row as usize) {
            assert!(!std::mem::replace(&mut routed[row], true), "row {row} has two routes");
            assert_eq!(text(batch, "tenant", row), Some(&*route.tenant));
            assert_eq!(text(batch, "region", row), Some(&*route.region));
            assert_eq!(batch["day"].as_primitive::<Date32Type>().value(row), route.day);
            tenancy().check(&route.tenant, text(batch, "env", row).unwrap(), &route.region).unwrap();
        }
    }

    let mut quarantined = BTreeMap::new();
    for (region, batch) in &output.quarantine {
        for (row, position) in positions(batch).into_iter().enumerate() {
            *quarantined.entry(position).or_insert(0) += 1;
            let id = format!("topic/0/{}/{}", position.0, position.1);
            assert_eq!(text(batch, "quarantine_id", row), Some(&*id));
            assert!(!text(batch, "reason", row).unwrap().is_empty());
            assert_residency(region, batch, row);
        }
    }

    let mut events: BTreeMap<i64, Vec<i32>> = BTreeMap::new();
    let mut duplicates = 0;
    for (row, position) in decoded.iter().enumerate() {
        events.entry(position.0).or_default().push(position.1);
        match (routed[row], quarantined.remove(position)) {
            (true, None) | (false, Some(1)) => {}
            (false, None) => duplicates += 1,
            other => panic!("the event at {position:?} came out as (routed, quarantined) = {other:?}"),
        }
    }
    for (position, count) in quarantined {
        assert_eq!(count, 1, "the event at {position:?} was quarantined more than once");
        events.entry(position.0).or_default().push(position.1);
    }
    for record in records {
        let mut found = events.remove(&record.offset).unwrap_or_default();
        found.sort_unstable();
        assert!(found.iter().copied().eq(0..found.len() as i32), "indexes {found:?} at {}", record.offset);
        assert!(expected(record, config).contains(&found.len()), "{} events of {record:?}", found.len());
    }
    assert!(events.is_empty(), "events of no record: {events:?}");

    let stats = &output.stats;
    assert_eq!(stats.records, records.len() as u64);
    assert_eq!(stats.tombstones, records.iter().filter(|record| record.payload.is_none()).count() as u64);
    assert_eq!(stats.decoded, decoded.len() as u64);
    assert_eq!(stats.routed, routed.iter().filter(|routed| **routed).count() as u64);
    assert_eq!(stats.duplicates, duplicates);
    assert_eq!(
        stats.quarantined.values().sum::<u64>(),
        output.quarantine.iter().map(|(_, batch)| batch.num_rows() as u64).sum::<u64>()
    );
    output
}

/// What is kept of a quarantined event is kept in the region it names, if it names one.
fn assert_residency(region: &str, batch: &RecordBatch, row: usize) {
    let kept = !batch["payload"].is_null(row) || !batch["sealed"].is_null(row);
    if let (true, Some(named)) = (kept, text(batch, "region", row)) {
        assert_eq!(named, region);
        tenancy().check(text(batch, "tenant", row).unwrap(), text(batch, "env", row).unwrap(), named).unwrap();
    }
    if let (true, Some(tenant)) = (kept, text(batch, "tenant", row)) {
        assert!(tenancy().tenants[tenant].regions.contains(region), "{tenant} may not use {region}");
    }
}

/// How many events a record may come out as, by serde_json.
fn expected(record: &Record<'_>, config: &DecodeConfig) -> Vec<usize> {
    let Some(value) = record.payload else { return vec![0] };
    if record.headers.cloud_event.is_some() || value.len() > config.max_event_bytes {
        return vec![1];
    }
    let Ok(text) = std::str::from_utf8(value) else { return vec![1] };
    let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(text) else { return vec![1] };
    let count = if (1..=config.max_events_per_record).contains(&elements.len()) { elements.len() } else { 1 };
    // serde_json passes over lone surrogates in raw values and over nothing in real ones; there it
    // also stops at depth 128 and at numbers beyond f64, which are no reason to refuse the others.
    match serde_json::from_str::<Value>(text) {
        Ok(_) => vec![count],
        Err(_) => vec![count, 1],
    }
}

fn positions(batch: &RecordBatch) -> Vec<(i64, i32)> {
    let offsets = batch["_offset"].as_primitive::<Int64Type>().values();
    let indexes = batch["_index"].as_primitive::<Int32Type>().values();
    offsets.iter().copied().zip(indexes.iter().copied()).collect()
}

fn text<'b>(batch: &'b RecordBatch, column: &str, row: usize) -> Option<&'b str> {
    let column = batch[column].as_string::<i32>();
    column.is_valid(row).then(|| column.value(row))
}
