//! The tables `slo_burn` and `slo_alerts`: schemas, and rows on their way into them.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use companyos_schemas::arrow_schema::timestamp_type;
use companyos_stream::OutputTable;

use crate::panes::Counts;

/// The windows burn rates are given for: name in column names, and minutes.
pub const WINDOWS: [(&str, i64); 7] =
    [("5m", 5), ("30m", 30), ("1h", 60), ("2h", 120), ("6h", 360), ("24h", 1440), ("3d", 4320)];

/// Who a row is about.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub tenant: String,
    pub env: String,
    pub region: String,
    pub service: String,
    pub slo: String,
}

#[derive(Debug, Clone)]
pub(crate) struct BurnRow {
    pub scope: Scope,
    pub at: i64,
    pub objective: f64,
    /// One for each of [`WINDOWS`].
    pub counts: Vec<Counts>,
    pub budget: Counts,
    pub remaining: Option<f64>,
    pub exhaustion: Option<f64>,
    pub data_state: &'static str,
    /// Seconds of the budget's window, and of that since the first event.
    pub window: Option<f64>,
    pub covered: Option<f64>,
}

#[derive(Debug, Clone)]
pub(crate) struct AlertRow {
    pub scope: Scope,
    pub at: i64,
    pub objective: f64,
    pub alert_id: String,
    pub policy: String,
    pub condition: String,
    pub severity: &'static str,
    pub state: &'static str,
    pub started: i64,
    pub threshold: Option<f64>,
    pub long_window: Option<String>,
    pub short_window: Option<String>,
    pub long_burn: Option<f64>,
    pub short_burn: Option<f64>,
    pub budget_spent: Option<f64>,
    pub deploys: String,
    pub evidence: String,
}

fn text(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Utf8, nullable)
}

fn float(name: impl Into<String>, nullable: bool) -> Field {
    Field::new(name, DataType::Float64, nullable)
}

fn scope_fields() -> Vec<Field> {
    ["tenant", "env", "region", "service", "slo"].into_iter().map(|n| text(n, false)).collect()
}

/// The table of burn rates: the latest row of a key is its present state.
pub fn slo_burn_table() -> OutputTable {
    let mut fields = vec![Field::new("evaluated_at", timestamp_type(), false)];
    fields.extend(scope_fields());
    fields.push(float("objective", false));
    fields.extend(WINDOWS.iter().map(|(w, _)| float(format!("burn_rate_{w}"), true)));
    for (window, _) in WINDOWS {
        fields.push(float(format!("good_{window}"), false));
        fields.push(float(format!("total_{window}"), false));
    }
    fields.extend([
        float("good_budget", false),
        float("total_budget", false),
        float("error_budget_remaining", true),
        float("seconds_to_exhaustion", true),
        text("data_state", false),
        // Last, as they came later: tables from before get them added.
        float("budget_window_seconds", true),
        float("budget_covered_seconds", true),
    ]);
    OutputTable { name: "slo_burn", schema: Arc::new(Schema::new(fields)) }
}

/// The table of changes of alerts.
pub fn slo_alerts_table() -> OutputTable {
    let mut fields = vec![Field::new("at", timestamp_type(), false)];
    fields.extend(scope_fields());
    fields.push(float("objective", false));
    fields.extend(["alert_id", "policy", "condition", "severity", "state"].map(|n| text(n, false)));
    fields.push(Field::new("started_at", timestamp_type(), false));
    fields.extend([
        float("threshold", true),
        text("long_window", true),
        text("short_window", true),
        float("long_burn", true),
        float("short_burn", true),
        float("budget_spent", true),
        text("deploys", false),
        text("evidence", false),
    ]);
    OutputTable { name: "slo_alerts", schema: Arc::new(Schema::new(fields)) }
}

fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_iter_values(values).with_timezone("UTC"))
}

fn scopes<'a>(scopes: impl Iterator<Item = &'a Scope> + Clone) -> Vec<ArrayRef> {
    let column = |f: fn(&Scope) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(scopes.clone().map(f))) };
    vec![column(|s| &s.tenant), column(|s| &s.env), column(|s| &s.region), column(|s| &s.service), column(|s| &s.slo)]
}

/// Rows as a batch of the table.
pub(crate) fn burn_batch(schema: SchemaRef, rows: &[BurnRow]) -> Result<RecordBatch, ArrowError> {
    let floats =
        |f: &dyn Fn(&BurnRow) -> Option<f64>| -> ArrayRef { Arc::new(rows.iter().map(f).collect::<Float64Array>()) };
    let mut columns = vec![times(rows.iter().map(|r| r.at))];
    columns.extend(scopes(rows.iter().map(|r| &r.scope)));
    columns.push(floats(&|r| Some(r.objective)));
    for i in 0..WINDOWS.len() {
        columns.push(floats(&|r| r.counts.get(i)?.burn_rate(r.objective)));
    }
    for i in 0..WINDOWS.len() {
        columns.push(floats(&|r| r.counts.get(i).map(|c| c.good)));
        columns.push(floats(&|r| r.counts.get(i).map(|c| c.total)));
    }
    columns.push(floats(&|r| Some(r.budget.good)));
    columns.push(floats(&|r| Some(r.budget.total)));
    columns.push(floats(&|r| r.remaining));
    columns.push(floats(&|r| r.exhaustion));
    columns.push(Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.data_state))));
    columns.push(floats(&|r| r.window));
    columns.push(floats(&|r| r.covered));
    RecordBatch::try_new(schema, columns)
}

/// Rows as a batch of the table.
pub(crate) fn alert_batch(schema: SchemaRef, rows: &[AlertRow]) -> Result<RecordBatch, ArrowError> {
    let floats =
        |f: fn(&AlertRow) -> Option<f64>| -> ArrayRef { Arc::new(rows.iter().map(f).collect::<Float64Array>()) };
    let texts = |f: fn(&AlertRow) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(rows.iter().map(f))) };
    let optional =
        |f: fn(&AlertRow) -> Option<&str>| -> ArrayRef { Arc::new(rows.iter().map(f).collect::<StringArray>()) };
    let mut columns = vec![times(rows.iter().map(|r| r.at))];
    columns.extend(scopes(rows.iter().map(|r| &r.scope)));
    columns.extend([
        floats(|r| Some(r.objective)),
        texts(|r| &r.alert_id),
        texts(|r| &r.policy),
        texts(|r| &r.condition),
        texts(|r| r.severity),
        texts(|r| r.state),
        times(rows.iter().map(|r| r.started)),
        floats(|r| r.threshold),
        optional(|r| r.long_window.as_deref()),
        optional(|r| r.short_window.as_deref()),
        floats(|r| r.long_burn),
        floats(|r| r.short_burn),
        floats(|r| r.budget_spent),
        texts(|r| &r.deploys),
        texts(|r| &r.evidence),
    ]);
    RecordBatch::try_new(schema, columns)
}
