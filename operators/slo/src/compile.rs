//! Makes definitions that can run out of loaded objects, or says which field stands in the way.

use std::collections::HashMap;

use companyos_schemas::Stream;
use serde_yaml_ng::Value;
use sha2::{Digest, Sha256};

use crate::{
    duration::{Shorthand, Window},
    error::{Fault, FieldFault, Origin, Refused},
    load::LoadReport,
    measure::Measure,
    openslo::{
        AlertConditionSpec, AlertPolicySpec, ConditionItem, Document, Object, Objective, PolicyItem, SliSpec, SloSpec,
        TargetItem,
    },
    policy::{Op, Rule, Severity, default_rules},
    validate::slice_minutes,
};

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
                    out.refused.push(loaded.fault(fault));
                    break;
                }
            }
        }
    }
    out
}

/// Objects by kind and name.
pub(crate) struct Objects<'a>(HashMap<(&'static str, &'a str), &'a Object>);

impl<'a> Objects<'a> {
    fn new(report: &'a LoadReport) -> Self {
        let key = |object: &'a Object| (object.kind(), object.metadata().name.as_str());
        Self(report.loaded.iter().map(|l| (key(&l.object), &l.object)).collect())
    }

    pub(crate) fn get(&self, kind: &'static str, name: &str, field: &str) -> Result<&'a Object, FieldFault> {
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
            let place = format!("spec.alertPolicies[{i}]");
            let (policy, at): (&Document<AlertPolicySpec>, String) = match item {
                PolicyItem::Inline(policy) => (policy, format!("{place}.spec")),
                PolicyItem::Ref(name) => match self.get("AlertPolicy", name, &place)? {
                    Object::AlertPolicy(policy) => (policy, format!("{place}({name}).spec")),
                    _ => return Err(FieldFault::new(place, Fault::Unresolved, "is not an AlertPolicy")),
                },
            };
            slo.notify_no_data |= policy.spec.alert_when_no_data.unwrap_or(false);
            for (k, condition) in policy.spec.conditions.iter().enumerate() {
                let place = format!("{at}.conditions[{k}]");
                let (condition, at): (&Document<AlertConditionSpec>, String) = match condition {
                    ConditionItem::Inline(condition) => (condition, format!("{place}.spec.condition")),
                    ConditionItem::Ref(name) => match self.get("AlertCondition", name, &place)? {
                        Object::AlertCondition(condition) => (condition, format!("{place}({name}).spec.condition")),
                        _ => return Err(FieldFault::new(place, Fault::Unresolved, "is not an AlertCondition")),
                    },
                };
                let rule = rule(policy, condition, &at)?;
                if slo.rules.iter().any(|r| (&r.policy, &r.condition) == (&rule.policy, &rule.condition)) {
                    let reason = format!("policy {:?} has condition {:?} already", rule.policy, rule.condition);
                    return Err(FieldFault::new(place, Fault::Duplicate, reason));
                }
                slo.rules.push(rule);
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
}

/// Annotation: events a long window must hold before an alert fires.
const MIN_EVENTS: &str = "companyos.io/min-events";
/// Annotation: time without events after which there is no data.
const NO_DATA_AFTER: &str = "companyos.io/no-data-after";

fn window(spec: &SloSpec) -> Result<Window, FieldFault> {
    let Some(window) = spec.time_window.as_ref().and_then(|w| w.first()) else {
        return Ok(Window::Rolling { minutes: 30 * 1440 });
    };
    let at = "spec.timeWindow[0]";
    let window = Window::new(window, at)?;
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
    let field = |name: &str| format!("{at}.{name}");
    let op = match spec.op.as_deref() {
        Some(op) => op.parse().map_err(|e| FieldFault::invalid(field("op"), e))?,
        None => Op::Gte,
    };
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
        op,
        threshold: spec.threshold,
        long,
        short: (long / 12).max(1),
        pending_for: after * 60,
        resolve_after: 300,
        notify_firing: policy.spec.alert_when_breaching.unwrap_or(true),
        notify_resolved: policy.spec.alert_when_resolved.unwrap_or(false),
    })
}
