//! What `companyos slo report SERVICE` says: budget, burn rates, last alerts and a chart, from rows
//! of the tables `slo_burn` and `slo_alerts`.

use std::{collections::BTreeMap, fmt::Write};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float64Type, TimeUnit, TimestampMicrosecondType},
};
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{measure::text_column, tables::WINDOWS};

/// Everything about one service.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Service.
    pub service: String,
    /// Its objectives by tenant, environment, region and name.
    pub slos: Vec<SloReport>,
    /// Last changes of its alerts, newest first.
    pub alerts: Vec<AlertLine>,
}

/// One objective as of its last row.
#[derive(Debug, Clone, Serialize)]
pub struct SloReport {
    /// Tenant.
    pub tenant: String,
    /// Environment.
    pub env: String,
    /// Region.
    pub region: String,
    /// Name.
    pub slo: String,
    /// Share of good aimed at.
    pub objective: f64,
    /// When this was so.
    pub evaluated_at: DateTime<Utc>,
    /// Share of the error budget left; below 0 when overspent.
    pub error_budget_remaining: Option<f64>,
    /// Seconds of the window the budget is for.
    pub window_seconds: Option<f64>,
    /// Seconds of that window since the first event. The budget is counted over the events there
    /// are, so early on few of them weigh as much as all of a window's will.
    pub covered_seconds: Option<f64>,
    /// Good and all units of the window: events, or slices.
    pub good_budget: Option<f64>,
    /// See `good_budget`.
    pub total_budget: Option<f64>,
    /// Seconds until it is spent at the rate of the last hour.
    pub seconds_to_exhaustion: Option<f64>,
    /// Burn rates by window.
    pub burn_rates: BTreeMap<&'static str, Option<f64>>,
    /// `ok`, `low_traffic` or `no_data`.
    pub data_state: String,
    /// Budget left over time, oldest first.
    pub history: Vec<(DateTime<Utc>, f64)>,
}

/// A change of an alert.
#[derive(Debug, Clone, Serialize)]
pub struct AlertLine {
    /// When.
    pub at: DateTime<Utc>,
    /// Objective.
    pub slo: String,
    /// Condition.
    pub condition: String,
    /// Severity.
    pub severity: String,
    /// State it changed to.
    pub state: String,
    /// Burn rate over the long window.
    pub long_burn: Option<f64>,
    /// Stable id.
    pub alert_id: String,
}

/// Alerts a report lists.
const LAST_ALERTS: usize = 10;
/// Width of the chart.
const CHART: usize = 60;

/// Makes the report of a service from rows in any order; rows of other services are passed over.
pub fn report(service: &str, burn: &[RecordBatch], alerts: &[RecordBatch]) -> Report {
    let mut slos: BTreeMap<[String; 4], SloReport> = BTreeMap::new();
    for batch in burn {
        burn_rows(service, batch, &mut slos);
    }
    let mut lines: Vec<AlertLine> = alerts.iter().flat_map(|batch| alert_rows(service, batch)).collect();
    lines.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.alert_id.cmp(&b.alert_id)));
    lines.truncate(LAST_ALERTS);
    let mut slos: Vec<SloReport> = slos.into_values().collect();
    for slo in &mut slos {
        slo.history.sort_by_key(|(at, _)| *at);
    }
    Report { service: service.to_owned(), slos, alerts: lines }
}

fn burn_rows(service: &str, batch: &RecordBatch, slos: &mut BTreeMap<[String; 4], SloReport>) {
    let text = |name| text_column(batch, name);
    let (Some(services), Some(tenants), Some(envs), Some(regions), Some(names), Some(states), Some(times)) = (
        text("service"),
        text("tenant"),
        text("env"),
        text("region"),
        text("slo"),
        text("data_state"),
        times(batch, "evaluated_at"),
    ) else {
        return;
    };
    for row in (0..batch.num_rows()).filter(|row| services.value(*row) == service) {
        let Some(at) = times[row] else { continue };
        let key = [&tenants, &envs, &regions, &names].map(|c| c.value(row).to_owned());
        let remaining = float(batch, "error_budget_remaining", row);
        let known = slos.get(&key);
        let mut history = known.map(|s| s.history.clone()).unwrap_or_default();
        history.extend(remaining.map(|r| (at, r)));
        if let Some(known) = slos.get_mut(&key)
            && known.evaluated_at > at
        {
            known.history = history;
            continue;
        }
        let [tenant, env, region, slo] = key.clone();
        let latest = SloReport {
            tenant,
            env,
            region,
            slo,
            objective: float(batch, "objective", row).unwrap_or_default(),
            evaluated_at: at,
            error_budget_remaining: remaining,
            window_seconds: float(batch, "budget_window_seconds", row),
            covered_seconds: float(batch, "budget_covered_seconds", row),
            good_budget: float(batch, "good_budget", row),
            total_budget: float(batch, "total_budget", row),
            seconds_to_exhaustion: float(batch, "seconds_to_exhaustion", row),
            burn_rates: WINDOWS.iter().map(|(w, _)| (*w, float(batch, &format!("burn_rate_{w}"), row))).collect(),
            data_state: states.value(row).to_owned(),
            history,
        };
        slos.insert(key, latest);
    }
}

fn alert_rows(service: &str, batch: &RecordBatch) -> Vec<AlertLine> {
    let text = |name| text_column(batch, name);
    let (Some(services), Some(slos), Some(conditions), Some(severities), Some(states), Some(ids), Some(times)) = (
        text("service"),
        text("slo"),
        text("condition"),
        text("severity"),
        text("state"),
        text("alert_id"),
        times(batch, "at"),
    ) else {
        return Vec::new();
    };
    (0..batch.num_rows())
        .filter(|row| services.value(*row) == service)
        .filter_map(|row| {
            Some(AlertLine {
                at: times[row]?,
                slo: slos.value(row).to_owned(),
                condition: conditions.value(row).to_owned(),
                severity: severities.value(row).to_owned(),
                state: states.value(row).to_owned(),
                long_burn: float(batch, "long_burn", row),
                alert_id: ids.value(row).to_owned(),
            })
        })
        .collect()
}

fn times(batch: &RecordBatch, name: &str) -> Option<Vec<Option<DateTime<Utc>>>> {
    let column = cast(batch.column_by_name(name)?, &DataType::Timestamp(TimeUnit::Microsecond, None)).ok()?;
    let column = column.as_primitive_opt::<TimestampMicrosecondType>()?.clone();
    Some(column.iter().map(|t| t.and_then(DateTime::from_timestamp_micros)).collect())
}

fn float(batch: &RecordBatch, name: &str, row: usize) -> Option<f64> {
    let column = batch.column_by_name(name)?.as_primitive_opt::<Float64Type>()?;
    (!column.is_null(row)).then(|| column.value(row))
}

impl SloReport {
    /// How much of the window there is data of, and what was counted in it.
    fn coverage(&self) -> Option<String> {
        let (window, covered) = (self.window_seconds?, self.covered_seconds?);
        let data = match covered {
            c if c >= window => "data of all of it".to_owned(),
            c if c <= 0.0 => "no data yet".to_owned(),
            c => format!("{} of data", span(c)),
        };
        let counts = match (self.good_budget, self.total_budget) {
            (Some(good), Some(total)) => format!(": {good} good of {total}"),
            _ => String::new(),
        };
        let early = if covered < window / 10.0 { "; a small part of the window weighs as the whole" } else { "" };
        Some(format!("{} window, {data}{counts}{early}", span(window)))
    }
}

/// A time in the unit it is easiest to read in.
fn span(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round();
    let one = |n: f64, unit: &str| match n {
        n if (n - n.round()).abs() < 0.05 => format!("{n:.0} {unit}"),
        n => format!("{n:.1} {unit}"),
    };
    match minutes {
        m if m >= 2880.0 => one(m / 1440.0, "d"),
        m if m >= 120.0 => one(m / 60.0, "h"),
        m => one(m, "min"),
    }
}

impl Report {
    /// As text for a terminal.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let percent = |share: Option<f64>| share.map_or("unknown".to_owned(), |s| format!("{:.2} %", s * 100.0));
        let _ = writeln!(out, "{}", self.service);
        for slo in &self.slos {
            let _ = writeln!(
                out,
                "\n{} ({}/{}/{})  target {}  {}",
                slo.slo,
                slo.tenant,
                slo.env,
                slo.region,
                percent(Some(slo.objective)),
                slo.data_state
            );
            let left = match slo.seconds_to_exhaustion {
                Some(0.0) => ", spent".to_owned(),
                Some(s) if s >= 86_400.0 => format!(", spent in {:.1} days", s / 86_400.0),
                Some(s) => format!(", spent in {:.1} hours", s / 3600.0),
                None => String::new(),
            };
            let _ = writeln!(out, "  budget left  {}{left}", percent(slo.error_budget_remaining));
            if let Some(note) = slo.coverage() {
                let _ = writeln!(out, "  counted over {note}");
            }
            let rates = WINDOWS.iter().map(|(window, _)| match slo.burn_rates.get(window) {
                Some(Some(rate)) => format!("{window} {rate:.2}x"),
                _ => format!("{window} -"),
            });
            let _ = writeln!(out, "  burn rate    {}", rates.collect::<Vec<_>>().join("  "));
            if slo.history.len() > 1 {
                let _ = writeln!(out, "  budget       {}", sparkline(&slo.history, CHART));
            }
        }
        if !self.alerts.is_empty() {
            let _ = writeln!(out, "\nlast alerts");
        }
        for alert in &self.alerts {
            let burn = alert.long_burn.map(|b| format!("  {b:.1}x")).unwrap_or_default();
            let _ = writeln!(
                out,
                "  {}  {:8}  {:6}  {}  {}{burn}",
                alert.at.format("%Y-%m-%d %H:%M:%S"),
                alert.state,
                alert.severity,
                alert.slo,
                alert.condition
            );
        }
        out
    }
}

/// The last value of each of `width` equal spans of time; a span without one repeats the one before.
/// The scale runs from nothing (or the least value, if below) to all of the budget.
fn sparkline(history: &[(DateTime<Utc>, f64)], width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let (Some(first), Some(last)) = (history.first(), history.last()) else { return String::new() };
    let low = history.iter().map(|h| h.1).fold(0.0, f64::min);
    let span = (last.0 - first.0).num_milliseconds().max(1) as f64;
    let mut cells = vec![None; width];
    for (at, value) in history {
        let cell = ((*at - first.0).num_milliseconds() as f64 / span * (width - 1) as f64).round() as usize;
        cells[cell.min(width - 1)] = Some(*value);
    }
    let mut value = first.1;
    let bars = cells.into_iter().map(|cell| {
        value = cell.unwrap_or(value);
        BARS[(((value - low) / (1.0 - low) * 7.0).round().clamp(0.0, 7.0)) as usize]
    });
    bars.collect()
}
