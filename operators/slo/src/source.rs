//! Our own kind of metric source: a stream, and SQL expressions over its rows.

use companyos_schemas::Stream;
use serde::Deserialize;
use serde_yaml_ng::Value;

use crate::{
    compile::Objects,
    error::{Fault, FieldFault},
    expr::RowExpr,
    measure::{Measure, Side},
    openslo::{Metric, Object, Objective, SliSpec},
};

/// The type of data source that reads our own streams.
pub const SOURCE_TYPE: &str = "companyos";

/// Fields of such a source.
const FIELDS: &str = "stream, filter, good, bad, total and value";

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

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Mapping(members) => members.is_empty(),
        Value::Sequence(items) => items.is_empty(),
        _ => false,
    }
}

impl Objects<'_> {
    /// The measure of an indicator at a path, for one of the objectives.
    pub(crate) fn measure(
        &self,
        sli: &SliSpec,
        objective: &Objective,
        at: &str,
        index: usize,
    ) -> Result<(Stream, Measure), FieldFault> {
        if let Some(metric) = &sli.threshold_metric {
            if index > 0 {
                let reason = "a thresholdMetric can have one objective only";
                return Err(FieldFault::invalid(format!("spec.objectives[{index}]"), reason));
            }
            let at = format!("{at}.thresholdMetric");
            let source = self.source(metric, &at, &["value", "total"])?;
            let op = objective.op.as_deref().and_then(|op| op.parse().ok()).ok_or_else(|| {
                FieldFault::invalid(format!("spec.objectives[{index}].op"), "is needed with a thresholdMetric")
            })?;
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
        let bad = ratio.bad.is_some();
        let name = if bad { "bad" } else { "good" };
        let (Some(part), Some(total)) = (ratio.good.as_ref().or(ratio.bad.as_ref()), &ratio.total) else {
            return Err(FieldFault::invalid(format!("{at}.total"), "is needed with good or bad"));
        };
        let part = self.source(part, &format!("{at}.{name}"), &[name, "value"])?;
        let total = self.source(total, &format!("{at}.total"), &["total", "value"])?;
        if ratio.counter == Some(true) {
            let reason = "true is not supported: the streams carry counts of each event, not running totals";
            return Err(FieldFault::unsupported(format!("{at}.counter"), reason));
        }
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
            (_, Some(ty)) if !ty.eq_ignore_ascii_case(SOURCE_TYPE) => (ty.as_str(), format!("{at}.type")),
            (Some(name), _) => {
                let field = format!("{at}.metricSourceRef");
                let Object::DataSource(source) = self.get("DataSource", name, &field)? else {
                    return Err(FieldFault::new(field, Fault::Unresolved, "is not a DataSource"));
                };
                let ours = source.spec.source_type.eq_ignore_ascii_case(SOURCE_TYPE);
                if ours && source.spec.connection_details.as_ref().is_some_and(|details| !is_empty(details)) {
                    let field = format!("{field}({name}).spec.connectionDetails");
                    return Err(FieldFault::unsupported(field, "nothing is connected to: the streams are our own"));
                }
                (source.spec.source_type.as_str(), field)
            }
            (None, Some(ty)) => (ty.as_str(), format!("{at}.type")),
            (None, None) => return Err(FieldFault::invalid(format!("{at}.type"), "or metricSourceRef is needed")),
        };
        if !ty.eq_ignore_ascii_case(SOURCE_TYPE) {
            let reason = format!("data source {ty:?} is not supported; {SOURCE_TYPE} is");
            return Err(FieldFault::unsupported(field, reason));
        }
        let at = format!("{at}.spec");
        if source.spec.as_ref().is_none_or(is_empty) {
            return Err(FieldFault::invalid(format!("{at}.stream"), "is needed"));
        }
        let value = source.spec.as_ref().unwrap_or(&Value::Null);
        let spec: SourceSpec = serde_path_to_error::deserialize(value).map_err(|e| {
            let path = match e.path().to_string().as_str() {
                "." => at.clone(),
                path => format!("{at}.{path}"),
            };
            let reason = e.inner().to_string();
            match reason.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
                Some(field) => FieldFault::invalid(format!("{path}.{field}"), "is needed"),
                None if reason.starts_with("unknown field") => {
                    FieldFault::unsupported(path, format!("is not a field of a {SOURCE_TYPE} source; {FIELDS} are"))
                }
                None => FieldFault::invalid(path, reason),
            }
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
