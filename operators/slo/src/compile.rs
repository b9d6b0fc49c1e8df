//! Makes definitions that can run out of loaded objects, or says which field stands in the way.

use std::collections::HashMap;

use arrow::{
    array::{Array, AsArray, Float64Array, RecordBatch},
    datatypes::DataType,
};
use companyos_schemas::Stream;
use datafusion::common::DataFusionError;
use serde::Deserialize;
use serde_yaml_ng::Value;
use sha2::{Digest, Sha256};

use crate::{
    duration::{Shorthand, Window},
    error::{Fault, FieldFault, Origin, Refused},
    expr::RowExpr,
    load::{LoadReport, slice_minutes},
    openslo::{
        AlertConditionSpec, AlertPolicySpec, ConditionItem, Document, Metric, Object, Objective, PolicyItem, SliSpec,
        SloSpec, TargetItem,
    },
    policy::{Rule, Severity, default_rules},
};

/// The type of data source that reads our own streams.
pub const SOURCE_TYPE: &str = "companyos";

/// Longest window of an error budget, in minutes: what state is kept for.
pub const LONGEST_WINDOW: i64 = 366 * 1440 + 1440;

/// Longest window of an alert, in minutes: what minute panes are kept for.
pub const LONGEST_ALERT: i64 = 3 * 1440;

/// How budget is counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budgeting {
    /// By event.
    Occurrences,
    /// By slice of time: good if at least the target share of its events is.
    Timeslices {
        /// Length of a slice.
        minutes: i64,
        /// Share of good events that makes it good.
        target: f64,
    },
    /// By slice of time, each counting as good as its share of good events.
    RatioTimeslices {
        /// Length of a slice.
        minutes: i64,
    },
}

/// One objective, ready to run.
#[derive(Debug, Clone)]
pub struct CompiledSlo {
    /// Name: the SLO's, with `/1`, `/2`, … for SLOs of several objectives.
    pub slo: String,
    /// Service.
    pub service: String,
    /// Share of good aimed at, in [0, 1).
    pub objective: f64,
    /// Window of the error budget.
    pub window: Window,
    /// How budget is counted.
    pub budgeting: Budgeting,
    /// Stream it is measured on.
    pub stream: Stream,
    /// Alert rules.
    pub rules: Vec<Rule>,
    /// Names of notification targets.
    pub targets: Vec<String>,
    /// Events a long window must hold before a rule can fire.
    pub min_events: f64,
    /// Seconds without events after which there is no data.
    pub no_data_after: i64,
    /// Whether missing data is notified.
    pub notify_no_data: bool,
    /// Where it is defined.
    pub origin: Origin,
    /// The same as long as panes of one definition can be read by another.
    pub fingerprint: u64,
    pub(crate) measure: Measure,
}

/// What [`compile`] made.
#[derive(Debug, Clone, Default)]
pub struct CompileReport {
    /// Definitions that can run.
    pub slos: Vec<CompiledSlo>,
    /// Valid SLOs that cannot run here.
    pub refused: Vec<Refused>,
}

#[derive(Debug, Clone)]
pub(crate) enum Measure {
    Ratio { part: Side, bad: bool, total: Side },
    Raw { failure: bool, side: Side, weight: Option<RowExpr> },
    Threshold { op: Op, limit: f64, side: Side, weight: Option<RowExpr> },
}

/// Rows that count, and by how much: 1 without an expression.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    filter: Option<RowExpr>,
    value: Option<RowExpr>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Op {
    Lt,
    Lte,
    Gt,
    Gte,
}

/// Compiles every SLO of a report. References are resolved within the report.
pub fn compile(report: &LoadReport) -> CompileReport {
    let objects = Objects::new(report);
    let mut out = CompileReport::default();
    for loaded in &report.loaded {
        let Object::Slo(document) = &loaded.object else { continue };
        for index in 0..document.spec.objectives.len() {
            match objects.slo(document, index, &loaded.origin) {
                Ok(slo) => out.slos.push(slo),
                Err(fault) => {
                    out.refused.push(fault.at(&loaded.origin, "SLO", &document.metadata.name));
                    break;
                }
            }
        }
    }
    out
}

struct Objects<'a>(HashMap<(&'static str, &'a str), &'a Object>);

impl<'a> Objects<'a> {
    fn new(report: &'a LoadReport) -> Self {
        let key = |object: &'a Object| (object.kind(), object.metadata().name.as_str());
        Self(report.loaded.iter().map(|l| (key(&l.object), &l.object)).collect())
    }

    fn get(&self, kind: &'static str, name: &str, field: &str) -> Result<&'a Object, FieldFault> {
        let missing = || FieldFault::new(field, Fault::Unresolved, format!("there is no {kind} named {name:?}"));
        self.0.get(&(kind, name)).copied().ok_or_else(missing)
    }

    fn slo(&self, document: &Document<SloSpec>, index: usize, origin: &Origin) -> Result<CompiledSlo, FieldFault> {
        let spec = &document.spec;
        let (sli, at): (&SliSpec, String) = match (&spec.indicator, &spec.indicator_ref) {
            (Some(indicator), _) => (&indicator.spec, "spec.indicator.spec".to_owned()),
            (None, reference) => {
                let name = reference.as_deref().unwrap_or_default();
                match self.get("SLI", name, "spec.indicatorRef")? {
                    Object::Sli(sli) => (&sli.spec, format!("spec.indicatorRef({name}).spec")),
                    _ => return Err(FieldFault::new("spec.indicatorRef", Fault::Unresolved, "is not an SLI")),
                }
            }
        };
        let objective = &spec.objectives[index];
        let (stream, measure) = self.measure(sli, objective, &at, index)?;
        let several = spec.objectives.len() > 1;
        let name = document.metadata.name.clone();
        let window = window(spec)?;
        let budgeting = budgeting(spec, objective, index)?;
        let mut hash = Sha256::new();
        hash.update(format!("{stream}|{budgeting:?}|{}|{}", spec.service, measure.text()));
        let fingerprint = hash.finalize().iter().take(8).fold(0, |n, b| (n << 8) | u64::from(*b));
        let note = |key: &str| document.metadata.annotations.as_ref().and_then(|a| a.get(key));
        let noted = |key: &str| format!("metadata.annotations.{key}");
        let mut slo = CompiledSlo {
            slo: if several { format!("{name}/{}", index + 1) } else { name },
            service: spec.service.clone(),
            objective: objective.target.or(objective.target_percent.map(|p| p / 100.0)).unwrap_or_default(),
            window,
            budgeting,
            stream,
            rules: Vec::new(),
            targets: Vec::new(),
            min_events: match note(MIN_EVENTS) {
                Some(text) => match text.parse() {
                    Ok(n) if f64::is_finite(n) && n >= 0.0 => n,
                    _ => return Err(FieldFault::invalid(noted(MIN_EVENTS), format!("{text:?} is not a number"))),
                },
                None => 20.0,
            },
            no_data_after: match note(NO_DATA_AFTER) {
                Some(text) => {
                    Shorthand::parse(text).map_err(|e| FieldFault::invalid(noted(NO_DATA_AFTER), e))?.minutes() * 60
                }
                None => 900,
            },
            notify_no_data: true,
            origin: origin.clone(),
            fingerprint,
            measure,
        };
        self.policies(spec, &mut slo)?;
        Ok(slo)
    }

    fn policies(&self, spec: &SloSpec, slo: &mut CompiledSlo) -> Result<(), FieldFault> {
        let items = spec.alert_policies.as_deref().unwrap_or_default();
        if items.is_empty() {
            slo.rules = default_rules();
            return Ok(());
        }
        slo.notify_no_data = false;
        for (i, item) in items.iter().enumerate() {
            let at = format!("spec.alertPolicies[{i}]");
            let policy: &Document<AlertPolicySpec> = match item {
                PolicyItem::Inline(policy) => policy,
                PolicyItem::Ref(name) => match self.get("AlertPolicy", name, &at)? {
                    Object::AlertPolicy(policy) => policy,
                    _ => return Err(FieldFault::new(at, Fault::Unresolved, "is not an AlertPolicy")),
                },
            };
            slo.notify_no_data |= policy.spec.alert_when_no_data.unwrap_or(false);
            for (k, condition) in policy.spec.conditions.iter().enumerate() {
                let at = format!("{at}.conditions[{k}]");
                let condition: &Document<AlertConditionSpec> = match condition {
                    ConditionItem::Inline(condition) => condition,
                    ConditionItem::Ref(name) => match self.get("AlertCondition", name, &at)? {
                        Object::AlertCondition(condition) => condition,
                        _ => return Err(FieldFault::new(at, Fault::Unresolved, "is not an AlertCondition")),
                    },
                };
                slo.rules.push(rule(policy, condition, &at)?);
            }
            for (k, target) in policy.spec.notification_targets.iter().enumerate() {
                let name = match target {
                    TargetItem::Inline(target) => &target.metadata.name,
                    TargetItem::Ref(name) => {
                        self.get("AlertNotificationTarget", name, &format!("{at}.notificationTargets[{k}]"))?;
                        name
                    }
                };
                if !slo.targets.contains(name) {
                    slo.targets.push(name.clone());
                }
            }
        }
        Ok(())
    }

    fn measure(
        &self,
        sli: &SliSpec,
        objective: &Objective,
        at: &str,
        index: usize,
    ) -> Result<(Stream, Measure), FieldFault> {
        if let Some(metric) = &sli.threshold_metric {
            let at = format!("{at}.thresholdMetric");
            let source = self.source(metric, &at, &["value", "total"])?;
            let op = match objective.op.as_deref() {
                Some("lt") => Op::Lt,
                Some("lte") => Op::Lte,
                Some("gt") => Op::Gt,
                Some("gte") => Op::Gte,
                _ => {
                    let field = format!("spec.objectives[{index}].op");
                    return Err(FieldFault::invalid(field, "is needed with a thresholdMetric"));
                }
            };
            let limit = objective.value.ok_or_else(|| {
                FieldFault::invalid(format!("spec.objectives[{index}].value"), "is needed with a thresholdMetric")
            })?;
            let side = source.side("value", &["value"], Some("value"), true)?;
            let weight = source.expr("total", false)?;
            return Ok((source.stream, Measure::Threshold { op, limit, side, weight }));
        }
        let Some(ratio) = &sli.ratio_metric else {
            return Err(FieldFault::invalid(format!("{at}.ratioMetric"), "or thresholdMetric is needed"));
        };
        let at = format!("{at}.ratioMetric");
        if let Some(raw) = &ratio.raw {
            let source = self.source(raw, &format!("{at}.raw"), &["value", "total"])?;
            let side = source.side("value", &["value"], Some("value"), true)?;
            let weight = source.expr("total", false)?;
            let failure = ratio.raw_type.as_deref() == Some("failure");
            return Ok((source.stream, Measure::Raw { failure, side, weight }));
        }
        if ratio.counter == Some(true) {
            let reason = "true is not supported: the streams carry counts of each event, not running totals";
            return Err(FieldFault::unsupported(format!("{at}.counter"), reason));
        }
        let bad = ratio.bad.is_some();
        let name = if bad { "bad" } else { "good" };
        let (Some(part), Some(total)) = (ratio.good.as_ref().or(ratio.bad.as_ref()), &ratio.total) else {
            return Err(FieldFault::invalid(format!("{at}.total"), "is needed with good or bad"));
        };
        let part = self.source(part, &format!("{at}.{name}"), &[name, "value"])?;
        let total = self.source(total, &format!("{at}.total"), &["total", "value"])?;
        if part.stream != total.stream {
            let field = format!("{}.stream", total.at);
            let reason = format!("{} differs from that of {name}, {}", total.stream, part.stream);
            return Err(FieldFault::unsupported(field, reason));
        }
        let default = if bad { "total - good" } else { "good" };
        let measure = Measure::Ratio {
            part: part.side(name, &[name, "value"], Some(default), false)?,
            bad,
            total: total.side("total", &["total", "value"], Some("total"), false)?,
        };
        Ok((part.stream, measure))
    }

    fn source(&self, metric: &Metric, at: &str, allowed: &[&str]) -> Result<Source, FieldFault> {
        let source = &metric.metric_source;
        let at = format!("{at}.metricSource");
        let (ty, field) = match (&source.metric_source_ref, &source.source_type) {
            (_, Some(ty)) => (ty.as_str(), format!("{at}.type")),
            (Some(name), None) => {
                let field = format!("{at}.metricSourceRef");
                match self.get("DataSource", name, &field)? {
                    Object::DataSource(source) => (source.spec.source_type.as_str(), field),
                    _ => return Err(FieldFault::new(field, Fault::Unresolved, "is not a DataSource")),
                }
            }
            (None, None) => return Err(FieldFault::invalid(format!("{at}.type"), "or metricSourceRef is needed")),
        };
        if !ty.eq_ignore_ascii_case(SOURCE_TYPE) {
            let reason = format!("data source {ty:?} is not supported; {SOURCE_TYPE} is");
            return Err(FieldFault::unsupported(field, reason));
        }
        let at = format!("{at}.spec");
        let value = source.spec.as_ref().unwrap_or(&Value::Null);
        let spec: SourceSpec = serde_path_to_error::deserialize(value).map_err(|e| {
            let path = match e.path().to_string().as_str() {
                "." => at.clone(),
                path => format!("{at}.{path}"),
            };
            FieldFault::unsupported(path, e.inner().to_string())
        })?;
        let stream: Stream =
            spec.stream.parse().map_err(|e| FieldFault::invalid(format!("{at}.stream"), format!("{e}")))?;
        let source = Source { stream, spec, at };
        for field in ["good", "bad", "total", "value"] {
            if source.text(field).is_some() && !allowed.contains(&field) {
                let reason = format!("has no place here; {} have", allowed.join(" and "));
                return Err(FieldFault::unsupported(format!("{}.{field}", source.at), reason));
            }
        }
        Ok(source)
    }
}

/// Annotation: events a long window must hold before an alert fires.
const MIN_EVENTS: &str = "companyos.io/min-events";
/// Annotation: time without events after which there is no data.
const NO_DATA_AFTER: &str = "companyos.io/no-data-after";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceSpec {
    stream: String,
    filter: Option<String>,
    good: Option<String>,
    bad: Option<String>,
    total: Option<String>,
    value: Option<String>,
}

struct Source {
    stream: Stream,
    spec: SourceSpec,
    at: String,
}

impl Source {
    fn text(&self, field: &str) -> Option<&str> {
        match field {
            "filter" => self.spec.filter.as_deref(),
            "good" => self.spec.good.as_deref(),
            "bad" => self.spec.bad.as_deref(),
            "total" => self.spec.total.as_deref(),
            _ => self.spec.value.as_deref(),
        }
    }

    fn expr(&self, field: &str, boolean: bool) -> Result<Option<RowExpr>, FieldFault> {
        let Some(sql) = self.text(field) else { return Ok(None) };
        RowExpr::plan(self.stream, sql, boolean)
            .map(Some)
            .map_err(|e| FieldFault::invalid(format!("{}.{field}", self.at), format!("{sql:?}: {e}")))
    }

    /// Rows and how much they count: by the first of the fields that is set, else, on SLI metrics,
    /// by `default`, else by 1 for each row the filter takes.
    fn side(&self, role: &str, fields: &[&str], default: Option<&str>, needs: bool) -> Result<Side, FieldFault> {
        let filter = self.expr("filter", true)?;
        let value = match fields.iter().find(|f| self.text(f).is_some()) {
            Some(field) => self.expr(field, false)?,
            None => match default {
                Some(sql) if self.stream == Stream::SliMetrics => {
                    let planned = RowExpr::plan(self.stream, sql, false);
                    Some(planned.map_err(|e| FieldFault::invalid(self.at.clone(), e))?)
                }
                _ => None,
            },
        };
        if value.is_none() && (needs || (role != "total" && filter.is_none())) {
            let or = if needs { "is needed" } else { "or filter is needed" };
            return Err(FieldFault::invalid(format!("{}.{role}", self.at), or));
        }
        Ok(Side { filter, value })
    }
}

fn window(spec: &SloSpec) -> Result<Window, FieldFault> {
    let Some(window) = spec.time_window.as_ref().and_then(|w| w.first()) else {
        return Ok(Window::Rolling { minutes: 30 * 1440 });
    };
    let at = "spec.timeWindow[0]";
    let length = Shorthand::parse(&window.duration).map_err(|e| FieldFault::invalid(format!("{at}.duration"), e))?;
    let window = match &window.calendar {
        None => Window::Rolling { minutes: length.minutes() },
        Some(calendar) => {
            let formats = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M"];
            let start =
                formats.iter().find_map(|f| chrono::NaiveDateTime::parse_from_str(&calendar.start_time, f).ok());
            let start = start.ok_or_else(|| {
                let reason = format!("{:?} is not a time such as 2022-01-01 12:00:00", calendar.start_time);
                FieldFault::invalid(format!("{at}.calendar.startTime"), reason)
            })?;
            let zone = calendar.time_zone.parse().map_err(|_| {
                let reason = format!("{:?} is not a time zone of the IANA database", calendar.time_zone);
                FieldFault::invalid(format!("{at}.calendar.timeZone"), reason)
            })?;
            Window::Calendar { start, zone, length }
        }
    };
    if window.longest() > LONGEST_WINDOW {
        return Err(FieldFault::unsupported(format!("{at}.duration"), "windows longer than a year are not supported"));
    }
    Ok(window)
}

fn budgeting(spec: &SloSpec, objective: &Objective, index: usize) -> Result<Budgeting, FieldFault> {
    if spec.budgeting_method == "Occurrences" {
        return Ok(Budgeting::Occurrences);
    }
    let field = || format!("spec.objectives[{index}].timeSliceWindow");
    let window = objective.time_slice_window.as_ref().unwrap_or(&Value::Null);
    let minutes = slice_minutes(window).map_err(|e| FieldFault::invalid(field(), e))?;
    if minutes > 1440 || !(15 % minutes == 0 || (minutes % 15 == 0 && 1440 % minutes == 0)) {
        let reason = "slices must divide 15 minutes, or be a multiple of them that divides a day";
        return Err(FieldFault::unsupported(field(), reason));
    }
    Ok(match objective.time_slice_target {
        Some(target) if spec.budgeting_method == "Timeslices" => Budgeting::Timeslices { minutes, target },
        _ => Budgeting::RatioTimeslices { minutes },
    })
}

fn rule(
    policy: &Document<AlertPolicySpec>,
    condition: &Document<AlertConditionSpec>,
    at: &str,
) -> Result<Rule, FieldFault> {
    let spec = &condition.spec.condition;
    let field = |name: &str| format!("{at}.spec.condition.{name}");
    let long =
        Shorthand::parse(&spec.lookback_window).map_err(|e| FieldFault::invalid(field("lookbackWindow"), e))?.minutes();
    if long > LONGEST_ALERT {
        return Err(FieldFault::unsupported(field("lookbackWindow"), "windows above 3d are not supported for alerts"));
    }
    let after = match spec.alert_after.as_deref() {
        None | Some("0m") => 0,
        Some(text) => Shorthand::parse(text).map_err(|e| FieldFault::invalid(field("alertAfter"), e))?.minutes(),
    };
    // OpenSLO leaves the names of severities open; these are the ones that wake people.
    let severity = match condition.spec.severity.to_ascii_lowercase().as_str() {
        "page" | "critical" | "high" | "sev0" | "sev1" | "p1" => Severity::Page,
        _ => Severity::Ticket,
    };
    Ok(Rule {
        policy: policy.metadata.name.clone(),
        condition: condition.metadata.name.clone(),
        severity,
        threshold: spec.threshold,
        strict: spec.op.as_deref() == Some("gt"),
        long,
        short: (long / 12).max(1),
        pending_for: after * 60,
        resolve_after: 300,
        notify_firing: policy.spec.alert_when_breaching.unwrap_or(true),
        notify_resolved: policy.spec.alert_when_resolved.unwrap_or(false),
    })
}

impl CompiledSlo {
    /// Columns of the stream it reads, beside those that scope and time its rows.
    pub(crate) fn columns(&self) -> Vec<String> {
        let exprs: Vec<&RowExpr> = match &self.measure {
            Measure::Ratio { part, total, .. } => part.exprs().chain(total.exprs()).collect(),
            Measure::Raw { side, weight, .. } | Measure::Threshold { side, weight, .. } => {
                side.exprs().chain(weight.as_ref()).collect()
            }
        };
        exprs.into_iter().flat_map(RowExpr::columns).collect()
    }
}

impl Side {
    fn exprs(&self) -> impl Iterator<Item = &RowExpr> {
        self.filter.iter().chain(self.value.iter())
    }

    fn text(&self) -> String {
        let sql = |e: &Option<RowExpr>| e.as_ref().map(|e| e.sql().to_owned()).unwrap_or_default();
        format!("[{}]{}", sql(&self.filter), sql(&self.value))
    }

    /// Nothing where a value has none; 0 where the filter does not take the row.
    fn evaluate(&self, batch: &RecordBatch) -> Result<Vec<Taken>, DataFusionError> {
        let filter = self.filter.as_ref().map(|f| f.evaluate(batch)).transpose()?;
        let value = self.value.as_ref().map(|v| v.evaluate(batch)).transpose()?;
        let set = |a: &Option<Float64Array>, row| match a {
            Some(a) => (!a.is_null(row)).then(|| a.value(row)),
            None => Some(1.0),
        };
        Ok((0..batch.num_rows())
            .map(|row| match set(&filter, row) {
                Some(f) if f != 0.0 => set(&value, row).map_or(Taken::Bad, Taken::Counts),
                _ => Taken::Not,
            })
            .collect())
    }
}

enum Taken {
    Not,
    Bad,
    Counts(f64),
}

/// What a row adds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Sample {
    /// Nothing: it is not of this indicator.
    Other,
    /// Nothing: it makes no sense.
    Senseless,
    /// Events.
    Events { good: f64, total: f64 },
}

impl Measure {
    fn text(&self) -> String {
        let sql = |e: &Option<RowExpr>| e.as_ref().map(|e| e.sql().to_owned()).unwrap_or_default();
        match self {
            Self::Ratio { part, bad, total } => format!("ratio {} {bad} {}", part.text(), total.text()),
            Self::Raw { failure, side, weight } => format!("raw {failure} {} {}", side.text(), sql(weight)),
            Self::Threshold { op, limit, side, weight } => {
                format!("threshold {op:?} {limit} {} {}", side.text(), sql(weight))
            }
        }
    }

    /// What each row adds.
    pub(crate) fn evaluate(&self, batch: &RecordBatch) -> Result<Vec<Sample>, DataFusionError> {
        let events = |good: f64, total: f64| match () {
            () if !good.is_finite() || !total.is_finite() || good < 0.0 || good > total => Sample::Senseless,
            () if total == 0.0 => Sample::Other,
            () => Sample::Events { good, total },
        };
        match self {
            Self::Ratio { part, bad, total } => {
                let (parts, totals) = (part.evaluate(batch)?, total.evaluate(batch)?);
                let sample = |(part, total)| match (part, total) {
                    (Taken::Bad, _) | (_, Taken::Bad) => Sample::Senseless,
                    (Taken::Not, Taken::Not) => Sample::Other,
                    (part, total) => {
                        let amount = |t| if let Taken::Counts(n) = t { n } else { 0.0 };
                        let (part, total) = (amount(part), amount(total));
                        events(if *bad { total - part } else { part }, total)
                    }
                };
                Ok(parts.into_iter().zip(totals).map(sample).collect())
            }
            Self::Raw { side, weight, .. } | Self::Threshold { side, weight, .. } => {
                let weights = match weight {
                    Some(weight) => weight.evaluate(batch)?,
                    None => cast_ones(batch.num_rows()),
                };
                let share = |value: f64| match self {
                    Self::Raw { failure: true, .. } => 1.0 - value,
                    Self::Threshold { op, limit, .. } => f64::from(match op {
                        Op::Lt => value < *limit,
                        Op::Lte => value <= *limit,
                        Op::Gt => value > *limit,
                        Op::Gte => value >= *limit,
                    }),
                    _ => value,
                };
                let sample = |(row, taken)| match taken {
                    Taken::Not => Sample::Other,
                    Taken::Counts(value) if f64::is_finite(value) && !weights.is_null(row) => {
                        events(share(value) * weights.value(row), weights.value(row))
                    }
                    _ => Sample::Senseless,
                };
                Ok(side.evaluate(batch)?.into_iter().enumerate().map(sample).collect())
            }
        }
    }
}

fn cast_ones(rows: usize) -> Float64Array {
    Float64Array::from(vec![1.0; rows])
}

/// A text column as plain strings, or nothing if it is not there or not text.
pub(crate) fn text_column(batch: &RecordBatch, name: &str) -> Option<arrow::array::StringArray> {
    let column = batch.column_by_name(name)?;
    let column = arrow::compute::cast(column, &DataType::Utf8).ok()?;
    Some(column.as_string::<i32>().clone())
}
