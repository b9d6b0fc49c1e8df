//! What a checkpoint of burn rates costs: rows a second into the operator, and the size of snapshots.
//!
//! ```sh
//! cargo run --release -p companyos-slo --example snapshots
//! ```

// An example for people; it may stop at a fault.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::{path::Path, sync::Arc, time::Instant};

use arrow::array::{Array, ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use chrono::DateTime;
use companyos_schemas::Stream;
use companyos_slo::{SloOperator, compile, load_path};
use companyos_stream::{ShardOperator, SnapshotKind, StateBatch, TailRows};

const MINUTE: i64 = 60_000_000;
const T0: i64 = 28_000_000 * MINUTE;
const TENANTS: i64 = 20;
const DAYS: i64 = 30;

fn main() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/slo/checkout-availability.yaml");
    let mut op = SloOperator::new(Arc::new(compile(&load_path(&file)).slos));
    // An event a tenant and minute, for thirty days, an hour a commit.
    let (mut rows, begun) = (0, Instant::now());
    let mut taking = std::time::Duration::ZERO;
    let hours = DAYS * 24;
    for hour in 0..hours {
        let events: Vec<i64> = (0..60 * TENANTS).map(|n| T0 + (hour * 60 + n / TENANTS) * MINUTE).collect();
        rows += feed(&mut op, &events, T0 + (hour + 1) * 60 * MINUTE - 1, &mut taking);
    }
    println!(
        "{rows} rows taken in {:.2} s ({:.2} s with evaluation)",
        taking.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    let full = bytes(&op.snapshot(SnapshotKind::Full).unwrap());
    let now = T0 + hours * 60 * MINUTE;
    feed(&mut op, &(0..TENANTS).map(|_| now).collect::<Vec<_>>(), now, &mut taking);
    let begun = Instant::now();
    let one = bytes(&op.snapshot(SnapshotKind::Incremental).unwrap());
    println!(
        "snapshot of {TENANTS} keys: full {full} bytes; after one event of each {one} bytes, in {:.2} ms",
        begun.elapsed().as_secs_f64() * 1000.0
    );
}

fn feed(op: &mut SloOperator, events: &[i64], now: i64, taking: &mut std::time::Duration) -> usize {
    let n = events.len();
    let text = |v: &str| Arc::new(StringArray::from(vec![v; n])) as ArrayRef;
    let ones = || Arc::new(Float64Array::from(vec![1.0; n])) as ArrayRef;
    let tenants: Vec<String> = (0..n).map(|i| format!("tenant-{}", i as i64 % TENANTS)).collect();
    let times = TimestampMicrosecondArray::from_iter_values(events.iter().copied()).with_timezone("UTC");
    let batch = RecordBatch::try_from_iter([
        ("occurred_at", Arc::new(times) as ArrayRef),
        ("tenant", Arc::new(StringArray::from(tenants)) as ArrayRef),
        ("service", text("checkout")),
        ("env", text("prod")),
        ("region", text("eu")),
        ("sli_type", text("availability")),
        ("good", ones()),
        ("total", ones()),
    ])
    .unwrap();
    let at = DateTime::from_timestamp_micros(now).unwrap();
    let begun = Instant::now();
    op.on_rows(&TailRows { stream: Stream::SliMetrics, version: 1, committed_at: at, batch: &batch }).unwrap();
    *taking += begun.elapsed();
    op.on_time(at).unwrap();
    op.take_output();
    n
}

fn bytes(state: &[StateBatch]) -> usize {
    state.iter().flat_map(|s| s.batch.columns().iter().map(|c| c.get_buffer_memory_size()).collect::<Vec<_>>()).sum()
}
