//! What the specification asks of an object beyond the types of its fields.
//!
//! Accepted beyond it, as its own examples have them: names of any case, an alert condition without
//! `op`, a policy without some of its three switches, a data source without connection details.

use crate::{
    duration::{Shorthand, Window},
    error::FieldFault,
    openslo::{
        AlertConditionSpec, AlertPolicySpec, ConditionItem, Document, Metadata, Object, Objective, PolicyItem, SliSpec,
        SloSpec, TargetItem,
    },
    policy::Op,
};

use serde_yaml_ng::Value;

type Checked = Result<(), FieldFault>;

/// Checks an object, its inlined objects included.
pub(crate) fn validate(object: &Object) -> Checked {
    metadata(object.metadata(), "metadata")?;
    let (description, spec) = match object {
        Object::Slo(d) => (&d.spec.description, slo(&d.spec)),
        Object::Sli(d) => (&d.spec.description, sli(&d.spec, "spec")),
        Object::Service(d) => (&d.spec.description, Ok(())),
        Object::AlertPolicy(d) => (&d.spec.description, policy(&d.spec, "spec")),
        Object::AlertCondition(d) => (&d.spec.description, condition(&d.spec, "spec")),
        Object::AlertNotificationTarget(d) => (&d.spec.description, Ok(())),
        Object::DataSource(d) => (&d.spec.description, Ok(())),
    };
    describe(description, "spec")?;
    spec
}

fn metadata(metadata: &Metadata, at: &str) -> Checked {
    name(&metadata.name, &format!("{at}.name"))?;
    for (key, value) in metadata.labels.iter().flatten() {
        key_of(key, &format!("{at}.labels"), false)?;
        let text = match value {
            Value::String(_) => true,
            Value::Sequence(items) => items.iter().all(Value::is_string),
            _ => false,
        };
        if !text {
            return Err(FieldFault::invalid(format!("{at}.labels.{key}"), "is neither text nor a list of texts"));
        }
    }
    for key in metadata.annotations.iter().flatten().map(|(key, _)| key) {
        key_of(key, &format!("{at}.annotations"), true)?;
    }
    Ok(())
}

/// Names become parts of keys and of alert ids.
fn name(name: &str, at: &str) -> Checked {
    if name.is_empty() || name.len() > 255 {
        return Err(FieldFault::invalid(at, "must have 1 to 255 characters"));
    }
    if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(FieldFault::invalid(at, "must not have blanks or control characters"));
    }
    Ok(())
}

/// The rule for keys of labels and, with a prefix, of annotations.
fn key_of(key: &str, at: &str, prefixed: bool) -> Checked {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) if prefixed => (Some(prefix), name),
        _ => (None, key),
    };
    let end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let named = name.len() <= 63 && end(name.chars().next()) && end(name.chars().last()) && name.chars().all(inside);
    let label = |part: &str| {
        end(part.chars().next()) && end(part.chars().last()) && part.chars().all(|c| inside(c) && c != '_')
    };
    let domain = prefix.is_none_or(|prefix| prefix.len() <= 253 && prefix.split('.').all(label));
    if named && domain {
        return Ok(());
    }
    let reason = "is not a key: at most 63 letters, digits, -, _ and ., beginning and ending with a letter or digit";
    let reason = if prefixed { format!("{reason}, after a DNS name and / if any") } else { reason.to_owned() };
    Err(FieldFault::invalid(format!("{at}.{key}"), reason))
}

fn describe(description: &Option<String>, at: &str) -> Checked {
    if description.as_ref().is_some_and(|d| d.chars().count() > 1050) {
        return Err(FieldFault::invalid(format!("{at}.description"), "is longer than 1050 characters"));
    }
    Ok(())
}

/// An object in another may repeat what it is, and nothing else.
fn inlined<S>(document: &Document<S>, kind: &str, at: &str) -> Checked {
    if let Some(other) = document.kind.as_deref().filter(|k| *k != kind) {
        return Err(FieldFault::invalid(format!("{at}.kind"), format!("{other:?} is not {kind}")));
    }
    if let Some(other) = document.api_version.as_deref().filter(|v| *v != "openslo/v1") {
        return Err(FieldFault::unsupported(
            format!("{at}.apiVersion"),
            format!("{other:?} is not supported; openslo/v1 is"),
        ));
    }
    metadata(&document.metadata, &format!("{at}.metadata"))
}

fn slo(spec: &SloSpec) -> Checked {
    name(&spec.service, "spec.service")?;
    composite(spec)?;
    match (&spec.indicator, &spec.indicator_ref) {
        (Some(indicator), None) => {
            inlined(indicator, "SLI", "spec.indicator")?;
            describe(&indicator.spec.description, "spec.indicator.spec")?;
            sli(&indicator.spec, "spec.indicator.spec")?;
        }
        (None, Some(reference)) => name(reference, "spec.indicatorRef")?,
        (None, None) => return Err(FieldFault::invalid("spec.indicator", "or spec.indicatorRef is needed")),
        (Some(_), Some(_)) => {
            return Err(FieldFault::invalid("spec.indicatorRef", "cannot be used with spec.indicator"));
        }
    }
    if let Some(windows) = &spec.time_window {
        let [window] = windows.as_slice() else {
            return Err(FieldFault::invalid("spec.timeWindow", "must have exactly one item"));
        };
        Window::new(window, "spec.timeWindow[0]")?;
    }
    let slices = match spec.budgeting_method.as_str() {
        "Occurrences" => None,
        "Timeslices" => Some(true),
        "RatioTimeslices" => Some(false),
        other => {
            return Err(FieldFault::invalid(
                "spec.budgetingMethod",
                format!("{other:?} is not one of Occurrences, Timeslices, RatioTimeslices"),
            ));
        }
    };
    if spec.objectives.is_empty() {
        return Err(FieldFault::invalid("spec.objectives", "must have at least one item"));
    }
    let threshold = spec.indicator.as_ref().is_some_and(|i| i.spec.threshold_metric.is_some());
    if threshold && spec.objectives.len() > 1 {
        return Err(FieldFault::invalid("spec.objectives[1]", "a thresholdMetric can have one objective only"));
    }
    for (i, objective) in spec.objectives.iter().enumerate() {
        let at = format!("spec.objectives[{i}]");
        check_objective(objective, &at, slices)?;
        if threshold && (objective.op.is_none() || objective.value.is_none()) {
            let field = if objective.op.is_none() { "op" } else { "value" };
            return Err(FieldFault::invalid(format!("{at}.{field}"), "is needed with a thresholdMetric"));
        }
    }
    for (i, item) in spec.alert_policies.iter().flatten().enumerate() {
        let at = format!("spec.alertPolicies[{i}]");
        match item {
            PolicyItem::Ref(reference) => name(reference, &at)?,
            PolicyItem::Inline(inline) => {
                inlined(inline, "AlertPolicy", &at)?;
                describe(&inline.spec.description, &format!("{at}.spec"))?;
                policy(&inline.spec, &format!("{at}.spec"))?;
            }
        }
    }
    Ok(())
}

/// SLOs whose objectives have indicators of their own are OpenSLO v1, but do not run here.
fn composite(spec: &SloSpec) -> Checked {
    for (i, objective) in spec.objectives.iter().enumerate() {
        let fields = [
            ("indicator", objective.indicator.is_some()),
            ("indicatorRef", objective.indicator_ref.is_some()),
            ("compositeWeight", objective.composite_weight.is_some()),
        ];
        if let Some((field, _)) = fields.iter().find(|(_, set)| *set) {
            return Err(FieldFault::unsupported(
                format!("spec.objectives[{i}].{field}"),
                "composite SLOs are not supported; write an SLO for each indicator",
            ));
        }
    }
    Ok(())
}

fn check_objective(objective: &Objective, at: &str, slices: Option<bool>) -> Checked {
    let range = |field: &str, value: Option<f64>, inside: fn(f64) -> bool, words: &str| match value {
        Some(v) if !inside(v) => Err(FieldFault::invalid(format!("{at}.{field}"), format!("{v} is not in {words}"))),
        _ => Ok(()),
    };
    match (objective.target, objective.target_percent) {
        (None, None) => return Err(FieldFault::invalid(format!("{at}.target"), "or targetPercent is needed")),
        (Some(_), Some(_)) => {
            return Err(FieldFault::invalid(format!("{at}.targetPercent"), "cannot be used with target"));
        }
        _ => {}
    }
    range("target", objective.target, |v| (0.0..1.0).contains(&v), "[0, 1)")?;
    range("targetPercent", objective.target_percent, |v| (0.0..100.0).contains(&v), "[0, 100)")?;
    range("timeSliceTarget", objective.time_slice_target, |v| v > 0.0 && v <= 1.0, "(0, 1]")?;
    range("value", objective.value, f64::is_finite, "the numbers that are finite")?;
    if let Some(op) = &objective.op {
        op.parse::<Op>().map_err(|e| FieldFault::invalid(format!("{at}.op"), e))?;
    }
    if let Some(window) = &objective.time_slice_window {
        slice_minutes(window).map_err(|e| FieldFault::invalid(format!("{at}.timeSliceWindow"), e))?;
    }
    match slices {
        Some(_) if objective.time_slice_window.is_none() => {
            Err(FieldFault::invalid(format!("{at}.timeSliceWindow"), "is needed with time slices"))
        }
        Some(true) if objective.time_slice_target.is_none() => {
            Err(FieldFault::invalid(format!("{at}.timeSliceTarget"), "is needed with budgetingMethod Timeslices"))
        }
        _ => Ok(()),
    }
}

/// Minutes of a slice: a number of minutes or shorthand.
pub(crate) fn slice_minutes(value: &Value) -> Result<i64, String> {
    match value {
        Value::Number(n) => match n.as_i64() {
            Some(minutes) if minutes > 0 => Ok(minutes),
            _ => Err(format!("{n} is not a whole number of minutes above 0")),
        },
        Value::String(text) => Shorthand::parse(text).map(Shorthand::minutes),
        _ => Err("is neither a number of minutes nor a duration".to_owned()),
    }
}

fn sli(spec: &SliSpec, at: &str) -> Checked {
    let ratio = match (&spec.threshold_metric, &spec.ratio_metric) {
        (Some(_), None) => return Ok(()),
        (None, Some(ratio)) => ratio,
        (None, None) => {
            return Err(FieldFault::invalid(format!("{at}.ratioMetric"), "or thresholdMetric is needed"));
        }
        (Some(_), Some(_)) => {
            return Err(FieldFault::invalid(format!("{at}.ratioMetric"), "cannot be used with thresholdMetric"));
        }
    };
    let at = format!("{at}.ratioMetric");
    let invalid = |field: &str, reason: &str| Err(FieldFault::invalid(format!("{at}.{field}"), reason));
    if ratio.raw.is_some() {
        for (field, set) in [("good", &ratio.good), ("bad", &ratio.bad), ("total", &ratio.total)] {
            if set.is_some() {
                return invalid(field, "cannot be used with raw");
            }
        }
        return match ratio.raw_type.as_deref() {
            Some("success" | "failure") => Ok(()),
            Some(other) => invalid("rawType", &format!("{other:?} is not success or failure")),
            None => invalid("rawType", "is needed with raw"),
        };
    }
    if ratio.raw_type.is_some() {
        return invalid("rawType", "is for raw only");
    }
    if ratio.total.is_none() {
        return invalid("total", "or raw is needed");
    }
    match (&ratio.good, &ratio.bad) {
        (None, None) => invalid("good", "or bad is needed with total"),
        (Some(_), Some(_)) => invalid("bad", "cannot be used with good"),
        _ => Ok(()),
    }
}

fn policy(spec: &AlertPolicySpec, at: &str) -> Checked {
    match spec.conditions.as_slice() {
        [ConditionItem::Ref(reference)] => name(reference, &format!("{at}.conditions[0]"))?,
        [ConditionItem::Inline(inline)] => {
            let at = format!("{at}.conditions[0]");
            inlined(inline, "AlertCondition", &at)?;
            describe(&inline.spec.description, &format!("{at}.spec"))?;
            condition(&inline.spec, &format!("{at}.spec"))?;
        }
        _ => return Err(FieldFault::invalid(format!("{at}.conditions"), "must have exactly one item")),
    }
    if spec.notification_targets.is_empty() {
        return Err(FieldFault::invalid(format!("{at}.notificationTargets"), "must have at least one item"));
    }
    for (i, target) in spec.notification_targets.iter().enumerate() {
        let at = format!("{at}.notificationTargets[{i}]");
        match target {
            TargetItem::Ref(reference) => name(reference, &at)?,
            TargetItem::Inline(inline) => {
                inlined(inline, "AlertNotificationTarget", &at)?;
                describe(&inline.spec.description, &format!("{at}.spec"))?;
            }
        }
    }
    Ok(())
}

fn condition(spec: &AlertConditionSpec, at: &str) -> Checked {
    let (condition, at) = (&spec.condition, format!("{at}.condition"));
    if let Some(kind) = &condition.kind
        && !kind.eq_ignore_ascii_case("burnrate")
    {
        return Err(FieldFault::unsupported(format!("{at}.kind"), format!("{kind:?} is not supported; burnrate is")));
    }
    if let Some(op) = &condition.op {
        op.parse::<Op>().map_err(|e| FieldFault::invalid(format!("{at}.op"), e))?;
    }
    if !condition.threshold.is_finite() || condition.threshold < 0.0 {
        return Err(FieldFault::invalid(format!("{at}.threshold"), "must be a number that is not below 0"));
    }
    Shorthand::parse(&condition.lookback_window).map_err(|e| FieldFault::invalid(format!("{at}.lookbackWindow"), e))?;
    match condition.alert_after.as_deref() {
        None | Some("0m") => Ok(()),
        Some(text) => Shorthand::parse(text).map(drop).map_err(|e| FieldFault::invalid(format!("{at}.alertAfter"), e)),
    }
}
