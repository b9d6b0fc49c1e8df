//! Events a second of one chain (decode, residency, duplicates; no redactor) against arrow-json's
//! decoder, on the same generated events of about 400 bytes, in the same run and on one thread.
//!
//! `cargo run --release -p companyos-operators --example decode_throughput [EVENTS]`
//!
//! arrow-json only turns text into columns (its payload is a typed struct, since it has no rule for
//! keeping JSON as text); the chain also verifies every payload hash, checks clocks and scopes, keeps
//! the record for quarantine and remembers every id. The two take turns, round after round, and the
//! best round of each counts: what else runs on the machine then weighs on neither.

use std::{sync::Arc, time::Instant};

use arrow::datatypes::{DataType, Field, Fields, Schema};
use companyos_operators::{ChainConfig, DecodeConfig, DedupConfig, PartitionChain, Record};
use companyos_schemas::{Stream, arrow_schema::timestamp_type, payload_hash, tenancy::Tenancy};

const ROUNDS: usize = 7;
const BATCH: usize = 8_192;
/// 2026-01-02T00:00:00Z.
const START_MS: i64 = 1_767_312_000_000;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let count = std::env::args().nth(1).map_or(Ok(200_000), |count| count.parse())?;
    let events = events(count);
    let bytes: usize = events.iter().map(String::len).sum();
    println!("{count} events of {} bytes, best of {ROUNDS} rounds, one thread", bytes / count);
    println!("first: {}", events[0]);

    let mut best = [f64::INFINITY; 5];
    for _ in 0..ROUNDS {
        let figures = [
            time(|| arrow_json(&events))?,
            time(|| chain(&events, DedupConfig::default()))?,
            time(|| chain(&events, DedupConfig { horizon_seconds: 0, ..DedupConfig::default() }))?,
            time(|| hashes(&events))?,
            time(|| sonic(&events))?,
        ];
        for (best, figure) in best.iter_mut().zip(figures) {
            *best = best.min(figure);
        }
    }
    let names = ["arrow-json decode", "chain", "chain, no dedup", "SHA-256 alone", "sonic-rs to a value"];
    for (name, seconds) in names.iter().zip(best) {
        println!(
            "{name:<20} {:>10.0} events/s {:>7.1} MB/s {:>7.3} us/event {:>6.2} x arrow-json",
            count as f64 / seconds,
            bytes as f64 / seconds / 1e6,
            seconds / count as f64 * 1e6,
            seconds / best[0]
        );
    }
    Ok(())
}

fn time(mut work: impl FnMut() -> Result<usize, Failure>) -> Result<f64, Failure> {
    let start = Instant::now();
    std::hint::black_box(work()?);
    Ok(start.elapsed().as_secs_f64())
}

fn arrow_json(events: &[String]) -> Result<usize, Failure> {
    let mut decoder = arrow_json::ReaderBuilder::new(Arc::new(schema())).with_batch_size(BATCH).build_decoder()?;
    let mut rows = 0;
    for chunk in events.chunks(BATCH) {
        for event in chunk {
            let mut left = event.as_bytes();
            while !left.is_empty() {
                left = &left[decoder.decode(left)?..];
            }
        }
        rows += decoder.flush()?.map_or(0, |batch| batch.num_rows());
    }
    check(rows, events.len())
}

fn chain(events: &[String], dedup: DedupConfig) -> Result<usize, Failure> {
    let config = ChainConfig {
        stream: Stream::ProductEvents,
        topic: "product_events".into(),
        partition: 0,
        decode: DecodeConfig::default(),
        dedup,
    };
    let mut chain = PartitionChain::new(config, Arc::new(tenancy()?), None, None);
    let mut rows = 0;
    for (number, chunk) in events.chunks(BATCH).enumerate() {
        let now_ms = START_MS + ((number + 1) * BATCH) as i64;
        for (index, event) in chunk.iter().enumerate() {
            let record = Record {
                offset: (number * BATCH + index) as i64,
                timestamp_ms: Some(now_ms),
                payload: Some(event.as_bytes()),
                ..Record::default()
            };
            chain.push(&record, now_ms * 1_000);
        }
        rows += chain.flush()?.routes.iter().map(|(_, rows)| rows.len()).sum::<usize>();
    }
    check(rows, events.len())
}

/// What verifying the hashes costs by itself.
fn hashes(events: &[String]) -> Result<usize, Failure> {
    let sound = events.iter().filter(|event| {
        let hash = event.find("sha256:").and_then(|at| event.get(at..at + 71));
        let payload = event.find("\"payload\":").and_then(|at| event.get(at + 10..event.len() - 1));
        hash.is_some_and(|hash| payload_hash::verify(hash, payload))
    });
    check(sound.count(), events.len())
}

fn sonic(events: &[String]) -> Result<usize, Failure> {
    let mut read = 0;
    for event in events {
        let value: sonic_rs::Value = sonic_rs::from_str(event)?;
        read += usize::from(sonic_rs::JsonValueTrait::is_object(&value));
    }
    check(read, events.len())
}

fn check(rows: usize, expected: usize) -> Result<usize, Failure> {
    if rows == expected { Ok(rows) } else { Err(format!("{rows} rows of {expected} events").into()) }
}

fn schema() -> Schema {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let integer = |name: &str| Field::new(name, DataType::Int64, true);
    let payload = Fields::from(vec![text("page"), integer("duration_ms"), text("variant"), integer("items")]);
    let fields = Stream::ProductEvents.fields().iter().map(|field| match field.name {
        "occurred_at" => Field::new("occurred_at", timestamp_type(), false),
        "payload" => Field::new("payload", DataType::Struct(payload.clone()), true),
        name => text(name),
    });
    Schema::new(fields.collect::<Vec<_>>())
}

fn tenancy() -> Result<Tenancy, Failure> {
    Ok(toml::from_str(
        r#"
        home_region = "eu-west-1"
        [regions.eu-west-1]
        storage = "memory:///eu"
        [tenants.alpha]
        environments = ["prod", "staging"]
        regions = ["eu-west-1"]
        [tenants.beta]
        environments = ["prod", "staging"]
        regions = ["eu-west-1"]
        "#,
    )?)
}

/// Events a millisecond apart whose fields vary as real ones do; the same in every run.
fn events(count: usize) -> Vec<String> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let pick = |words: &[&'static str], at: u64| words[at as usize % words.len()];
    (0..count)
        .map(|number| {
            let payload = format!(
                r#"{{"page":"/reports/{}","duration_ms":{},"variant":"{}","items":{}}}"#,
                random(100_000),
                random(5_000),
                pick(&["control", "treatment"], random(2)),
                random(40)
            );
            let at = number as i64;
            format!(
                r#"{{"event_id":"{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}","occurred_at":"2026-01-02T00:{:02}:{:02}.{:03}Z","tenant":"{}","user_id":"u-{}","role":"{}","feature":"{}","region":"eu-west-1","env":"{}","client":"web/4.{}.0","pii_classification":"{}","payload_hash":"{}","payload":{payload}}}"#,
                random(1 << 32),
                random(1 << 16),
                random(1 << 12),
                random(1 << 12),
                number,
                at / 60_000 % 60,
                at / 1_000 % 60,
                at % 1_000,
                pick(&["alpha", "alpha", "alpha", "beta"], random(4)),
                random(1_000_000),
                pick(&["viewer", "editor", "admin"], random(3)),
                pick(&["dashboards", "exports", "alerts", "search", "billing"], random(5)),
                pick(&["prod", "prod", "staging"], random(3)),
                random(30),
                pick(&["none", "internal", "pseudonymous"], random(3)),
                payload_hash::compute(&payload),
            )
        })
        .collect()
}
