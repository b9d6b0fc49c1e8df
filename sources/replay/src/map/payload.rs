//! What of a row goes into the event's payload.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::{
    expression::{Expression, Mapped, RowView},
    path::Path,
};

/// A compiled payload rule.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    /// No payload.
    None,
    /// The row without some of its fields.
    Without(BTreeSet<String>),
    /// Chosen values; missing ones are left out.
    Build(Vec<(String, Expression)>),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Shape {
    Rest(RestSpec),
    Build(BTreeMap<String, Value>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct RestSpec {
    keep: BTreeSet<String>,
    drop: BTreeSet<String>,
}

impl Payload {
    /// Reads the rule: `rest` (the default), `all`, `none`, a list of paths, `{rest: {keep, drop}}`
    /// or `{build: {name: expression}}`. The rest is what no expression of `fields` takes whole.
    pub(crate) fn parse<'a>(spec: Option<Value>, fields: impl Iterator<Item = &'a Expression>) -> Result<Self, String> {
        let consumed = || fields.flat_map(Expression::consumed).map(str::to_owned).collect::<BTreeSet<_>>();
        match spec {
            None => Ok(Payload::Without(consumed())),
            Some(Value::String(word)) => match word.as_str() {
                "rest" => Ok(Payload::Without(consumed())),
                "all" => Ok(Payload::Without(BTreeSet::new())),
                "none" => Ok(Payload::None),
                _ => {
                    Err(format!("{word:?}: expected rest, all, none, a list of paths, or an object with rest or build"))
                }
            },
            Some(Value::Array(paths)) => Ok(Payload::Build(pick(paths)?)),
            Some(spec) => match serde_json::from_value(spec).map_err(|e| e.to_string())? {
                Shape::Rest(RestSpec { keep, drop }) => {
                    let mut without = consumed();
                    without.retain(|name| !keep.contains(name));
                    without.extend(drop);
                    Ok(Payload::Without(without))
                }
                Shape::Build(values) => values
                    .into_iter()
                    .map(|(name, spec)| match Expression::parse(spec) {
                        Ok(expression) => Ok((name, expression)),
                        Err(reason) => Err(format!("build.{name}: {reason}")),
                    })
                    .collect::<Result<_, _>>()
                    .map(Payload::Build),
            },
        }
    }

    /// The payload's JSON text, if there is to be one.
    pub(crate) fn render(&self, row: &RowView<'_>) -> Result<Option<String>, String> {
        match self {
            Payload::None => Ok(None),
            Payload::Without(dropped) if dropped.is_empty() => row.record_text().map(Some),
            Payload::Without(dropped) => row.record_text_without(dropped).map(Some),
            Payload::Build(values) => {
                let mut text = String::from("{");
                for (name, expression) in values {
                    let value = match expression.eval(row).map_err(|reason| format!("{name}: {reason}"))? {
                        Mapped::Missing => continue,
                        Mapped::Value(value) => value.to_string(),
                        Mapped::Json(json) => json,
                    };
                    if text.len() > 1 {
                        text.push(',');
                    }
                    text.push_str(&Value::from(name.as_str()).to_string());
                    text.push(':');
                    text.push_str(&value);
                }
                text.push('}');
                Ok(Some(text))
            }
        }
    }
}

fn pick(paths: Vec<Value>) -> Result<Vec<(String, Expression)>, String> {
    let mut values: Vec<(String, Expression)> = Vec::new();
    for path in paths {
        let Value::String(text) = path else { return Err("expected a list of paths".to_owned()) };
        let path = Path::parse(&text)?;
        let name = path.last_key().map_or_else(|| text.trim_start_matches('$').to_owned(), str::to_owned);
        if values.iter().any(|(other, _)| *other == name) {
            return Err(format!("{text}: {name:?} stands twice; name them under build"));
        }
        values.push((name, Expression::of_path(path)));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rows::{Content, Row};

    fn render(spec: Value) -> Option<String> {
        let fields = [Expression::parse(json!("a")).unwrap(), Expression::parse(json!("n.x")).unwrap()];
        let row = Row {
            number: 1,
            line: 1,
            raw: br#"{"a": 1, "b":  2.50, "n": {"x": 1, "y": null}}"#.to_vec(),
            content: Content::Json,
        };
        Payload::parse(Some(spec), fields.iter()).unwrap().render(&RowView::new(&row, "f").unwrap()).unwrap()
    }

    #[test]
    fn every_shape() {
        assert_eq!(render(json!("none")), None);
        assert_eq!(render(json!("all")).unwrap(), r#"{"a": 1, "b":  2.50, "n": {"x": 1, "y": null}}"#);
        assert_eq!(render(json!("rest")).unwrap(), r#"{"b":2.50,"n":{"x": 1, "y": null}}"#);
        assert_eq!(render(json!({"rest": {"keep": ["a"], "drop": ["n"]}})).unwrap(), r#"{"a":1,"b":2.50}"#);
        assert_eq!(render(json!(["n.x", "b", "$line", "gone"])).unwrap(), r#"{"x":1,"b":2.5,"line":1}"#);
        let build = json!({"build": {"z\"": {"from": "b", "then": [{"prefix": "v"}]}, "gone": "n.y"}});
        assert_eq!(render(build).unwrap(), r#"{"z\"":"v2.5"}"#);
    }
}
