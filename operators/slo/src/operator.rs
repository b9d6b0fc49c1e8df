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
    Columns, Input, KeyedState, OperatorStats, Output, ShardOperator, SnapshotKind, StateBatch, StreamError, TailRows,
};

use crate::{
    alert::{Change, Seen, step},
    compile::{CompiledSlo, LONGEST_ALERT},
    deploys::{self, Deploy},
    evaluate::{DataState, Evaluation, evaluate},
    measure::{Sample, text_column},
    outbox::{NO_DATA, Outbox, alert_id},
    panes::Counts,
    policy::{Rule, SEPARATOR, Severity},
    series::{Head, Series},
    tables::{AlertRow, BurnRow, Scope},
};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
/// Minutes a clock may be ahead before its events are passed over.
const AHEAD: i64 = 10;

/// SLO burn rates over one shard of tenants.
#[derive(Debug)]
pub struct SloOperator {
    definitions: HashMap<String, CompiledSlo>,
    series: Series,
    deploys: KeyedState<Vec<Deploy>>,
    /// Keys with events since they were last put out.
    dirty: BTreeSet<String>,
    minute: Option<i64>,
    /// When time first passed here: before it, silence may be of what is not read yet.
    watching_since: Option<i64>,
    outbox: Outbox,
    latest: Option<DateTime<Utc>>,
    late: u64,
    senseless: u64,
}

/// Why alerts end that nothing in the data ended.
const REDEFINED: &str = "the definition was removed or changed";
const FORGOTTEN: &str = "there were no events for the whole of the window";

impl SloOperator {
    /// An operator without state. Definitions have names of their own; of two with the same, the
    /// later counts.
    pub fn new(definitions: Arc<Vec<CompiledSlo>>) -> Self {
        Self {
            definitions: by_name(&definitions),
            series: Series::new(),
            deploys: KeyedState::new("slo_deploys"),
            dirty: BTreeSet::new(),
            minute: None,
            watching_since: None,
            outbox: Outbox::default(),
            latest: None,
            late: 0,
            senseless: 0,
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
            let other = self.series.head(&key).filter(|head| head.fingerprint != slo.fingerprint).cloned();
            if let (Some(head), Some(scope)) = (other, scope(&key)) {
                self.outbox.retire(&scope, &head, Some(slo), REDEFINED, committed);
                self.series.remove(&key);
            }
            let mut late = 0;
            let seen_at = self.series.head(&key).map_or(committed, |head| head.seen_at.max(committed));
            self.series.update(&key, seen_at + keep * MINUTE, |head, panes| {
                head.fingerprint = slo.fingerprint;
                head.seen_at = seen_at;
                // What was before is forgotten as time goes by, so nothing can be told of it.
                head.since = head.since.map(|since| since.max(now - keep));
                panes.fold(slo.budgeting, now, now - keep);
                for (at, good, total) in events {
                    let minute = at.div_euclid(MINUTE);
                    match panes.add(slo.budgeting, minute, good, total) {
                        true => head.since = Some(head.since.map_or(minute, |since| since.min(minute))),
                        false => late += 1,
                    }
                }
            });
            self.late += late;
            self.dirty.insert(key);
        }
        Ok(())
    }

    fn evaluate_key(&mut self, key: &str, now: i64) {
        let Some(scope) = scope(key) else { return };
        let Some(mut head) = self.series.head(key).cloned() else { return };
        let defined = self.definitions.get(&scope.slo).cloned();
        let Some(slo) = defined.clone().filter(|slo| slo.fingerprint == head.fingerprint) else {
            self.outbox.retire(&scope, &head, defined.as_ref(), REDEFINED, now);
            self.series.remove(key);
            self.dirty.remove(key);
            return;
        };
        let silent = self.is_silent(&slo, &head, now);
        let Some(panes) = self.series.panes(key) else { return };
        let evaluation = evaluate(&slo, &head, panes, silent, now);
        let mut changed = self.no_data(&slo, &scope, &mut head, &evaluation, now);
        if head.no_data.is_none() {
            for (rule, windows) in slo.rules.iter().zip(&evaluation.rules) {
                changed |= self.rule(&slo, rule, *windows, &scope, &mut head, &evaluation, now);
            }
        }
        let known = |id: &String| slo.rules.iter().any(|rule| rule.id() == *id);
        let (alerts, stale) = std::mem::take(&mut head.alerts).into_iter().partition(|(id, _)| known(id));
        head.alerts = alerts;
        if !BTreeMap::is_empty(&stale) {
            changed = true;
            let stale = Head { alerts: stale, ..Head::default() };
            self.outbox.retire(&scope, &stale, Some(&slo), REDEFINED, now);
        }
        let signature = (
            evaluation.counts.iter().copied().chain([evaluation.budget]).collect::<Vec<_>>(),
            evaluation.data_state as u8,
            slo.objective,
        );
        if head.emitted.as_ref() == Some(&signature) {
            self.dirty.remove(key);
        } else if head.emitted.is_none() || now - head.emitted_at >= SECOND {
            head.emitted = Some(signature);
            head.emitted_at = now;
            changed = true;
            self.dirty.remove(key);
            self.outbox.burn(BurnRow {
                scope,
                at: now,
                objective: slo.objective,
                counts: evaluation.counts,
                budget: evaluation.budget,
                remaining: evaluation.remaining,
                exhaustion: evaluation.exhaustion,
                data_state: evaluation.data_state.name(),
                window: evaluation.window,
                covered: evaluation.covered,
            });
        } else {
            self.dirty.insert(key.to_owned());
        }
        if changed {
            let keep = slo.window.longest().max(LONGEST_ALERT);
            self.series.set_head(key, head.seen_at + keep * MINUTE, head);
        }
    }

    /// Whether a key has had no events for as long as its objective allows. After a start this is
    /// counted from the start, as what came meanwhile is still to be read; what was missing before
    /// is missing until something comes.
    fn is_silent(&self, slo: &CompiledSlo, head: &Head, now: i64) -> bool {
        let heard = match head.no_data {
            Some(_) => head.seen_at,
            None => head.seen_at.max(self.watching_since.unwrap_or(now)),
        };
        now - heard >= slo.no_data_after * SECOND
    }

    #[allow(clippy::too_many_arguments)] // All of it is known to the caller only.
    fn rule(
        &mut self,
        slo: &CompiledSlo,
        rule: &Rule,
        (long, short): (Counts, Counts),
        scope: &Scope,
        head: &mut Head,
        evaluation: &Evaluation,
        now: i64,
    ) -> bool {
        let (long_burn, short_burn) = (long.burn_rate(slo.objective), short.burn_rate(slo.objective));
        let holds = |burn: Option<f64>| burn.map(|b| rule.op.holds(b, rule.threshold));
        let id = rule.id();
        let before = head.alerts.get(&id).cloned();
        let mut alert = before.clone();
        let seen = Seen {
            now: now.div_euclid(SECOND),
            breach: holds(long_burn) == Some(true) && holds(short_burn) == Some(true) && long.events >= slo.min_events,
            over: holds(short_burn).map(|holds| !holds),
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
                "op": rule.op.name(),
                "reason": match change {
                    Change::Cleared => "over before it fired",
                    Change::Resolved => "the short window is past the threshold no more",
                    _ => "both windows are past the threshold",
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
            self.outbox.alert(row, notify, &slo.targets);
        }
        let changed = alert != before;
        match alert {
            Some(alert) => head.alerts.insert(id, alert),
            None => head.alerts.remove(&id),
        };
        changed
    }

    /// Notes that data is missing, or there again.
    fn no_data(
        &mut self,
        slo: &CompiledSlo,
        scope: &Scope,
        head: &mut Head,
        evaluation: &Evaluation,
        now: i64,
    ) -> bool {
        let missing = evaluation.data_state == DataState::NoData;
        let (started, label) = match (head.no_data, missing) {
            (None, true) => (now, "no_data"),
            (Some(started), false) => (started, "resolved"),
            _ => return false,
        };
        head.no_data = missing.then_some(started);
        let evidence = serde_json::json!({
            "last_seen": DateTime::from_timestamp_micros(head.seen_at).map(|t| t.to_rfc3339()),
            "no_data_after_seconds": slo.no_data_after,
        });
        let row = AlertRow {
            scope: scope.clone(),
            at: now,
            objective: slo.objective,
            alert_id: alert_id(scope, NO_DATA, started.div_euclid(SECOND)),
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
        self.outbox.alert(row, slo.notify_no_data, &slo.targets);
        true
    }

    fn recent(&self, scope: &Scope, now: i64) -> String {
        deploys::recent(&self.deploys, &deploys::scope(&scope.tenant, &scope.env, &scope.region), now).to_string()
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
            of.extend(slo.measure.columns());
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
        self.watching_since.get_or_insert(now);
        let minute = now.div_euclid(MINUTE);
        let all = self.minute != Some(minute);
        self.minute = Some(minute);
        let due = |key: &str, head: &Head| {
            all || self.dirty.contains(key)
                || !head.alerts.is_empty()
                || self
                    .definitions
                    .get(key.rsplit(SEPARATOR).next().unwrap_or_default())
                    .is_none_or(|slo| self.is_silent(slo, head, now) != head.no_data.is_some())
        };
        let mut keys: Vec<String> =
            self.series.heads().filter(|(key, head)| due(key, head)).map(|(key, _)| key.to_owned()).collect();
        keys.sort();
        for key in keys {
            self.evaluate_key(&key, now);
        }
        self.deploys.expire(now);
        for (key, head) in self.series.expire(now) {
            if let Some(scope) = scope(&key) {
                self.outbox.retire(&scope, &head, self.definitions.get(&scope.slo), FORGOTTEN, now);
            }
            self.dirty.remove(&key);
        }
        Ok(())
    }

    fn take_output(&mut self) -> Output {
        self.outbox.take()
    }

    fn snapshot(&mut self, kind: SnapshotKind) -> Result<Vec<StateBatch>, StreamError> {
        // A row that could not be put out must not be forgotten behind a checkpoint.
        if let Some(failure) = self.outbox.failure() {
            return Err(StreamError::Operator(failure));
        }
        let [heads, pages] = self.series.snapshot(kind)?;
        Ok(vec![heads, pages, self.deploys.snapshot(kind)?])
    }

    fn restore(&mut self, state: &[StateBatch]) -> Result<(), StreamError> {
        self.series.restore(state)?;
        self.deploys.restore(state)?;
        self.dirty.clear();
        self.minute = None;
        self.watching_since = None;
        Ok(())
    }

    fn stats(&self) -> OperatorStats {
        OperatorStats {
            watermark: self.latest,
            state_keys: (self.series.len() + self.deploys.len()) as u64,
            state_bytes: self.series.bytes() + self.deploys.bytes(),
            late_rows: self.late,
        }
    }
}

fn by_name(definitions: &[CompiledSlo]) -> HashMap<String, CompiledSlo> {
    definitions.iter().map(|d| (d.slo.clone(), d.clone())).collect()
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

fn length(minutes: i64) -> String {
    match minutes {
        m if m % 1440 == 0 && m > 1440 => format!("{}d", m / 1440),
        m if m % 60 == 0 => format!("{}h", m / 60),
        m => format!("{m}m"),
    }
}
