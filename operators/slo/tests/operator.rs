//! The operator against an independent reference, on incidents with known answers, and across crashes.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use arrow::{
    array::{AsArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::*,
};
use chrono::DateTime;
use companyos_schemas::Stream;
use companyos_slo::{CompiledSlo, Fault, SloOperator, compile, load_path, load_str};
use companyos_stream::{Output, ShardOperator, SnapshotKind, TailRows};
use proptest::prelude::*;

const MINUTE: i64 = 60_000_000;
const T0: i64 = 28_000_000 * MINUTE;

fn shipped() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/slo")
}

fn availability() -> Arc<Vec<CompiledSlo>> {
    let slos = compile(&load_path(&shipped().join("checkout-availability.yaml"))).slos;
    assert_eq!(slos.len(), 1);
    Arc::new(slos)
}

fn batch(events: &[(i64, f64, f64)]) -> RecordBatch {
    let n = events.len();
    let text = |v: &str| Arc::new(StringArray::from(vec![v.to_owned(); n])) as arrow::array::ArrayRef;
    let float = |f: fn(&(i64, f64, f64)) -> f64| {
        Arc::new(events.iter().map(|e| Some(f(e))).collect::<Float64Array>()) as arrow::array::ArrayRef
    };
    let times = TimestampMicrosecondArray::from_iter_values(events.iter().map(|e| e.0)).with_timezone("UTC");
    RecordBatch::try_from_iter([
        ("occurred_at", Arc::new(times) as arrow::array::ArrayRef),
        ("tenant", text("acme")),
        ("service", text("checkout")),
        ("env", text("prod")),
        ("region", text("eu")),
        ("sli_type", text("availability")),
        ("good", float(|e| e.1)),
        ("total", float(|e| e.2)),
    ])
    .unwrap()
}

fn feed(op: &mut SloOperator, events: &[(i64, f64, f64)], now: i64) -> Output {
    let at = DateTime::from_timestamp_micros(now).unwrap();
    if !events.is_empty() {
        let batch = batch(events);
        op.on_rows(&TailRows { stream: Stream::SliMetrics, version: 1, committed_at: at, batch: &batch }).unwrap();
    }
    op.on_time(at).unwrap();
    op.take_output()
}

fn table(output: &Output, name: &str) -> Vec<RecordBatch> {
    output.rows.iter().filter(|(t, _)| t.name == name).map(|(_, b)| b.clone()).collect()
}

fn float(batch: &RecordBatch, name: &str) -> f64 {
    batch.column_by_name(name).unwrap().as_primitive::<Float64Type>().value(batch.num_rows() - 1)
}

fn states(output: &Output) -> Vec<(String, String)> {
    let text = |b: &RecordBatch, n: &str, i| b.column_by_name(n).unwrap().as_string::<i32>().value(i).to_owned();
    table(output, "slo_alerts")
        .iter()
        .flat_map(|b| (0..b.num_rows()).map(|i| (text(b, "condition", i), text(b, "state", i))).collect::<Vec<_>>())
        .collect()
}

#[test]
fn every_shipped_slo_runs() {
    let report = load_path(&shipped());
    let compiled = compile(&report);
    assert!(report.refused.is_empty() && compiled.refused.is_empty(), "{:?} {:?}", report.refused, compiled.refused);
    assert_eq!(compiled.slos.len(), 5);
}

#[test]
fn what_is_refused_names_file_document_line_field_and_reason() {
    let text = "apiVersion: openslo/v1\nkind: Service\nmetadata:\n  name: a\nspec: {}\n---\napiVersion: openslo/v1\nkind: SLO\nmetadata:\n  name: b\nspec:\n  service: a\n  indicatorRef: x\n  budgetingMethod: Occurrences\n  objectives:\n    - targt: 0.9\n";
    let report = load_str(Path::new("f.yaml"), text);
    assert_eq!(report.loaded.len(), 1);
    let refused = &report.refused[0];
    assert_eq!((refused.field.as_str(), refused.fault), ("spec.objectives[0].targt", Fault::Unsupported), "{refused}");
    assert_eq!((refused.origin.document, refused.origin.line, refused.name.as_deref()), (1, Some(16), Some("b")));
    let other = std::fs::read_to_string(shipped().join("checkout-availability.yaml")).unwrap();
    let report = load_str(Path::new("f.yaml"), &other.replace("type: companyos", "type: Prometheus"));
    assert_eq!(report.loaded.len(), 1);
    let compiled = compile(&report);
    assert_eq!(compiled.refused[0].field, "spec.indicator.spec.ratioMetric.good.metricSource.type");
}

#[test]
fn a_total_outage_pages_in_time_with_the_budget_spent_known_and_resolves() {
    let mut op = SloOperator::new(availability());
    let mut log = Vec::new();
    for m in 0..180 {
        let good = if (120..140).contains(&m) { 0.0 } else { 100.0 };
        let now = T0 + m * MINUTE;
        let out = feed(&mut op, &[(now, good, 100.0)], now + 1_000_000);
        log.extend(states(&out).into_iter().map(|(c, s)| (m, c, s)));
        if m == 139 {
            let burn = table(&out, "slo_burn").pop().unwrap();
            assert!((float(&burn, "burn_rate_1h") - 20.0 / 60.0 / 0.001).abs() < 1e-6);
            assert!((float(&burn, "error_budget_remaining") - (1.0 - 20.0 / 140.0 / 0.001)).abs() < 1e-6);
        }
    }
    let when = |condition: &str, state: &str| {
        log.iter().filter(|l| l.1 == condition && l.2 == state).map(|l| l.0).collect::<Vec<_>>()
    };
    // One bad minute of sixty burns at 16.7x: pending at once, firing after the minute it waits.
    assert_eq!(when("page-14.4x-1h-5m", "pending"), [120]);
    assert_eq!(when("page-14.4x-1h-5m", "firing"), [121]);
    // The 5 m window is clean from minute 144; five minutes of hold.
    assert_eq!(when("page-14.4x-1h-5m", "resolved"), [149]);
}

#[test]
fn noise_within_budget_and_little_traffic_page_nobody_and_silence_is_told_once() {
    let mut op = SloOperator::new(availability());
    let mut changes = Vec::new();
    for m in 0..600 {
        let now = T0 + m * MINUTE;
        let bad = f64::from(u8::from(m % 20 == 10));
        changes.extend(states(&feed(&mut op, &[(now, 100.0 - bad, 100.0)], now)));
    }
    assert!(changes.is_empty(), "{changes:?}");
    let mut quiet = SloOperator::new(availability());
    assert!(states(&feed(&mut quiet, &[(T0, 0.0, 3.0)], T0)).is_empty(), "low traffic");
    let mut told = Vec::new();
    for m in 600..660 {
        let out = feed(&mut op, &[], T0 + m * MINUTE);
        told.extend(out.notices.iter().map(|n| n.id.clone()));
    }
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].ends_with("/no_data"));
}

/// Shipped SLOs of good and total, with another way to budget.
fn budgeted(method: &str, slices: &str) -> Arc<Vec<CompiledSlo>> {
    let text = std::fs::read_to_string(shipped().join("checkout-availability.yaml")).unwrap();
    let text = text.replace("Occurrences", method).replace("- target: 0.999", &format!("- target: 0.999\n{slices}"));
    let slos = compile(&load_str(Path::new("test.yaml"), &text)).slos;
    assert_eq!(slos.len(), 1, "{text}");
    Arc::new(slos)
}

#[test]
fn the_access_log_gives_what_the_reference_gives() {
    let Some(rows) = access_log() else { return };
    compare(&rows, availability(), &[]);
}

#[test]
fn slices_of_the_access_log_give_what_the_reference_gives() {
    let Some(rows) = access_log() else { return };
    let slices = |minutes: &str| format!("      timeSliceWindow: {minutes}\n      timeSliceTarget: 0.9");
    compare(&rows, budgeted("Timeslices", &slices("15")), &["15", "0.9"]);
    compare(&rows, budgeted("Timeslices", &slices("2h")), &["120", "0.9"]);
    compare(&rows, budgeted("RatioTimeslices", &slices("60")), &["60"]);
}

/// Time, good and total of each request, in the order of 90 minutes.
fn access_log() -> Option<Vec<(i64, f64, f64)>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/apache_access_2015-05.log.gz");
    let Ok(file) = std::fs::File::open(&path) else {
        eprintln!("SKIPPED: {} is not there", path.display());
        return None;
    };
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    let mut rows: Vec<(i64, f64, f64)> = text
        .lines()
        .filter_map(|line| {
            let time = line.split('[').nth(1)?.split(']').next()?;
            let at = DateTime::parse_from_str(time, "%d/%b/%Y:%H:%M:%S %z").ok()?.timestamp_micros();
            let status: u32 = line.split("\" ").nth(1)?.split(' ').next()?.parse().ok()?;
            // Few 5xx in this log: 404 counts as bad too.
            Some((at, f64::from(u8::from(status < 400)), 1.0))
        })
        .collect();
    assert!(rows.len() > 5000);
    rows.sort_by_key(|r| r.0 / (90 * MINUTE));
    Some(rows)
}

/// Feeds the rows and asks every 90 minutes, here and in the reference.
fn compare(rows: &[(i64, f64, f64)], slos: Arc<Vec<CompiledSlo>>, arguments: &[&str]) {
    let mut input: String = rows.iter().map(|r| format!("{} {} {}\n", r.0, r.1, r.2)).collect();
    input.push_str("---\n");
    let mut op = SloOperator::new(slos);
    let mut ours: Vec<[[f64; 2]; 8]> = Vec::new();
    for chunk in rows.chunk_by(|a, b| a.0 / (90 * MINUTE) == b.0 / (90 * MINUTE)) {
        let now = (chunk[0].0 / (90 * MINUTE) + 1) * 90 * MINUTE - 1;
        let burn = table(&feed(&mut op, chunk, now), "slo_burn").pop().unwrap();
        let windows = ["5m", "30m", "1h", "2h", "6h", "24h", "3d", "budget"];
        ours.push(windows.map(|w| [float(&burn, &format!("good_{w}")), float(&burn, &format!("total_{w}"))]));
        input.push_str(&format!("{now}\n"));
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference.py");
    let mut child = Command::new("python3")
        .arg(script)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let theirs: Vec<[[f64; 2]; 8]> =
        String::from_utf8(output.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    // The reference sees later rows too, but they lie after its moments.
    assert_eq!(ours.len(), theirs.len());
    for (moment, (ours, theirs)) in ours.iter().flatten().zip(theirs.iter().flatten()).enumerate() {
        // Sums of ratios are made in another order.
        let same = (ours[0] - theirs[0]).abs() < 1e-9 && ours[1] == theirs[1];
        assert!(same, "{arguments:?}, window {} of moment {}: {ours:?}, {theirs:?}", moment % 8, moment / 8);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_restored_operator_puts_out_what_an_uninterrupted_one_does(
        steps in prop::collection::vec((0..400_i64, 0..30_u8, 0..30_u8, any::<bool>()), 1..40),
    ) {
        let (mut one, mut other) = (SloOperator::new(availability()), SloOperator::new(availability()));
        let mut chain = vec![];
        let mut now = T0;
        for (i, (step, good, bad, crash)) in steps.into_iter().enumerate() {
            now += step * 1_000_000;
            let event = [(now - step * 7_000_000, f64::from(good), f64::from(good) + f64::from(bad))];
            let (a, b) = (feed(&mut one, &event, now), feed(&mut other, &event, now));
            prop_assert_eq!(&a.rows, &b.rows);
            prop_assert_eq!(&a.notices, &b.notices);
            let kind = if i == 0 { SnapshotKind::Full } else { SnapshotKind::Incremental };
            chain.push(other.snapshot(kind).unwrap());
            if crash {
                other = SloOperator::new(availability());
                for part in &chain {
                    other.restore(part).unwrap();
                }
            }
        }
    }
}
