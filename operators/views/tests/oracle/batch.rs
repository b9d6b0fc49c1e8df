//! The batch answer, by a query written another way: windows as date_bin, a cross join or lag over
//! all events at once; and the comparison.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::RecordBatch,
        util::display::{ArrayFormatter, FormatOptions},
    },
    datasource::MemTable,
    prelude::{SessionConfig, SessionContext},
};

use crate::{
    cases::{Case, Win},
    events,
};

pub async fn answer(case: &Case, events: &RecordBatch) -> Vec<Vec<String>> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let table = MemTable::try_new(events.schema(), vec![vec![events.clone()]]).unwrap();
    context.register_table("all_events", Arc::new(table)).unwrap();
    context.register_batch("features", events::features()).unwrap();
    let filter = case.filter.as_ref().map(|f| format!("WHERE {f}")).unwrap_or_default();
    let join = case.join.map(|j| format!("{j} features ON e.feature = features.feature")).unwrap_or_default();
    // Everything a view's query may name, one row an event, filtered.
    let extra = if case.join.is_some() { ", features.category" } else { "" };
    let base = format!("SELECT e.*{extra} FROM all_events e {join} {filter}");
    let keys: Vec<&str> = case.keys.iter().map(|(key, _)| key.as_str()).collect();
    let by = ["tenant", "env", "region"].iter().chain(&keys).copied().collect::<Vec<_>>().join(", ");
    let windowed = match case.window {
        Win::None => format!("SELECT *, 0 AS w FROM ({base})"),
        Win::Tumble(size) => format!("SELECT *, date_bin(interval '{size}', occurred_at) AS w FROM ({base})"),
        Win::TumbleIn(size, zone) => format!(
            "SELECT *, date_bin(interval '{size}', to_local_time(arrow_cast(occurred_at, \
             'Timestamp(Microsecond, Some(\"{zone}\"))'))) AS w FROM ({base})"
        ),
        Win::Hop(size, slide) => {
            let steps: Vec<String> = (0..size / slide).map(|k| format!("(interval '{} minutes')", k * slide)).collect();
            format!(
                "SELECT b.*, date_bin(interval '{slide} minutes', occurred_at) - k.back AS w FROM ({base}) b \
                 CROSS JOIN (VALUES {}) AS k(back)",
                steps.join(", ")
            )
        }
        Win::Session(gap) => format!(
            "SELECT *, min(occurred_at) OVER (PARTITION BY {by}, number) AS w FROM (SELECT *, sum(begins) OVER \
             (PARTITION BY {by} ORDER BY occurred_at ROWS UNBOUNDED PRECEDING) AS number FROM (SELECT *, CASE WHEN \
             occurred_at - lag(occurred_at) OVER (PARTITION BY {by} ORDER BY occurred_at) <= interval '{gap} minutes' \
             THEN 0 ELSE 1 END AS begins FROM ({base})))"
        ),
    };
    let mut shown: Vec<String> =
        ["tenant", "env", "region"].iter().filter(|s| !keys.contains(*s)).map(|s| (*s).to_owned()).collect();
    shown.extend(case.keys.iter().map(|(key, name)| format!("{key} AS {name}")));
    if case.window != Win::None {
        shown.push("w".to_owned());
    }
    let ties = "ORDER BY occurred_at, _topic, _partition, _offset, _index)";
    let desc = "ORDER BY occurred_at DESC, _topic, _partition, _offset, _index)";
    shown.extend(case.aggregates.iter().map(|(call, name)| {
        let call = call.replace("ORDER BY occurred_at)", ties).replace("ORDER BY occurred_at DESC)", desc);
        let call = match call.as_str() {
            "min(value)" | "max(value)" => format!("{call} FILTER (WHERE NOT isnan(value))"),
            _ => uncapped(&call, ties),
        };
        format!("{call} AS {name}")
    }));
    let having = case.having.as_ref().map(|h| format!("HAVING {h}")).unwrap_or_default();
    let sql = format!("SELECT {} FROM ({windowed}) GROUP BY {by}, w {having}", shown.join(", "));
    let batches = context.sql(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e}")).collect().await;
    rows_of(&batches.unwrap_or_else(|e| panic!("{sql}: {e}")))
}

/// `array_agg_first(x, 5)` as a slice of all values in order.
fn uncapped(call: &str, ties: &str) -> String {
    let Some(inner) = call.strip_prefix("array_agg_first(").and_then(|c| c.strip_suffix(")")) else {
        return call.to_owned();
    };
    let (value, cap) = inner.rsplit_once(", ").unwrap();
    format!("array_slice(array_agg({value} {ties}, 1, {cap})")
}

/// Rows as text, columns in order.
pub fn rows_of(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let options = FormatOptions::default().with_null("∅");
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|column| column.value(row).to_string()).collect());
        }
    }
    rows
}

pub fn compare(case: &Case, ours: &[Vec<String>], batch: &[Vec<String>]) -> Result<(), String> {
    let keys = case.keys.iter().filter(|(k, _)| !["tenant", "env", "region"].contains(&k.as_str())).count();
    let keys = 3 + keys + usize::from(case.window != Win::None);
    let sorted = |rows: &[Vec<String>]| {
        let mut rows = rows.to_vec();
        rows.sort();
        rows
    };
    let (ours, batch) = (sorted(ours), sorted(batch));
    if ours.len() != batch.len() {
        return Err(format!("{} rows, the batch query has {}: {ours:?}\n{batch:?}", ours.len(), batch.len()));
    }
    for (ours, batch) in ours.iter().zip(&batch) {
        let same = ours
            .iter()
            .zip(batch)
            .enumerate()
            .all(|(column, (a, b))| a == b || (column >= keys && is_near(a, b, case.tolerance)));
        if !same {
            return Err(format!("\nours  {ours:?}\nbatch {batch:?}"));
        }
    }
    Ok(())
}

fn is_near(a: &str, b: &str, tolerance: f64) -> bool {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        // Percentiles are wrong by a share of the range, which is 250 wide in these events.
        (Ok(a), Ok(b)) if tolerance > 1e-6 => (a - b).abs() <= tolerance * 250.0,
        (Ok(a), Ok(b)) => (a.is_nan() && b.is_nan()) || (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0),
        _ => false,
    }
}
