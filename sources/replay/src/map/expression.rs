//! One value of the envelope or the payload: where it comes from, the steps on its way, and what
//! stands in when it is missing.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};
use sha2::{Digest, Sha256};

use super::{
    path::{self, Fact, Path},
    step::{Step, StepSpec, text_of},
    template::Template,
};
use crate::rows::{Content, Row};

/// A compiled expression.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    source: Source,
    steps: Vec<Step>,
    default: Option<Value>,
}

#[derive(Debug, Clone)]
enum Source {
    Const(Value),
    From(Vec<Path>),
    Template(Template<Path>),
}

/// What an expression came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Mapped {
    /// Nothing, and no default.
    Missing,
    /// A value.
    Value(Value),
    /// JSON text taken over byte for byte.
    Json(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    #[serde(default)]
    from: Option<Value>,
    #[serde(default, rename = "const")]
    constant: Option<Value>,
    #[serde(default)]
    template: Option<String>,
    #[serde(default)]
    then: Vec<StepSpec>,
    #[serde(default)]
    default: Option<Value>,
}

impl Expression {
    /// Reads an expression: a path alone, or an object with `from`, `const` or `template`.
    pub(crate) fn parse(spec: Value) -> Result<Self, String> {
        let spec = match spec {
            Value::String(path) => {
                return Ok(Self { source: Source::From(vec![Path::parse(&path)?]), steps: Vec::new(), default: None });
            }
            Value::Object(_) => serde_json::from_value::<Spec>(spec).map_err(|e| e.to_string())?,
            _ => return Err("expected a path or one of from, const and template".to_owned()),
        };
        let source = match (spec.from, spec.constant, spec.template) {
            (Some(from), None, None) => Source::From(paths(from)?),
            (None, Some(value), None) => Source::Const(value),
            (None, None, Some(text)) => Source::Template(Template::parse(&text, Path::parse)?),
            _ => return Err("expected exactly one of from, const and template".to_owned()),
        };
        if matches!(source, Source::Const(_)) && (!spec.then.is_empty() || spec.default.is_some()) {
            return Err("a const takes neither then nor default".to_owned());
        }
        let steps = spec.then.into_iter().map(StepSpec::compile).collect::<Result<_, _>>()?;
        Ok(Self { source, steps, default: spec.default })
    }

    /// A path taken as it is.
    pub(crate) fn of_path(path: Path) -> Self {
        Self { source: Source::From(vec![path]), steps: Vec::new(), default: None }
    }

    /// Values this expression can have whatever the row says: its const, its default.
    pub(crate) fn fixed_values(&self) -> impl Iterator<Item = &Value> {
        let constant = match &self.source {
            Source::Const(value) => Some(value),
            Source::From(_) | Source::Template(_) => None,
        };
        constant.into_iter().chain(&self.default)
    }

    /// Fields of the row it takes whole.
    pub(crate) fn consumed(&self) -> Vec<&str> {
        match &self.source {
            Source::Const(_) => Vec::new(),
            Source::From(paths) => paths.iter().filter_map(Path::top_level).collect(),
            Source::Template(template) => template.slots().filter_map(Path::top_level).collect(),
        }
    }

    /// Computes the value for a row; the error is for the person who wrote the map.
    pub(crate) fn eval(&self, row: &RowView<'_>) -> Result<Mapped, String> {
        let mut value = match &self.source {
            Source::Const(value) => return Ok(Mapped::Value(value.clone())),
            Source::From(paths) => {
                if self.steps.is_empty() && matches!(paths.as_slice(), [Path::Fact(Fact::Record)]) {
                    return row.record_text().map(Mapped::Json);
                }
                let found = paths.iter().filter_map(|path| row.value(path)).find(|value| !is_missing(value));
                found.map_or(Value::Null, Cow::into_owned)
            }
            Source::Template(template) => template.render(|path| row.text(path))?.map_or(Value::Null, Value::String),
        };
        for step in &self.steps {
            value = step.apply(value)?;
        }
        Ok(match (is_missing(&value), &self.default) {
            (false, _) => Mapped::Value(value),
            (true, Some(default)) => Mapped::Value(default.clone()),
            (true, None) => Mapped::Missing,
        })
    }
}

/// A row with its fields read, as expressions see it.
pub(crate) struct RowView<'a> {
    row: &'a Row,
    fields: Cow<'a, Map<String, Value>>,
    file: &'a str,
}

impl<'a> RowView<'a> {
    /// Reads the row's fields; the error says why it has none.
    pub(crate) fn new(row: &'a Row, file: &'a str) -> Result<Self, String> {
        let fields = match &row.content {
            Content::Fields(fields) => Cow::Borrowed(fields),
            Content::Json => match serde_json::from_slice(&row.raw) {
                Ok(Value::Object(fields)) => Cow::Owned(fields),
                Ok(_) => return Err("not a JSON object".to_owned()),
                Err(e) => return Err(format!("not JSON: {e}")),
            },
            Content::Unreadable(reason) => return Err(reason.clone()),
            Content::Blank | Content::TooLarge(_) => return Err("no row".to_owned()),
        };
        Ok(Self { row, fields, file })
    }

    fn value(&self, path: &Path) -> Option<Cow<'_, Value>> {
        Some(match path {
            Path::Field(segments) => Cow::Borrowed(path::lookup(&self.fields, segments)?),
            Path::Fact(Fact::Row) => Cow::Owned(self.row.number.into()),
            Path::Fact(Fact::Line) => Cow::Owned(self.row.line.into()),
            Path::Fact(Fact::RowHash) => Cow::Owned(self.hash().into()),
            Path::Fact(Fact::File) => Cow::Owned(self.file.into()),
            Path::Fact(Fact::Record) => Cow::Owned(Value::Object(self.fields.clone().into_owned())),
        })
    }

    fn text(&self, path: &Path) -> Result<Option<Cow<'_, str>>, String> {
        match self.value(path) {
            None => Ok(None),
            Some(value) if is_missing(&value) => Ok(None),
            Some(Cow::Borrowed(value)) => text_of(value).map(Some),
            Some(Cow::Owned(value)) => Ok(Some(Cow::Owned(text_of(&value)?.into_owned()))),
        }
    }

    fn hash(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.row.number.to_be_bytes());
        hash.update(&self.row.raw);
        hex::encode(hash.finalize())
    }

    /// The whole row as JSON text: its own bytes where it is JSON already.
    pub(crate) fn record_text(&self) -> Result<String, String> {
        match &self.row.content {
            Content::Json => String::from_utf8(self.row.raw.clone()).map_err(|e| e.to_string()),
            _ => serde_json::to_string(self.fields.as_ref()).map_err(|e| e.to_string()),
        }
    }

    /// The row as JSON text without some of its fields; what stays is taken over byte for byte
    /// where the row is JSON already, so that no number loses digits.
    pub(crate) fn record_text_without(&self, dropped: &std::collections::BTreeSet<String>) -> Result<String, String> {
        match &self.row.content {
            Content::Json => {
                let fields: BTreeMap<String, &RawValue> =
                    serde_json::from_slice(&self.row.raw).map_err(|e| e.to_string())?;
                let kept: BTreeMap<_, _> = fields.into_iter().filter(|(name, _)| !dropped.contains(name)).collect();
                serde_json::to_string(&kept).map_err(|e| e.to_string())
            }
            _ => {
                let kept: BTreeMap<_, _> = self.fields.iter().filter(|(name, _)| !dropped.contains(*name)).collect();
                serde_json::to_string(&kept).map_err(|e| e.to_string())
            }
        }
    }
}

fn is_missing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        _ => false,
    }
}

fn paths(from: Value) -> Result<Vec<Path>, String> {
    let list = match from {
        Value::Array(list) if !list.is_empty() => list,
        single => vec![single],
    };
    let parse = |path| match path {
        Value::String(path) => Path::parse(&path),
        _ => Err("from: expected a path or a list of paths".to_owned()),
    };
    list.into_iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(text: &str) -> Row {
        Row { number: 3, line: 3, raw: text.as_bytes().to_vec(), content: Content::Json }
    }

    fn eval(spec: Value, text: &str) -> Result<Mapped, String> {
        let row = row(text);
        Expression::parse(spec)?.eval(&RowView::new(&row, "a.ndjson")?)
    }

    fn value(v: Value) -> Result<Mapped, String> {
        Ok(Mapped::Value(v))
    }

    #[test]
    fn takes_the_first_path_that_has_a_value() {
        let spec = json!({"from": ["a", "b.c", "d"]});
        assert_eq!(eval(spec.clone(), r#"{"a": null, "b": {"c": " "}, "d": 4}"#), value(json!(4)));
        assert_eq!(eval(spec, r#"{"b": {"c": "x"}, "d": 4}"#), value(json!("x")));
        assert_eq!(eval(json!("b.c"), r#"{"b": 1}"#), Ok(Mapped::Missing));
    }

    #[test]
    fn default_stands_in_for_null_missing_and_unknown() {
        let spec = json!({"from": "c", "then": [{"lookup": {"DE": "eu"}}], "default": "us"});
        for (row, expected) in
            [(r#"{"c": "DE"}"#, "eu"), (r#"{"c": "XX"}"#, "us"), (r#"{"c": null}"#, "us"), ("{}", "us")]
        {
            assert_eq!(eval(spec.clone(), row), value(json!(expected)), "{row}");
        }
    }

    #[test]
    fn templates_need_every_hole() {
        let spec = json!({"template": "{a}/{b}", "then": [{"lookup": {"true/false": "bot"}}], "default": "human"});
        assert_eq!(eval(spec.clone(), r#"{"a": true, "b": false}"#), value(json!("bot")));
        assert_eq!(eval(spec.clone(), r#"{"a": true}"#), value(json!("human")));
        assert!(eval(spec, r#"{"a": [1], "b": 1}"#).unwrap_err().contains("an array"));
    }

    #[test]
    fn facts_about_the_row() {
        let facts = json!({"template": "{$file}:{$row}:{$line}"});
        assert_eq!(eval(facts, "{}"), value(json!("a.ndjson:3:3")));
        // sha256 of 00 00 00 00 00 00 00 03 7b 7d, from another implementation.
        let hash = "2a7ccf2d35396c5c0a0f13b509088cb72f8e978a8feea441796392007f410150";
        assert_eq!(eval(json!("$row_hash"), "{}"), value(json!(hash)));
        assert_ne!(eval(json!("$row_hash"), "{ }"), eval(json!("$row_hash"), "{}"));
        let exact = r#"{"n": 12345678901234567890.10}"#;
        assert_eq!(eval(json!("$record"), exact), Ok(Mapped::Json(exact.to_owned())));
    }

    #[test]
    fn the_rest_keeps_every_digit() {
        let row = row(r#"{"a": 1, "n": 123456789012345678901234567890.10, "t": "é\u00e9"}"#);
        let rest = RowView::new(&row, "f").unwrap().record_text_without(&["a".to_owned()].into()).unwrap();
        assert_eq!(rest, r#"{"n":123456789012345678901234567890.10,"t":"é\u00e9"}"#);
    }

    #[test]
    fn refuses_expressions_that_mean_nothing() {
        for bad in [
            json!({}),
            json!({"from": "a", "const": 1}),
            json!({"const": 1, "then": ["trim"]}),
            json!(3),
            json!({"from": [1]}),
        ] {
            assert!(Expression::parse(bad.clone()).is_err(), "{bad}");
        }
        assert!(Expression::parse(json!({"frm": "a"})).unwrap_err().contains("frm"));
    }
}
