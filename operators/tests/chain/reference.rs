//! The contract's reading of an event, written a second time: slowly, over serde_json values, with
//! chrono for times. It shares nothing with the decoder but the field table.

use std::{collections::BTreeMap, fmt};

use companyos_schemas::{FieldType, Stream, field::MAX_IDENTIFIER_BYTES, payload_hash};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, value::RawValue};

use crate::fuzz::tenancy;

/// What must come of one event.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// A row; fields that are null are left out.
    Row(BTreeMap<&'static str, Cell>),
    /// A refusal: reason and field.
    Refused(&'static str, Option<&'static str>),
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Text(String),
    /// Microseconds since 1970.
    Time(i64),
    Integer(i64),
    Float(f64),
    /// JSON by its meaning, not its spelling.
    Json(Value),
}

type Refusal = (&'static str, Option<&'static str>);

/// What must come of an event (JSON text of an object) whose record was written at `timestamp_ms`.
pub fn outcome(stream: Stream, event: &str, timestamp_ms: i64) -> Outcome {
    match row(stream, event, timestamp_ms) {
        Ok(row) => Outcome::Row(row),
        Err((reason, field)) => Outcome::Refused(reason, field),
    }
}

fn row(stream: Stream, event: &str, timestamp_ms: i64) -> Result<BTreeMap<&'static str, Cell>, Refusal> {
    let Members(members) = serde_json::from_str(event).expect("tests generate JSON objects");
    let mut unknown = serde_json::Map::new();
    let mut known: BTreeMap<&str, &RawValue> = BTreeMap::new();
    let mut repeated = None;
    for (name, raw) in &members {
        match stream.fields().iter().find(|field| field.name == name) {
            Some(field) => {
                if known.insert(field.name, raw).is_some() {
                    repeated = repeated.or(Some(field.name));
                }
            }
            None => drop(unknown.insert(name.clone(), value(raw))),
        }
    }
    if let Some(field) = repeated {
        return Err(("duplicate_field", Some(field)));
    }

    let mut row = BTreeMap::new();
    for field in stream.fields() {
        let scope = ["tenant", "env", "region"].contains(&field.name);
        let cell = match known.get(field.name) {
            Some(raw) => read(field.ty, scope, raw).map_err(|reason| (reason, Some(field.name)))?,
            None => None,
        };
        match cell {
            Some(cell) => drop(row.insert(field.name, cell)),
            None if field.required => return Err(("missing_field", Some(field.name))),
            None => {}
        }
    }

    let Some(Cell::Time(occurred_at)) = row.get("occurred_at") else { unreachable!("required") };
    let ahead = occurred_at - timestamp_ms * 1_000;
    if ahead > 600 * 1_000_000 {
        return Err(("clock_skew_future", Some("occurred_at")));
    }
    if -ahead > 400 * 86_400 * 1_000_000 {
        return Err(("clock_skew_past", Some("occurred_at")));
    }
    if let Some(Cell::Text(claimed)) = row.get("payload_hash") {
        let sent = known.get("payload").map_or("null", |raw| raw.get());
        let claimed = format!("sha256:{}", claimed.trim_start_matches("sha256:").to_lowercase());
        let canonical = canonical(&serde_json::from_str(sent).unwrap());
        if claimed != payload_hash::compute(sent) && claimed != payload_hash::compute(&canonical) {
            return Err(("payload_hash_mismatch", Some("payload_hash")));
        }
    }
    if !unknown.is_empty() {
        let mut payload = match row.remove("payload") {
            Some(Cell::Json(Value::Object(payload))) => payload,
            Some(Cell::Json(other)) => [("_value".to_owned(), other)].into_iter().collect(),
            _ => serde_json::Map::new(),
        };
        payload.insert("_unknown".to_owned(), Value::Object(unknown));
        row.insert("payload", Cell::Json(Value::Object(payload)));
    }

    let name = |field| match row.get(field) {
        Some(Cell::Text(name)) => name.as_str(),
        _ => unreachable!("required"),
    };
    let tenancy = tenancy();
    let Some(tenant) = tenancy.tenants.get(name("tenant")) else { return Err(("unknown_tenant", Some("tenant"))) };
    if !tenant.environments.contains(name("env")) {
        return Err(("env_not_allowed", Some("env")));
    }
    if !tenant.regions.contains(name("region")) {
        return Err(("region_not_allowed", Some("region")));
    }
    Ok(row)
}

/// Reads a value by its field's rule; none if it counts as absent.
fn read(ty: FieldType, scope: bool, raw: &RawValue) -> Result<Option<Cell>, &'static str> {
    if ty == FieldType::Json {
        return Ok(Some(value(raw)).filter(|value| !value.is_null()).map(Cell::Json));
    }
    // Numbers by their text: a value would have rounded them.
    let (text, quoted) = match raw.get().as_bytes()[0] {
        b'n' => return Ok(None),
        b'"' => (serde_json::from_str::<String>(raw.get()).unwrap(), true),
        b'-' | b'0'..=b'9' => (raw.get().to_owned(), false),
        _ => return Err("wrong_type"),
    };
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let is_number =
        serde_json::from_str::<&RawValue>(text).is_ok() && text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    let cell = match ty {
        FieldType::Identifier | FieldType::Text | FieldType::Enum(_) if !quoted => return Err("wrong_type"),
        FieldType::Text => Cell::Text(text.to_owned()),
        FieldType::Identifier => {
            let folded: String = text.chars().flat_map(char::to_lowercase).collect();
            let bad = folded.len() > MAX_IDENTIFIER_BYTES
                || folded.chars().any(char::is_control)
                || scope && (folded.contains('/') || folded.contains('\\'));
            if bad {
                return Err("invalid_value");
            }
            Cell::Text(folded)
        }
        FieldType::Enum(words) => {
            let word = text.to_ascii_lowercase();
            if !words.contains(&word.as_str()) {
                return Err("invalid_value");
            }
            Cell::Text(word)
        }
        FieldType::Timestamp => {
            let time = match chrono::DateTime::parse_from_rfc3339(text) {
                Ok(time) if quoted => Some(time.timestamp_micros()),
                _ if is_number => epoch(text),
                _ => None,
            };
            Cell::Time(time.ok_or("invalid_value")?)
        }
        FieldType::Float => {
            let number = text.parse::<f64>().ok().filter(|number| is_number && number.is_finite());
            Cell::Float(number.ok_or("wrong_type")?)
        }
        FieldType::Integer => {
            let whole =
                text.find('.').filter(|dot| text[dot + 1..].chars().all(|c| c == '0')).map_or(text, |dot| &text[..dot]);
            Cell::Integer(whole.parse().ok().filter(|_| is_number).ok_or("wrong_type")?)
        }
        FieldType::Json => unreachable!("read above"),
    };
    Ok(Some(cell))
}

fn epoch(number: &str) -> Option<i64> {
    let value: f64 = number.parse().ok()?;
    let digits = value.abs().log10();
    let factor = match digits {
        d if d < 11.0 => 1_000_000.0,
        d if d < 14.0 => 1_000.0,
        d if d < 17.0 => 1.0,
        _ => return None,
    };
    Some((value * factor).round() as i64)
}

/// RFC 8785 for the values that tests generate: no floats, no escapes beyond JSON's own.
fn canonical(value: &Value) -> String {
    match value {
        Value::Array(values) => format!("[{}]", values.iter().map(canonical).collect::<Vec<_>>().join(",")),
        Value::Object(members) => {
            let sorted: BTreeMap<&String, &Value> = members.iter().collect();
            let members =
                sorted.iter().map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        scalar => scalar.to_string(),
    }
}

fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).expect("tests generate numbers that fit")
}

/// Members in their order, repeated ones included.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}
