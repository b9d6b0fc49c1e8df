//! An operator to feed by hand: SLOs from text, rows from tuples, and what came out as tuples.

// Clippy allows these in test functions; what those call is test code too. Not every test uses all.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::{path::Path, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::Float64Type,
};
use chrono::{DateTime, Utc};
use companyos_schemas::Stream;
use companyos_slo::{CompiledSlo, SloOperator, compile, load_str};
use companyos_stream::{Output, ShardOperator, TailRows};

pub const SECOND: i64 = 1_000_000;
pub const MINUTE: i64 = 60 * SECOND;
/// A full hour and the first minute of a day.
pub const T0: i64 = 28_000_800 * MINUTE;

/// The SLOs of a text, all of which must run.
pub fn slos(yaml: &str) -> Arc<Vec<CompiledSlo>> {
    let loaded = load_str(Path::new("test.yaml"), yaml);
    let compiled = compile(&loaded);
    assert!(loaded.refused.is_empty() && compiled.refused.is_empty(), "{:?} {:?}", loaded.refused, compiled.refused);
    Arc::new(compiled.slos)
}

/// An SLO of the service `till` over SLI metrics: indicator, and what follows it, in YAML.
pub fn slo(annotations: &str, indicator: &str, rest: &str) -> String {
    format!(
        "apiVersion: openslo/v1\nkind: SLO\nmetadata: {{ name: s, annotations: {{ {annotations} }} }}\nspec:\n  \
         service: till\n  indicator: {{ metadata: {{ name: i }}, spec: {{ {indicator} }} }}\n{rest}\n"
    )
}

/// Good of total, from the columns of SLI metrics.
pub const RATIO: &str = "ratioMetric: { \
    good: { metricSource: { type: companyos, spec: { stream: sli_metrics } } }, \
    total: { metricSource: { type: companyos, spec: { stream: sli_metrics } } } }";

/// A row of SLI metrics.
#[derive(Debug, Clone, Copy)]
pub struct Sli {
    pub at: i64,
    pub value: Option<f64>,
    pub good: f64,
    pub total: f64,
}

pub fn counts(at: i64, good: f64, total: f64) -> Sli {
    Sli { at, value: None, good, total }
}

pub fn value(at: i64, value: f64) -> Sli {
    Sli { at, value: Some(value), good: 0.0, total: 1.0 }
}

fn text(values: Vec<&str>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}

pub fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap()
}

pub fn micros(text: &str) -> i64 {
    text.parse::<DateTime<Utc>>().unwrap().timestamp_micros()
}

/// Feeds rows committed at `now`.
pub fn rows(op: &mut SloOperator, events: &[Sli], now: i64) {
    let n = events.len();
    let float = |f: fn(&Sli) -> Option<f64>| Arc::new(events.iter().map(f).collect::<Float64Array>()) as ArrayRef;
    let batch = RecordBatch::try_from_iter([
        ("occurred_at", times(events.iter().map(|e| e.at))),
        ("tenant", text(vec!["acme"; n])),
        ("service", text(vec!["till"; n])),
        ("env", text(vec!["prod"; n])),
        ("region", text(vec!["eu"; n])),
        ("sli_type", text(vec!["any"; n])),
        ("value", float(|e| e.value)),
        ("good", float(|e| Some(e.good))),
        ("total", float(|e| Some(e.total))),
    ])
    .unwrap();
    op.on_rows(&TailRows { stream: Stream::SliMetrics, version: 1, committed_at: time(now), batch: &batch }).unwrap();
}

/// A row of operations events: tenant, kind, service, deploy id and time.
pub type Op<'a> = (&'a str, &'a str, &'a str, &'a str, i64);

pub fn ops(op: &mut SloOperator, events: &[Op<'_>], now: i64) {
    let n = events.len();
    let column = |f: fn(&Op<'_>) -> String| Arc::new(StringArray::from_iter_values(events.iter().map(f))) as ArrayRef;
    let batch = RecordBatch::try_from_iter([
        ("occurred_at", times(events.iter().map(|e| e.4))),
        ("tenant", column(|e| e.0.to_owned())),
        ("env", text(vec!["prod"; n])),
        ("region", text(vec!["eu"; n])),
        ("kind", column(|e| e.1.to_owned())),
        ("service", column(|e| e.2.to_owned())),
        ("deploy_id", column(|e| e.3.to_owned())),
        ("commit", text(vec!["c0ffee"; n])),
    ])
    .unwrap();
    op.on_rows(&TailRows { stream: Stream::OpsEvents, version: 1, committed_at: time(now), batch: &batch }).unwrap();
}

/// Lets time pass, and takes what came out.
pub fn pass(op: &mut SloOperator, now: i64) -> Output {
    op.on_time(time(now)).unwrap();
    op.take_output()
}

/// Rows in, time on, output out.
pub fn feed(op: &mut SloOperator, events: &[Sli], now: i64) -> Output {
    if !events.is_empty() {
        rows(op, events, now);
    }
    pass(op, now)
}

fn table<'a>(output: &'a Output, name: &str) -> Option<&'a RecordBatch> {
    output.rows.iter().find(|(t, _)| t.name == name).map(|(_, batch)| batch)
}

/// A column of text of `slo_alerts`.
pub fn alert_column(output: &Output, name: &str) -> Vec<String> {
    let Some(batch) = table(output, "slo_alerts") else { return Vec::new() };
    let column = batch.column_by_name(name).unwrap().as_string::<i32>();
    (0..batch.num_rows()).map(|row| column.value(row).to_owned()).collect()
}

/// Condition and state of each change of an alert.
pub fn changes(output: &Output) -> Vec<(String, String)> {
    alert_column(output, "condition").into_iter().zip(alert_column(output, "state")).collect()
}

/// A number of the last row of `slo_burn`; none if it is null or there is no row.
pub fn burn(output: &Output, name: &str) -> Option<f64> {
    let batch = table(output, "slo_burn")?;
    let column = batch.column_by_name(name).unwrap().as_primitive::<Float64Type>();
    let row = batch.num_rows() - 1;
    (!column.is_null(row)).then(|| column.value(row))
}

/// `data_state` of the last row of `slo_burn`.
pub fn data_state(output: &Output) -> Option<String> {
    let batch = table(output, "slo_burn")?;
    Some(batch.column_by_name("data_state").unwrap().as_string::<i32>().value(batch.num_rows() - 1).to_owned())
}

/// Condition, state, and the rest of each notice.
pub fn notices(output: &Output) -> Vec<serde_json::Value> {
    output.notices.iter().map(|notice| serde_json::from_str(&notice.body).unwrap()).collect()
}
