//! Reads OpenSLO files and folders. Every document ends up either loaded or refused with the field
//! and the reason; nothing is passed over.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_yaml_ng::Value;

use crate::{
    duration::Shorthand,
    error::{Fault, FieldFault, Origin, Refused},
    openslo::{ConditionItem, Document, Object, Objective, PolicyItem, SliSpec, SloSpec},
};

/// What was found at a path.
#[derive(Debug, Clone, Default)]
pub struct LoadReport {
    /// Valid OpenSLO objects.
    pub loaded: Vec<Loaded>,
    /// Everything else.
    pub refused: Vec<Refused>,
}

/// A valid object and where it stands.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Where.
    pub origin: Origin,
    /// What.
    pub object: Object,
}

const KINDS: &str = "SLO, SLI, Service, AlertPolicy, AlertCondition, AlertNotificationTarget, DataSource";

/// Loads a file, or all `.yaml` and `.yml` files below a folder in order of their names.
pub fn load_path(path: &Path) -> LoadReport {
    let mut report = LoadReport::default();
    let mut files = Vec::new();
    collect(path, true, &mut files, &mut report);
    files.sort();
    for file in files {
        match std::fs::read_to_string(&file) {
            Ok(text) => load_text(&file, &text, &mut report),
            Err(e) => report.refused.push(unreadable(&file, &e)),
        }
    }
    refuse_duplicates(&mut report);
    report
}

/// Loads the documents of a file's text.
pub fn load_str(file: &Path, text: &str) -> LoadReport {
    let mut report = LoadReport::default();
    load_text(file, text, &mut report);
    refuse_duplicates(&mut report);
    report
}

fn collect(path: &Path, named: bool, files: &mut Vec<PathBuf>, report: &mut LoadReport) {
    if path.is_dir() {
        match std::fs::read_dir(path) {
            Ok(entries) => {
                for entry in entries {
                    match entry {
                        Ok(entry) => collect(&entry.path(), false, files, report),
                        Err(e) => report.refused.push(unreadable(path, &e)),
                    }
                }
            }
            Err(e) => report.refused.push(unreadable(path, &e)),
        }
    } else if named || path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
        files.push(path.to_owned());
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> Refused {
    Refused {
        origin: Origin { file: file.to_owned(), document: 0, line: None },
        kind: None,
        name: None,
        field: ".".to_owned(),
        fault: Fault::Unreadable,
        reason: error.to_string(),
    }
}

fn load_text(file: &Path, text: &str, report: &mut LoadReport) {
    let mut document = 0;
    for (first_line, part) in split(text) {
        let mut origin = Origin { file: file.to_owned(), document, line: Some(first_line) };
        let value: Value = match serde_yaml_ng::from_str(&part) {
            Ok(Value::Null) => continue,
            Ok(value) => value,
            Err(e) => {
                document += 1;
                origin.line = e.location().map(|l| first_line + l.line() - 1).or(origin.line);
                let reason = e.to_string();
                report.refused.push(Refused {
                    origin,
                    kind: None,
                    name: None,
                    field: ".".to_owned(),
                    fault: Fault::Malformed,
                    reason,
                });
                continue;
            }
        };
        // Members of a list lose their lines: the parser tells them for whole documents only.
        let members: Vec<(Value, Option<&str>)> = match value {
            Value::Sequence(members) => members.into_iter().map(|m| (m, None)).collect(),
            value => vec![(value, Some(part.as_str()))],
        };
        for (value, text) in members {
            origin.document = document;
            document += 1;
            match object(&value, text, first_line, &mut origin) {
                Ok(object) => report.loaded.push(Loaded { origin: origin.clone(), object }),
                Err(fault) => {
                    let text = |v: Option<&Value>| v.and_then(Value::as_str).map(str::to_owned);
                    report.refused.push(Refused {
                        origin: origin.clone(),
                        kind: text(value.get("kind")),
                        name: text(value.get("metadata").and_then(|m| m.get("name"))),
                        field: fault.field,
                        fault: fault.fault,
                        reason: fault.reason,
                    });
                }
            }
            origin.line = Some(first_line);
        }
    }
}

/// Documents with the line each begins at. YAML does not allow `---` at the start of a line to mean
/// anything else, not even inside text.
fn split(text: &str) -> Vec<(usize, String)> {
    let mut parts = vec![(1, String::new())];
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end();
        if bare == "---" || bare.starts_with("--- ") {
            parts.push((index + 1, String::new()));
        }
        if let Some((_, part)) = parts.last_mut()
            && bare != "..."
        {
            part.push_str(line);
        }
    }
    parts
}

fn object(value: &Value, text: Option<&str>, first_line: usize, origin: &mut Origin) -> Result<Object, FieldFault> {
    if !value.is_mapping() {
        return Err(FieldFault::new(".", Fault::Malformed, "is not a mapping"));
    }
    match value.get("apiVersion").and_then(Value::as_str) {
        Some("openslo/v1") => {}
        Some(other) => {
            return Err(FieldFault::unsupported("apiVersion", format!("{other:?} is not supported; openslo/v1 is")));
        }
        None => return Err(FieldFault::new("apiVersion", Fault::Malformed, "is missing")),
    }
    let Some(kind) = value.get("kind").and_then(Value::as_str) else {
        return Err(FieldFault::new("kind", Fault::Malformed, "is missing"));
    };
    let mut read = Reader { value, text, first_line, origin };
    let object = match kind {
        "SLO" => Object::Slo(read.document()?),
        "SLI" => Object::Sli(read.document()?),
        "Service" => Object::Service(read.document()?),
        "AlertPolicy" => Object::AlertPolicy(read.document()?),
        "AlertCondition" => Object::AlertCondition(read.document()?),
        "AlertNotificationTarget" => Object::AlertNotificationTarget(read.document()?),
        "DataSource" => Object::DataSource(read.document()?),
        other => {
            return Err(FieldFault::unsupported("kind", format!("{other:?} is not supported; one of {KINDS} is")));
        }
    };
    validate(&object)?;
    Ok(object)
}

struct Reader<'a> {
    value: &'a Value,
    text: Option<&'a str>,
    first_line: usize,
    origin: &'a mut Origin,
}

impl Reader<'_> {
    fn document<S: DeserializeOwned>(&mut self) -> Result<Document<S>, FieldFault> {
        let result = match self.text {
            Some(text) => serde_path_to_error::deserialize(serde_yaml_ng::Deserializer::from_str(text)),
            None => serde_path_to_error::deserialize(self.value),
        };
        result.map_err(|e: serde_path_to_error::Error<serde_yaml_ng::Error>| {
            if let Some(location) = e.inner().location() {
                self.origin.line = Some(self.first_line + location.line() - 1);
            }
            let path = e.path().to_string();
            let reason = e.inner().to_string();
            // serde names the missing field in its words only; the path ends at its parent.
            let quoted = |start: &str| {
                reason.find(start).and_then(|at| reason[at + start.len()..].split('`').next().map(str::to_owned))
            };
            let join = |field: String| match path.as_str() {
                "." => field,
                path if path == field || path.ends_with(&format!(".{field}")) => path.to_owned(),
                path => format!("{path}.{field}"),
            };
            if let Some(field) = quoted("unknown field `") {
                FieldFault::unsupported(join(field), "is not a field of OpenSLO v1 here")
            } else if let Some(field) = quoted("missing field `") {
                let field = match path.as_str() {
                    "." => field,
                    path => format!("{path}.{field}"),
                };
                FieldFault::new(field, Fault::Malformed, "is missing")
            } else {
                FieldFault::new(path, Fault::Malformed, reason)
            }
        })
    }
}

fn validate(object: &Object) -> Result<(), FieldFault> {
    let metadata = object.metadata();
    if metadata.name.is_empty() || metadata.name.len() > 255 {
        return Err(FieldFault::invalid("metadata.name", "must have 1 to 255 characters"));
    }
    let description = match object {
        Object::Slo(d) => &d.spec.description,
        Object::Sli(d) => &d.spec.description,
        Object::Service(d) => &d.spec.description,
        Object::AlertPolicy(d) => &d.spec.description,
        Object::AlertCondition(d) => &d.spec.description,
        Object::AlertNotificationTarget(d) => &d.spec.description,
        Object::DataSource(d) => &d.spec.description,
    };
    if description.as_ref().is_some_and(|d| d.chars().count() > 1050) {
        return Err(FieldFault::invalid("spec.description", "is longer than 1050 characters"));
    }
    match object {
        Object::Slo(d) => slo(&d.spec),
        Object::Sli(d) => sli(&d.spec, "spec"),
        Object::AlertPolicy(d) => conditions(&d.spec.conditions, "spec"),
        Object::AlertCondition(d) => condition(&d.spec.condition, "spec.condition"),
        _ => Ok(()),
    }
}

fn slo(spec: &SloSpec) -> Result<(), FieldFault> {
    match (&spec.indicator, &spec.indicator_ref) {
        (Some(indicator), None) => sli(&indicator.spec, "spec.indicator.spec")?,
        (None, Some(_)) => {}
        (None, None) => return Err(FieldFault::invalid("spec.indicator", "or spec.indicatorRef is needed")),
        (Some(_), Some(_)) => {
            return Err(FieldFault::invalid("spec.indicatorRef", "cannot be used with spec.indicator"));
        }
    }
    if let Some(windows) = &spec.time_window {
        let [window] = windows.as_slice() else {
            return Err(FieldFault::invalid("spec.timeWindow", "must have exactly one item"));
        };
        Shorthand::parse(&window.duration).map_err(|e| FieldFault::invalid("spec.timeWindow[0].duration", e))?;
        let rolling = window.is_rolling.unwrap_or(window.calendar.is_none());
        if rolling && window.calendar.is_some() {
            return Err(FieldFault::invalid("spec.timeWindow[0].calendar", "cannot be used with isRolling: true"));
        }
        if !rolling && window.calendar.is_none() {
            return Err(FieldFault::invalid("spec.timeWindow[0].calendar", "is needed with isRolling: false"));
        }
    }
    let slices = match spec.budgeting_method.as_str() {
        "Occurrences" => None,
        "Timeslices" => Some(true),
        "RatioTimeslices" => Some(false),
        other => {
            return Err(FieldFault::unsupported(
                "spec.budgetingMethod",
                format!("{other:?} is not supported; Occurrences, Timeslices and RatioTimeslices are"),
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
    for (i, policy) in spec.alert_policies.iter().flatten().enumerate() {
        if let PolicyItem::Inline(policy) = policy {
            conditions(&policy.spec.conditions, &format!("spec.alertPolicies[{i}].spec"))?;
        }
    }
    Ok(())
}

fn check_objective(objective: &Objective, at: &str, slices: Option<bool>) -> Result<(), FieldFault> {
    let range = |field: &str, value: Option<f64>, top: f64, closed: bool| match value {
        Some(v) if !(0.0..=top).contains(&v) || (!closed && v >= top) => Err(FieldFault::invalid(
            format!("{at}.{field}"),
            format!("{v} is not in [0, {top}{}", if closed { ']' } else { ')' }),
        )),
        _ => Ok(()),
    };
    match (objective.target, objective.target_percent) {
        (None, None) => return Err(FieldFault::invalid(format!("{at}.target"), "or targetPercent is needed")),
        (Some(_), Some(_)) => {
            return Err(FieldFault::invalid(format!("{at}.targetPercent"), "cannot be used with target"));
        }
        _ => {}
    }
    range("target", objective.target, 1.0, false)?;
    range("targetPercent", objective.target_percent, 100.0, false)?;
    range("timeSliceTarget", objective.time_slice_target, 1.0, true)?;
    if let Some(op) = &objective.op
        && !["lte", "gte", "lt", "gt"].contains(&op.as_str())
    {
        return Err(FieldFault::invalid(format!("{at}.op"), format!("{op:?} is not one of lte, gte, lt, gt")));
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

fn sli(spec: &SliSpec, at: &str) -> Result<(), FieldFault> {
    match (&spec.threshold_metric, &spec.ratio_metric) {
        (Some(_), None) => Ok(()),
        (None, Some(ratio)) => {
            let at = format!("{at}.ratioMetric");
            if ratio.raw.is_some() {
                for (field, set) in [("good", &ratio.good), ("bad", &ratio.bad), ("total", &ratio.total)] {
                    if set.is_some() {
                        return Err(FieldFault::invalid(format!("{at}.{field}"), "cannot be used with raw"));
                    }
                }
                return match ratio.raw_type.as_deref() {
                    Some("success" | "failure") => Ok(()),
                    Some(other) => Err(FieldFault::invalid(
                        format!("{at}.rawType"),
                        format!("{other:?} is not success or failure"),
                    )),
                    None => Err(FieldFault::invalid(format!("{at}.rawType"), "is needed with raw")),
                };
            }
            if ratio.raw_type.is_some() {
                return Err(FieldFault::invalid(format!("{at}.rawType"), "is for raw only"));
            }
            if ratio.total.is_none() {
                return Err(FieldFault::invalid(format!("{at}.total"), "or raw is needed"));
            }
            match (&ratio.good, &ratio.bad) {
                (None, None) => Err(FieldFault::invalid(format!("{at}.good"), "or bad is needed with total")),
                (Some(_), Some(_)) => Err(FieldFault::invalid(format!("{at}.bad"), "cannot be used with good")),
                _ => Ok(()),
            }
        }
        (None, None) => Err(FieldFault::invalid(format!("{at}.ratioMetric"), "or thresholdMetric is needed")),
        (Some(_), Some(_)) => {
            Err(FieldFault::invalid(format!("{at}.ratioMetric"), "cannot be used with thresholdMetric"))
        }
    }
}

fn conditions(items: &[ConditionItem], at: &str) -> Result<(), FieldFault> {
    match items {
        [ConditionItem::Ref(_)] => Ok(()),
        [ConditionItem::Inline(inline)] => {
            condition(&inline.spec.condition, &format!("{at}.conditions[0].spec.condition"))
        }
        _ => Err(FieldFault::invalid(format!("{at}.conditions"), "must have exactly one item")),
    }
}

fn condition(condition: &crate::openslo::Condition, at: &str) -> Result<(), FieldFault> {
    if let Some(kind) = &condition.kind
        && !kind.eq_ignore_ascii_case("burnrate")
    {
        return Err(FieldFault::unsupported(format!("{at}.kind"), format!("{kind:?} is not supported; burnrate is")));
    }
    if let Some(op) = &condition.op
        && !["gt", "gte"].contains(&op.as_str())
    {
        return Err(FieldFault::unsupported(format!("{at}.op"), format!("{op:?} is not supported; gt and gte are")));
    }
    if !condition.threshold.is_finite() || condition.threshold <= 0.0 {
        return Err(FieldFault::invalid(format!("{at}.threshold"), "must be above 0"));
    }
    Shorthand::parse(&condition.lookback_window).map_err(|e| FieldFault::invalid(format!("{at}.lookbackWindow"), e))?;
    match condition.alert_after.as_deref() {
        None | Some("0m") => Ok(()),
        Some(text) => Shorthand::parse(text).map(drop).map_err(|e| FieldFault::invalid(format!("{at}.alertAfter"), e)),
    }
}

fn refuse_duplicates(report: &mut LoadReport) {
    let mut seen = BTreeSet::new();
    let mut kept = Vec::new();
    for loaded in std::mem::take(&mut report.loaded) {
        let (kind, name) = (loaded.object.kind(), loaded.object.metadata().name.clone());
        if seen.insert((kind, name.clone())) {
            kept.push(loaded);
        } else {
            let fault = FieldFault::new("metadata.name", Fault::Duplicate, format!("another {kind} has this name"));
            report.refused.push(fault.at(&loaded.origin, kind, &name));
        }
    }
    report.loaded = kept;
}
