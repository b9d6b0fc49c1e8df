//! Follows the streams and keeps burn rates, budgets and alerts of every objective current.
//!
//! Events land in the pane of their own minute, however late. Windows end with the minute of the
//! time given to `on_time`, so that burn rates fall as trouble passes even without events.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use arrow::{
    array::{Array, AsArray},
    datatypes::TimestampMicrosecondType,
};
use chrono::{DateTime, Utc};
use companyos_schemas::Stream;
use companyos_stream::{
    Columns, Input, KeyedState, Notice, OperatorStats, Output, ShardOperator, SnapshotKind, StateBatch, StreamError,
    TailRows,
};
use serde::{Deserialize, Serialize};

use crate::{
    alert::{Alert, Change, Seen, step},
    compile::{CompiledSlo, LONGEST_ALERT, Sample, text_column},
    deploys::{self, Deploy},
    panes::{Counts, Panes},
    policy::{Rule, Severity},
    tables::{AlertRow, BurnRow, Scope, WINDOWS, alert_batch, burn_batch, slo_alerts_table, slo_burn_table},
};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
/// Minutes a clock may be ahead before its events are passed over.
const AHEAD: i64 = 10;
const SEPARATOR: char = '\u{1f}';

/// SLO burn rates over one shard of tenants.
#[derive(Debug)]
pub struct SloOperator {
    definitions: HashMap<String, CompiledSlo>,
    state: KeyedState<KeyState>,
    deploys: KeyedState<Vec<Deploy>>,
    /// Keys with events since they were last put out.
    dirty: BTreeSet<String>,
    minute: Option<i64>,
    burns: Vec<BurnRow>,
    alerts: Vec<AlertRow>,
    notices: Vec<Notice>,
    latest: Option<DateTime<Utc>>,
    late: u64,
    senseless: u64,
    failure: Option<String>,
}

/// What is kept of one (tenant, env, region, service, slo).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct KeyState {
    fingerprint: u64,
    panes: Panes,
    /// Newest event, or the commit that brought it, whichever is later; microseconds.
    seen_at: i64,
    emitted_at: i64,
    emitted: Option<(Vec<Counts>, u8)>,
    /// Alerts that are on, by policy and condition.
    alerts: BTreeMap<String, Alert>,
    /// When data was found missing, microseconds.
    no_data: Option<i64>,
}

/// What is true of a key at a moment.
struct Evaluation {
    counts: Vec<Counts>,
    budget: Counts,
    remaining: Option<f64>,
    exhaustion: Option<f64>,
    data_state: DataState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DataState {
    Ok,
    LowTraffic,
    NoData,
}

impl SloOperator {
    /// An operator without state. Definitions have names of their own; of two with the same, the
    /// later counts.
    pub fn new(definitions: Arc<Vec<CompiledSlo>>) -> Self {
        Self {
            definitions: by_name(&definitions),
            state: KeyedState::new("slo_panes"),
            deploys: KeyedState::new("slo_deploys"),
            dirty: BTreeSet::new(),
            minute: None,
            burns: Vec::new(),
            alerts: Vec::new(),
            notices: Vec::new(),
            latest: None,
            late: 0,
            senseless: 0,
            failure: None,
        }
    }

    /// Takes other definitions. Panes stay where what is measured stays: a changed target, window or
    /// policy applies to them at once. The rest go, and alerts on them are resolved. `inputs` may
    /// change.
    pub fn set_definitions(&mut self, definitions: Arc<Vec<CompiledSlo>>) {
        self.definitions = by_name(&definitions);
        self.minute = None;
    }

    /// Rows of an indicator that made no sense: no number, or more good than all.
    pub fn senseless_rows(&self) -> u64 {
        self.senseless
    }

    fn take_rows(&mut self, slo: &CompiledSlo, rows: &TailRows<'_>) -> Result<(), StreamError> {
        let batch = rows.batch;
        let failed = |e: datafusion::common::DataFusionError| StreamError::Operator(format!("slo {}: {e}", slo.slo));
        let samples = slo.measure.evaluate(batch).map_err(failed)?;
        let missing = |name: &str| StreamError::Operator(format!("{} rows have no column {name}", rows.stream));
        let text = |name: &'static str| text_column(batch, name).ok_or_else(|| missing(name));
        let (tenants, envs, regions) = (text("tenant")?, text("env")?, text("region")?);
        let services = match rows.stream.field_index("service") {
            Some(_) => Some(text("service")?),
            None => None,
        };
        let times = batch
            .column_by_name("occurred_at")
            .and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>())
            .ok_or_else(|| missing("occurred_at"))?;
        let committed = rows.committed_at.timestamp_micros();
        let now = committed.div_euclid(MINUTE);
        let keep = slo.window.longest().max(LONGEST_ALERT);
        // Rows of one key go in together: the state is looked up once for each key of a batch.
        let mut groups: BTreeMap<[&str; 3], Vec<(i64, f64, f64)>> = BTreeMap::new();
        for (row, sample) in samples.iter().enumerate() {
            if services.as_ref().is_some_and(|s| s.value(row) != slo.service) {
                continue;
            }
            match *sample {
                Sample::Other => {}
                Sample::Senseless => self.senseless += 1,
                Sample::Events { .. } if times.is_null(row) => self.senseless += 1,
                Sample::Events { good, total } => {
                    let minute = times.value(row).div_euclid(MINUTE);
                    if minute > now + AHEAD || minute <= now - keep {
                        self.late += 1;
                        continue;
                    }
                    let scope = [tenants.value(row), envs.value(row), regions.value(row)];
                    groups.entry(scope).or_default().push((times.value(row), good, total));
                }
            }
        }
        for ([tenant, env, region], events) in groups {
            let key = [tenant, env, region, &slo.service, &slo.slo].join(&SEPARATOR.to_string());
            let newest = events.iter().map(|e| e.0).max().unwrap_or(committed);
            self.latest = self.latest.max(DateTime::from_timestamp_micros(newest));
            let mut late = 0;
            let before = self.state.get(&key).map_or(i64::MIN, |s| s.seen_at);
            let seen_at = before.max(committed).max(newest.min(committed));
            self.state.update(&key, seen_at + keep * MINUTE, |state| {
                if state.fingerprint != slo.fingerprint {
                    *state = KeyState { fingerprint: slo.fingerprint, ..KeyState::default() };
                }
                state.seen_at = seen_at;
                state.panes.fold(slo.budgeting, now, now - keep);
                for (at, good, total) in events {
                    late += u64::from(!state.panes.add(slo.budgeting, at.div_euclid(MINUTE), good, total));
                }
            });
            self.late += late;
            self.dirty.insert(key);
        }
        Ok(())
    }

    fn evaluate_key(&mut self, key: &str, now: i64) {
        let Some(scope) = scope(key) else { return };
        let Some(mut state) = self.state.get(key).cloned() else { return };
        let slo = self.definitions.get(&scope.slo).filter(|d| d.fingerprint == state.fingerprint).cloned();
        let Some(slo) = slo else {
            self.retire(&scope, &state, now);
            self.state.remove(key);
            self.dirty.remove(key);
            return;
        };
        let evaluation = evaluate(&slo, &state, now);
        let mut changed = self.no_data(&slo, &scope, &mut state, &evaluation, now);
        if state.no_data.is_none() {
            for rule in &slo.rules {
                changed |= self.rule(&slo, rule, &scope, &mut state, &evaluation, now);
            }
        }
        let stale: Vec<String> =
            state.alerts.keys().filter(|id| !slo.rules.iter().any(|r| rule_id(r) == **id)).cloned().collect();
        for id in stale {
            changed = true;
            if let Some(alert) = state.alerts.remove(&id) {
                self.retired(&scope, slo.objective, &id, &alert, now);
            }
        }
        let signature = (
            evaluation.counts.iter().copied().chain([evaluation.budget]).collect::<Vec<_>>(),
            evaluation.data_state as u8,
        );
        if state.emitted.as_ref() == Some(&signature) {
            self.dirty.remove(key);
        } else if state.emitted.is_none() || now - state.emitted_at >= SECOND {
            state.emitted = Some(signature);
            state.emitted_at = now;
            changed = true;
            self.dirty.remove(key);
            self.burns.push(BurnRow {
                scope,
                at: now,
                objective: slo.objective,
                counts: evaluation.counts,
                budget: evaluation.budget,
                remaining: evaluation.remaining,
                exhaustion: evaluation.exhaustion,
                data_state: evaluation.data_state.name(),
            });
        } else {
            self.dirty.insert(key.to_owned());
        }
        if changed {
            let keep = slo.window.longest().max(LONGEST_ALERT);
            self.state.insert(key, state.seen_at + keep * MINUTE, state);
        }
    }

    fn rule(
        &mut self,
        slo: &CompiledSlo,
        rule: &Rule,
        scope: &Scope,
        state: &mut KeyState,
        evaluation: &Evaluation,
        now: i64,
    ) -> bool {
        let counts = |minutes| match WINDOWS.iter().position(|(_, m)| *m == minutes) {
            Some(i) => evaluation.counts[i],
            None => sum(slo, state, minutes, now),
        };
        let (long, short) = (counts(rule.long), counts(rule.short));
        let (long_burn, short_burn) = (long.burn_rate(slo.objective), short.burn_rate(slo.objective));
        let above = |burn: Option<f64>| {
            burn.is_some_and(|b| if rule.strict { b > rule.threshold } else { b >= rule.threshold })
        };
        let id = rule_id(rule);
        let before = state.alerts.get(&id).cloned();
        let mut alert = before.clone();
        let seen = Seen {
            now: now.div_euclid(SECOND),
            breach: above(long_burn) && above(short_burn) && long.events >= slo.min_events,
            below: !above(short_burn),
            pending_for: rule.pending_for,
            resolve_after: rule.resolve_after,
        };
        for change in step(&mut alert, seen) {
            let Some(of) = alert.as_ref().or(before.as_ref()) else { continue };
            let (label, notify) = match change {
                Change::Pending => ("pending", false),
                Change::Firing => ("firing", rule.notify_firing),
                Change::Resolved => ("resolved", rule.notify_resolved),
                Change::Cleared => ("resolved", false),
            };
            let evidence = serde_json::json!({
                "long": {"minutes": rule.long, "good": long.good, "total": long.total, "events": long.events},
                "short": {"minutes": rule.short, "good": short.good, "total": short.total, "events": short.events},
                "min_events": slo.min_events,
                "reason": match change {
                    Change::Cleared => "over before it fired",
                    Change::Resolved => "short window below the threshold",
                    _ => "both windows above the threshold",
                },
            });
            let row = AlertRow {
                scope: scope.clone(),
                at: now,
                objective: slo.objective,
                alert_id: alert_id(scope, &id, of.started),
                policy: rule.policy.clone(),
                condition: rule.condition.clone(),
                severity: rule.severity.name(),
                state: label,
                started: of.started * SECOND,
                threshold: Some(rule.threshold),
                long_window: Some(length(rule.long)),
                short_window: Some(length(rule.short)),
                long_burn,
                short_burn,
                budget_spent: evaluation.remaining.map(|r| 1.0 - r),
                deploys: self.recent(scope, now),
                evidence: evidence.to_string(),
            };
            self.put_alert(row, notify, &slo.targets);
        }
        let changed = alert != before;
        match alert {
            Some(alert) => state.alerts.insert(id, alert),
            None => state.alerts.remove(&id),
        };
        changed
    }

    /// Notes that data is missing, or there again.
    fn no_data(
        &mut self,
        slo: &CompiledSlo,
        scope: &Scope,
        state: &mut KeyState,
        evaluation: &Evaluation,
        now: i64,
    ) -> bool {
        let missing = evaluation.data_state == DataState::NoData;
        let (started, label) = match (state.no_data, missing) {
            (None, true) => (now, "no_data"),
            (Some(started), false) => (started, "resolved"),
            _ => return false,
        };
        state.no_data = missing.then_some(started);
        let id = format!("data{SEPARATOR}no_data");
        let evidence = serde_json::json!({
            "last_seen": DateTime::from_timestamp_micros(state.seen_at).map(|t| t.to_rfc3339()),
            "no_data_after_seconds": slo.no_data_after,
        });
        let row = AlertRow {
            scope: scope.clone(),
            at: now,
            objective: slo.objective,
            alert_id: alert_id(scope, &id, started.div_euclid(SECOND)),
            policy: "data".to_owned(),
            condition: "no_data".to_owned(),
            severity: Severity::Ticket.name(),
            state: label,
            started,
            threshold: None,
            long_window: None,
            short_window: None,
            long_burn: None,
            short_burn: None,
            budget_spent: evaluation.remaining.map(|r| 1.0 - r),
            deploys: self.recent(scope, now),
            evidence: evidence.to_string(),
        };
        self.put_alert(row, slo.notify_no_data, &slo.targets);
        true
    }

    /// Ends the alerts of an objective that is no more.
    fn retire(&mut self, scope: &Scope, state: &KeyState, now: i64) {
        for (id, alert) in &state.alerts {
            self.retired(scope, 0.0, id, alert, now);
        }
        if let Some(started) = state.no_data {
            let alert = format!("data{SEPARATOR}no_data");
            self.retired_row(scope, 0.0, &alert, started.div_euclid(SECOND), true, now);
        }
    }

    fn retired(&mut self, scope: &Scope, objective: f64, id: &str, alert: &Alert, now: i64) {
        self.retired_row(scope, objective, id, alert.started, alert.firing, now);
    }

    fn retired_row(&mut self, scope: &Scope, objective: f64, id: &str, started: i64, notify: bool, now: i64) {
        let (policy, condition) = id.split_once(SEPARATOR).unwrap_or((id, ""));
        let row = AlertRow {
            scope: scope.clone(),
            at: now,
            objective,
            alert_id: alert_id(scope, id, started),
            policy: policy.to_owned(),
            condition: condition.to_owned(),
            severity: Severity::Ticket.name(),
            state: "resolved",
            started: started * SECOND,
            threshold: None,
            long_window: None,
            short_window: None,
            long_burn: None,
            short_burn: None,
            budget_spent: None,
            deploys: "[]".to_owned(),
            evidence: r#"{"reason":"the definition was removed or changed"}"#.to_owned(),
        };
        self.put_alert(row, notify, &[]);
    }

    fn recent(&self, scope: &Scope, now: i64) -> String {
        deploys::recent(&self.deploys, &deploys::scope(&scope.tenant, &scope.env, &scope.region), now).to_string()
    }

    fn put_alert(&mut self, row: AlertRow, notify: bool, targets: &[String]) {
        if notify {
            let time = |at| DateTime::from_timestamp_micros(at).map(|t| t.to_rfc3339());
            let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
            let body = serde_json::json!({
                "alert_id": row.alert_id, "state": row.state, "severity": row.severity, "policy": row.policy,
                "condition": row.condition, "tenant": row.scope.tenant, "env": row.scope.env,
                "region": row.scope.region, "service": row.scope.service, "slo": row.scope.slo,
                "objective": row.objective, "at": time(row.at), "started_at": time(row.started),
                "threshold": row.threshold, "long_window": row.long_window, "short_window": row.short_window,
                "long_burn": row.long_burn, "short_burn": row.short_burn, "budget_spent": row.budget_spent,
                "deploys": json(&row.deploys), "evidence": json(&row.evidence), "targets": targets,
            });
            self.notices.push(Notice {
                id: format!("{}/{}", row.alert_id, row.state),
                kind: "slo_alert",
                tenant: row.scope.tenant.clone(),
                body: body.to_string(),
                traceparent: None,
            });
        }
        self.alerts.push(row);
    }
}

impl ShardOperator for SloOperator {
    fn name(&self) -> &'static str {
        "slo"
    }

    fn inputs(&self) -> Vec<Input> {
        let mut columns: BTreeMap<Stream, BTreeSet<String>> = BTreeMap::new();
        columns.insert(Stream::OpsEvents, deploys::COLUMNS.map(str::to_owned).into());
        for slo in self.definitions.values() {
            let of = columns.entry(slo.stream).or_default();
            of.extend(["tenant", "env", "region", "service", "occurred_at"].map(str::to_owned));
            of.extend(slo.columns());
        }
        let input = |(stream, columns): (_, BTreeSet<String>)| Input {
            stream,
            columns: Columns::Named(columns.into_iter().collect()),
        };
        columns.into_iter().map(input).collect()
    }

    fn on_rows(&mut self, rows: &TailRows<'_>) -> Result<(), StreamError> {
        if rows.stream == Stream::OpsEvents {
            deploys::take(&mut self.deploys, rows.batch, rows.committed_at.timestamp_micros());
        }
        let mut slos: Vec<CompiledSlo> =
            self.definitions.values().filter(|d| d.stream == rows.stream).cloned().collect();
        slos.sort_by(|a, b| a.slo.cmp(&b.slo));
        slos.iter().try_for_each(|slo| self.take_rows(slo, rows))
    }

    fn on_time(&mut self, now: DateTime<Utc>) -> Result<(), StreamError> {
        let now = now.timestamp_micros();
        let minute = now.div_euclid(MINUTE);
        let all = self.minute != Some(minute);
        self.minute = Some(minute);
        let due = |key: &str, state: &KeyState| {
            all || self.dirty.contains(key)
                || !state.alerts.is_empty()
                || self
                    .definitions
                    .get(key.rsplit(SEPARATOR).next().unwrap_or_default())
                    .is_none_or(|slo| (now - state.seen_at >= slo.no_data_after * SECOND) != state.no_data.is_some())
        };
        let mut keys: Vec<String> =
            self.state.iter().filter(|(key, state)| due(key, state)).map(|(key, _)| key.to_owned()).collect();
        keys.sort();
        for key in keys {
            self.evaluate_key(&key, now);
        }
        self.deploys.expire(now);
        for (key, state) in self.state.expire(now) {
            if let Some(scope) = scope(&key) {
                self.retire(&scope, &state, now);
            }
            self.dirty.remove(&key);
        }
        Ok(())
    }

    fn take_output(&mut self) -> Output {
        let mut output = Output { rows: Vec::new(), notices: std::mem::take(&mut self.notices) };
        let (burn, alerts) = (slo_burn_table(), slo_alerts_table());
        let (burns, changes) = (std::mem::take(&mut self.burns), std::mem::take(&mut self.alerts));
        let mut put = |table: companyos_stream::OutputTable, batch: Result<_, arrow::error::ArrowError>| match batch {
            Ok(batch) => output.rows.push((table, batch)),
            Err(e) => self.failure = Some(e.to_string()),
        };
        if !burns.is_empty() {
            let batch = burn_batch(Arc::clone(&burn.schema), &burns);
            put(burn, batch);
        }
        if !changes.is_empty() {
            let batch = alert_batch(Arc::clone(&alerts.schema), &changes);
            put(alerts, batch);
        }
        output
    }

    fn snapshot(&mut self, kind: SnapshotKind) -> Result<Vec<StateBatch>, StreamError> {
        // A row that could not be put out must not be forgotten behind a checkpoint.
        if let Some(failure) = self.failure.take() {
            return Err(StreamError::Operator(failure));
        }
        Ok(vec![self.state.snapshot(kind)?, self.deploys.snapshot(kind)?])
    }

    fn restore(&mut self, state: &[StateBatch]) -> Result<(), StreamError> {
        self.state.restore(state)?;
        self.deploys.restore(state)?;
        self.dirty.clear();
        self.minute = None;
        Ok(())
    }

    fn stats(&self) -> OperatorStats {
        let panes: usize = self.state.iter().map(|(_, s)| s.panes.len()).sum();
        OperatorStats {
            watermark: self.latest,
            state_keys: (self.state.len() + self.deploys.len()) as u64,
            state_bytes: self.state.bytes() + self.deploys.bytes() + panes as u64 * 32,
            late_rows: self.late,
        }
    }
}

fn by_name(definitions: &[CompiledSlo]) -> HashMap<String, CompiledSlo> {
    definitions.iter().map(|d| (d.slo.clone(), d.clone())).collect()
}

fn sum(slo: &CompiledSlo, state: &KeyState, minutes: i64, now: i64) -> Counts {
    let to = now.div_euclid(MINUTE);
    state.panes.sum(slo.budgeting, to - minutes + 1, to)
}

fn evaluate(slo: &CompiledSlo, state: &KeyState, now: i64) -> Evaluation {
    let counts: Vec<Counts> = WINDOWS.iter().map(|(_, minutes)| sum(slo, state, *minutes, now)).collect();
    let bounds = DateTime::from_timestamp_micros(now).and_then(|now| slo.window.bounds(now));
    let budget = bounds.map_or_else(Counts::default, |(from, _)| {
        let from = from.timestamp().div_euclid(60);
        state.panes.sum(slo.budgeting, from, now.div_euclid(MINUTE))
    });
    let remaining = budget.burn_rate(slo.objective).map(|spent| 1.0 - spent);
    let hour = counts[2].burn_rate(slo.objective);
    let exhaustion = match (remaining, hour, bounds) {
        (Some(left), ..) if left <= 0.0 => Some(0.0),
        (Some(left), Some(rate), Some((_, minutes))) if rate > 0.0 => Some(left * (minutes * 60) as f64 / rate),
        _ => None,
    };
    let data_state = if now - state.seen_at >= slo.no_data_after * SECOND {
        DataState::NoData
    } else if counts[2].events < slo.min_events {
        DataState::LowTraffic
    } else {
        DataState::Ok
    };
    Evaluation { counts, budget, remaining, exhaustion, data_state }
}

impl DataState {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::LowTraffic => "low_traffic",
            Self::NoData => "no_data",
        }
    }
}

fn scope(key: &str) -> Option<Scope> {
    let mut parts = key.split(SEPARATOR).map(str::to_owned);
    Some(Scope {
        tenant: parts.next()?,
        env: parts.next()?,
        region: parts.next()?,
        service: parts.next()?,
        slo: parts.next()?,
    })
}

fn rule_id(rule: &Rule) -> String {
    format!("{}{SEPARATOR}{}", rule.policy, rule.condition)
}

fn alert_id(scope: &Scope, rule: &str, started: i64) -> String {
    let Scope { tenant, env, region, service, slo } = scope;
    let rule = rule.replace(SEPARATOR, "/");
    format!("slo/{tenant}/{env}/{region}/{service}/{slo}/{rule}/{started}")
}

fn length(minutes: i64) -> String {
    match minutes {
        m if m % 1440 == 0 && m > 1440 => format!("{}d", m / 1440),
        m if m % 60 == 0 => format!("{}h", m / 60),
        m => format!("{m}m"),
    }
}
