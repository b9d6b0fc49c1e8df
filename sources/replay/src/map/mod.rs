//! The map: how a file's rows become events of a stream. Grammar in this crate's README.md.

mod convert;
mod expression;
mod path;
mod payload;
mod step;
mod template;

use std::{collections::BTreeMap, path::PathBuf};

use companyos_schemas::{Field, FieldType, Stream};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use convert::RowProblem;
pub(crate) use convert::{Converter, Event};

use self::{expression::Expression, payload::Payload, template::Template};
use crate::rows::{CsvOptions, Format};

/// A map, checked against its stream's contract.
#[derive(Debug, Clone)]
pub struct ReplayMap {
    /// Stream whose events the rows become.
    pub stream: Stream,
    /// Format of the file, where the map says so.
    pub format: Option<Format>,
    /// SHA-256 of the map's text, hex: a checkpoint belongs to one map.
    pub digest: String,
    pub(crate) csv: CsvOptions,
    pub(crate) lines: Option<Regex>,
    fields: Vec<(&'static Field, Expression)>,
    payload: Payload,
    computes_hash: bool,
    key: Option<Template<usize>>,
}

/// Why a map cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The file cannot be read.
    #[error("map {}: {source}", path.display())]
    Read {
        /// The map file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("map: {0}")]
    Yaml(#[from] serde_yaml_ng::Error),
    /// A part of the map is wrong.
    #[error("map, {at}: {reason}")]
    Invalid {
        /// Which part, such as `fields.tenant`.
        at: String,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    stream: String,
    #[serde(default)]
    format: Option<Format>,
    #[serde(default)]
    csv: CsvOptions,
    #[serde(default)]
    lines: Option<LinesSpec>,
    fields: BTreeMap<String, Value>,
    #[serde(default)]
    payload: Option<Value>,
    #[serde(default)]
    payload_hash: Option<HashSpec>,
    #[serde(default)]
    key: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinesSpec {
    pattern: String,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum HashSpec {
    Computed,
    None,
}

impl ReplayMap {
    /// Reads and checks a map file.
    pub fn load(path: &std::path::Path) -> Result<Self, MapError> {
        let text = std::fs::read_to_string(path).map_err(|source| MapError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Checks a map given as YAML text.
    pub fn parse(text: &str) -> Result<Self, MapError> {
        let value = json_of(serde_yaml_ng::from_str(text)?).map_err(|reason| invalid("document", reason))?;
        let spec: Spec = serde_json::from_value(value).map_err(|e| invalid("document", e.to_string()))?;
        let stream: Stream = spec.stream.parse().map_err(|e| invalid("stream", format!("{e}")))?;
        let lines = match spec.lines {
            Some(lines) => Some(pattern(&lines.pattern).map_err(|reason| invalid("lines.pattern", reason))?),
            None => None,
        };
        spec.csv.check().map_err(|reason| invalid("csv", reason))?;

        let mut fields = Vec::new();
        for (name, expression) in spec.fields {
            let at = format!("fields.{name}");
            let index = stream.field_index(&name).ok_or_else(|| {
                let known: Vec<_> = stream.fields().iter().map(|f| f.name).collect();
                invalid(&at, format!("{stream} has no such field; it has {}", known.join(", ")))
            })?;
            let field = &stream.fields()[index];
            if field.name == "payload" {
                return Err(invalid(&at, "what goes into the payload is said under payload, beside fields"));
            }
            let expression = Expression::parse(expression).map_err(|reason| invalid(&at, reason))?;
            check_fixed(field, &expression).map_err(|reason| invalid(&at, reason))?;
            fields.push((index, expression));
        }
        // Events are written in the order of the contract.
        fields.sort_by_key(|(index, _)| *index);
        let fields: Vec<_> = fields.into_iter().map(|(index, e)| (&stream.fields()[index], e)).collect();
        let maps = |name: &str| fields.iter().any(|(field, _)| field.name == name);

        let has_hash = stream.field_index("payload_hash").is_some();
        let computes_hash = match spec.payload_hash {
            Some(HashSpec::Computed) if !has_hash => {
                return Err(invalid("payload_hash", format!("{stream} has no payload_hash")));
            }
            Some(HashSpec::Computed) if maps("payload_hash") => {
                return Err(invalid("payload_hash", "computed here and mapped under fields"));
            }
            Some(wanted) => wanted == HashSpec::Computed,
            None => has_hash && !maps("payload_hash"),
        };
        let supplied = |name: &str| maps(name) || (name == "payload_hash" && computes_hash);
        if let Some(field) = stream.fields().iter().find(|f| f.required && !supplied(f.name)) {
            return Err(invalid(
                "fields",
                format!("{stream} requires {:?}, which the map does not supply", field.name),
            ));
        }

        let payload = Payload::parse(spec.payload, fields.iter().map(|(_, expression)| expression))
            .map_err(|reason| invalid("payload", reason))?;
        let key = match spec.key.as_deref() {
            Some("none") => None,
            text => {
                let slot = |name: &str| match fields.iter().position(|(field, _)| field.name == name) {
                    Some(index) => Ok(index),
                    None => Err(format!("{name:?} is not under fields")),
                };
                let template = Template::parse(text.unwrap_or("{tenant}/{event_id}"), slot);
                Some(template.map_err(|reason| invalid("key", reason))?)
            }
        };
        let digest = hex::encode(Sha256::digest(text.as_bytes()));
        Ok(Self { stream, format: spec.format, digest, csv: spec.csv, lines, fields, payload, computes_hash, key })
    }
}

fn invalid(at: &str, reason: impl Into<String>) -> MapError {
    MapError::Invalid { at: at.to_owned(), reason: reason.into() }
}

fn pattern(text: &str) -> Result<Regex, String> {
    let pattern = Regex::new(text).map_err(|e| e.to_string())?;
    match pattern.capture_names().flatten().next() {
        Some(_) => Ok(pattern),
        None => Err("has no named group, such as (?P<path>…), so a line would have no fields".to_owned()),
    }
}

/// A const or a default outside a closed set would send every such row to quarantine.
fn check_fixed(field: &Field, expression: &Expression) -> Result<(), String> {
    let FieldType::Enum(allowed) = field.ty else { return Ok(()) };
    match expression.fixed_values().find(|value| !value.as_str().is_some_and(|text| allowed.contains(&text))) {
        Some(value) => Err(format!("{value} is none of {}", allowed.join(", "))),
        None => Ok(()),
    }
}

/// YAML as JSON; scalar keys become text, so that `true:` can be a key of a lookup table.
fn json_of(yaml: serde_yaml_ng::Value) -> Result<Value, String> {
    use serde_yaml_ng::Value as Yaml;
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(b) => b.into(),
        Yaml::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => n.into(),
            (None, Some(n)) => n.into(),
            (None, None) => n.as_f64().map_or(Value::Null, Value::from),
        },
        Yaml::String(text) => text.into(),
        Yaml::Sequence(list) => Value::Array(list.into_iter().map(json_of).collect::<Result<_, _>>()?),
        Yaml::Mapping(entries) => {
            let mut map = serde_json::Map::new();
            for (key, value) in entries {
                let key = match key {
                    Yaml::String(text) => text,
                    Yaml::Bool(b) => b.to_string(),
                    Yaml::Number(n) => n.to_string(),
                    _ => return Err("a key is neither text, number nor boolean".to_owned()),
                };
                if map.contains_key(&key) {
                    return Err(format!("key {key:?} stands twice"));
                }
                map.insert(key, json_of(value)?);
            }
            Value::Object(map)
        }
        Yaml::Tagged(tagged) => return Err(format!("unknown YAML tag {}", tagged.tag)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
stream: sli_metrics
fields:
  event_id: $row_hash
  occurred_at: t
  tenant: { const: acme }
  service: s
  env: { const: prod }
  region: { const: eu-west-1 }
  sli_type: { const: latency }
  window: { const: 1m }
  value: { from: v, then: [number] }
  objective: { const: 0.99 }
"#;

    fn error(yaml: &str) -> String {
        ReplayMap::parse(yaml).unwrap_err().to_string()
    }

    #[test]
    fn accepts_a_whole_map_and_names_what_is_wrong_in_others() {
        ReplayMap::parse(GOOD).unwrap();
        let cases = [
            (GOOD.replace("sli_metrics", "metrics"), "stream: unknown stream"),
            (GOOD.replace("  service: s\n", ""), "requires \"service\""),
            (GOOD.replace("service: s", "servise: s"), "fields.servise"),
            (GOOD.replace("latency", "speed"), "fields.sli_type: \"speed\" is none of availability"),
            (GOOD.replace("[number]", "[nummer]"), "fields.value: unknown variant `nummer`"),
            (GOOD.replace("occurred_at: t", "occurred_at: t..x"), "fields.occurred_at: path \"t..x\""),
            (format!("{GOOD}payload_hash: computed\n"), "sli_metrics has no payload_hash"),
            (format!("{GOOD}keys: x\n"), "unknown field `keys`"),
            (format!("{GOOD}key: '{{user_id}}'\n"), "\"user_id\" is not under fields"),
            (format!("{GOOD}payload: everything\n"), "map, payload:"),
            (format!("{GOOD}format: xml\n"), "unknown variant `xml`"),
            (format!("{GOOD}lines: {{ pattern: '^(.*)$' }}\n"), "no named group"),
            (format!("{GOOD}csv: {{ delimiter: ';;' }}\n"), "map, csv:"),
            (format!("{GOOD}stream: x\n"), "duplicate"),
        ];
        for (yaml, expected) in cases {
            let message = error(&yaml);
            assert!(message.contains(expected), "{expected:?} not in {message:?}");
        }
    }

    #[test]
    fn scalar_keys_of_lookups_are_text() {
        let map = GOOD.replace("service: s", "service: { from: s, then: [{ lookup: { true: a, 1: b, NO: c } }] }");
        ReplayMap::parse(&map).unwrap();
        assert!(
            error(&GOOD.replace("service: s", "service: { from: s, then: [{ lookup: { 1: a, '1': b } }] }"))
                .contains("twice")
        );
    }
}
