//! Derivations: what a map may do to a value on its way into the envelope.
//!
//! Steps run in the order they are written. A missing value (absent, null or blank text at the
//! end) passes through untouched and becomes the field's default.

use std::{borrow::Cow, collections::BTreeMap, collections::HashMap};

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};
use regex::Regex;
use serde::Deserialize;
use serde_json::{Number, Value};
use sha2::{Digest, Sha256};

/// A step as written in the map.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StepSpec {
    /// Removes white space at both ends.
    Trim,
    /// Lower case.
    Lower,
    /// Upper case.
    Upper,
    /// Lower case, every run of characters other than a-z and 0-9 made one dash, none at the ends.
    Slug,
    /// Lower-case hex SHA-256 of the text.
    Sha256,
    /// The JSON number the text stands for.
    Number,
    /// true for "true", "yes" and "1", false for "false", "no" and "0", in any case.
    Boolean,
    /// Puts a text in front.
    Prefix(String),
    /// Replaces every match of a regular expression; `$1` and `$name` are its groups.
    Replace(ReplaceSpec),
    /// Reads a date by strptime format and writes it as RFC 3339 in UTC.
    DateFormat(String),
    /// Exchanges the value for the one beside it in a table; not in the table is missing.
    Lookup(BTreeMap<String, Value>),
    /// A lookup written the other way round: result, then the values that lead to it.
    Groups(BTreeMap<String, Vec<Value>>),
    /// Makes any of these texts a missing value.
    NullIf(Vec<Value>),
}

/// Arguments of `replace`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplaceSpec {
    pattern: String,
    with: String,
}

/// A step ready to run.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Trim,
    Lower,
    Upper,
    Slug,
    Sha256,
    Number,
    Boolean,
    Prefix(String),
    Replace { pattern: Regex, with: String },
    DateFormat(String),
    Lookup(HashMap<String, Value>),
    NullIf(Vec<String>),
}

impl StepSpec {
    /// Checks the arguments.
    pub(crate) fn compile(self) -> Result<Step, String> {
        Ok(match self {
            StepSpec::Trim => Step::Trim,
            StepSpec::Lower => Step::Lower,
            StepSpec::Upper => Step::Upper,
            StepSpec::Slug => Step::Slug,
            StepSpec::Sha256 => Step::Sha256,
            StepSpec::Number => Step::Number,
            StepSpec::Boolean => Step::Boolean,
            StepSpec::Prefix(text) => Step::Prefix(text),
            StepSpec::Replace(ReplaceSpec { pattern, with }) => {
                Step::Replace { pattern: Regex::new(&pattern).map_err(|e| format!("replace: {e}"))?, with }
            }
            StepSpec::DateFormat(format) => {
                if chrono::format::StrftimeItems::new(&format).any(|item| item == chrono::format::Item::Error) {
                    return Err(format!("date_format {format:?}: not a strptime format"));
                }
                Step::DateFormat(format)
            }
            StepSpec::Lookup(table) => Step::Lookup(table.into_iter().collect()),
            StepSpec::Groups(groups) => {
                let mut table = HashMap::new();
                for (result, members) in groups {
                    for member in &members {
                        let key = text_of(member).map_err(|e| format!("groups.{result}: {e}"))?.into_owned();
                        if table.insert(key.clone(), Value::String(result.clone())).is_some() {
                            return Err(format!("groups: {key:?} stands twice"));
                        }
                    }
                }
                Step::Lookup(table)
            }
            StepSpec::NullIf(texts) => {
                let texts = texts.iter().map(|text| text_of(text).map(Cow::into_owned));
                Step::NullIf(texts.collect::<Result<_, _>>().map_err(|e| format!("null_if: {e}"))?)
            }
        })
    }
}

impl Step {
    /// Runs the step; null stays null. The error says why the value does not fit.
    pub(crate) fn apply(&self, value: Value) -> Result<Value, String> {
        if value.is_null() {
            return Ok(value);
        }
        let text = text_of(&value)?;
        Ok(match self {
            Step::Trim => text.trim().into(),
            Step::Lower => text.to_lowercase().into(),
            Step::Upper => text.to_uppercase().into(),
            Step::Slug => slug(&text).into(),
            Step::Sha256 => hex::encode(Sha256::digest(text.as_bytes())).into(),
            Step::Number if text.trim().is_empty() => Value::Null,
            Step::Number => Value::Number(number(text.trim())?),
            Step::Boolean => match text.trim().to_ascii_lowercase().as_str() {
                "" => Value::Null,
                "true" | "yes" | "1" => true.into(),
                "false" | "no" | "0" => false.into(),
                _ => return Err(format!("{:?} is not a boolean", shorten(&text))),
            },
            Step::Prefix(prefix) => format!("{prefix}{text}").into(),
            Step::Replace { pattern, with } => pattern.replace_all(&text, with.as_str()).into(),
            Step::DateFormat(_) if text.trim().is_empty() => Value::Null,
            Step::DateFormat(format) => date(text.trim(), format)?.into(),
            Step::Lookup(table) => table.get(text.as_ref()).cloned().unwrap_or(Value::Null),
            Step::NullIf(texts) if texts.iter().any(|t| *t == text) => Value::Null,
            Step::NullIf(_) => return Ok(value),
        })
    }
}

/// A scalar as text; null, objects and arrays have none.
pub(crate) fn text_of(value: &Value) -> Result<Cow<'_, str>, String> {
    match value {
        Value::String(text) => Ok(Cow::Borrowed(text)),
        Value::Bool(_) | Value::Number(_) => Ok(Cow::Owned(value.to_string())),
        Value::Null => Err("expected a text, a number or a boolean, found null".to_owned()),
        Value::Array(_) => Err("expected a text, a number or a boolean, found an array".to_owned()),
        Value::Object(_) => Err("expected a text, a number or a boolean, found an object".to_owned()),
    }
}

fn slug(text: &str) -> String {
    let mut slug = String::with_capacity(text.len());
    for c in text.chars() {
        match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => slug.push(c),
            _ if slug.is_empty() || slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
    }
    slug.truncate(slug.trim_end_matches('-').len());
    slug
}

fn number(text: &str) -> Result<Number, String> {
    let integer = text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from));
    integer
        .ok()
        .or_else(|| Number::from_f64(text.parse().ok()?))
        .ok_or_else(|| format!("{:?} is not a number", shorten(text)))
}

fn date(text: &str, format: &str) -> Result<String, String> {
    let utc: DateTime<Utc> = DateTime::parse_from_str(text, format)
        .map(|date| date.to_utc())
        .or_else(|_| NaiveDateTime::parse_from_str(text, format).map(|date| date.and_utc()))
        .or_else(|e| match NaiveDate::parse_from_str(text, format) {
            Ok(day) => day.and_hms_opt(0, 0, 0).map(|date| date.and_utc()).ok_or(e),
            Err(_) => Err(e),
        })
        .map_err(|e| format!("{:?} is not a date of format {format:?}: {e}", shorten(text)))?;
    Ok(utc.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

/// The beginning of a value, for messages.
fn shorten(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(60) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn step(spec: Value) -> Result<Step, String> {
        serde_json::from_value::<StepSpec>(spec).map_err(|e| e.to_string())?.compile()
    }

    fn apply(spec: Value, value: Value) -> Result<Value, String> {
        step(spec)?.apply(value)
    }

    #[test]
    fn every_step_does_what_its_name_says() {
        let cases = [
            (json!("trim"), json!("  a b\t"), json!("a b")),
            (json!("lower"), json!("ÄB"), json!("äb")),
            (json!("upper"), json!("äb"), json!("ÄB")),
            (json!("slug"), json!("#en.wikipedia"), json!("en-wikipedia")),
            (json!("slug"), json!(" A  &  B 2! "), json!("a-b-2")),
            (json!("slug"), json!("Обсуждение"), json!("")),
            (json!("sha256"), json!("abc"), json!("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")),
            (json!("number"), json!("18446744073709551615"), json!(u64::MAX)),
            (json!("number"), json!(" -7 "), json!(-7)),
            (json!("number"), json!("1.5e3"), json!(1500.0)),
            (json!("number"), json!(""), Value::Null),
            (json!("number"), json!(3), json!(3)),
            (json!("boolean"), json!("Yes"), json!(true)),
            (json!("boolean"), json!(0), json!(false)),
            (json!({"prefix": "ip:"}), json!("::1"), json!("ip:::1")),
            (json!({"replace": {"pattern": "^/([^/]*).*$", "with": "$1"}}), json!("/blog/x"), json!("blog")),
            (json!({"lookup": {"true": "bot", "7": 1}}), json!(true), json!("bot")),
            (json!({"lookup": {"true": "bot", "7": 1}}), json!(7), json!(1)),
            (json!({"lookup": {"true": "bot"}}), json!("other"), Value::Null),
            (json!({"groups": {"eu": ["DE", "FR"], "us": ["US"]}}), json!("FR"), json!("eu")),
            (json!({"null_if": ["-", 0]}), json!("-"), Value::Null),
            (json!({"null_if": ["-", 0]}), json!(0), Value::Null),
            (json!({"null_if": ["-"]}), json!(5), json!(5)),
            (json!("lower"), Value::Null, Value::Null),
        ];
        for (spec, input, expected) in cases {
            assert_eq!(apply(spec.clone(), input.clone()), Ok(expected), "{spec} of {input}");
        }
    }

    #[test]
    fn dates_become_utc() {
        let log = json!({"date_format": "%d/%b/%Y:%H:%M:%S %z"});
        assert_eq!(apply(log.clone(), json!("17/May/2015:10:05:03 +0200")), Ok(json!("2015-05-17T08:05:03Z")));
        let local = json!({"date_format": "%Y-%m-%d %H:%M:%S%.f"});
        assert_eq!(apply(local, json!("2024-02-29 23:59:59.25")), Ok(json!("2024-02-29T23:59:59.250Z")));
        assert_eq!(apply(json!({"date_format": "%d.%m.%Y"}), json!("01.02.2024")), Ok(json!("2024-02-01T00:00:00Z")));
        assert_eq!(apply(json!({"date_format": "%s"}), json!(1_700_000_000)), Ok(json!("2023-11-14T22:13:20Z")));
        assert_eq!(apply(log.clone(), json!("")), Ok(Value::Null));
        let message = apply(log, json!("17/May/2015:25:05:03 +0200")).unwrap_err();
        assert!(message.contains("17/May/2015:25") && message.contains("%d/%b"), "{message}");
    }

    #[test]
    fn refuses_what_does_not_fit() {
        assert!(apply(json!("number"), json!("12a")).unwrap_err().contains("\"12a\" is not a number"));
        assert!(apply(json!("number"), json!("NaN")).is_err());
        assert!(apply(json!("boolean"), json!("maybe")).is_err());
        assert!(apply(json!("trim"), json!([1])).unwrap_err().contains("an array"));
        assert!(step(json!({"replace": {"pattern": "(", "with": ""}})).is_err());
        assert!(step(json!({"replace": {"pattern": "a", "with": "", "flags": "i"}})).unwrap_err().contains("flags"));
        assert!(step(json!({"date_format": "%Q!"})).is_err());
        assert!(step(json!({"groups": {"a": ["x"], "b": ["x"]}})).unwrap_err().contains("twice"));
        assert!(step(json!("reverse")).unwrap_err().contains("reverse"));
    }
}
