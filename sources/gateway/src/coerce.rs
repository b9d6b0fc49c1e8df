//! One field's JSON text read by the rule of its [`FieldType`].
//!
//! The rules are those the worker applies to what it reads from Kafka: what passes here is not
//! quarantined there for its type.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use companyos_schemas::{FieldType, field::MAX_IDENTIFIER_BYTES, quarantine::Reason};

/// A field's value as far as the gateway needs it.
#[derive(Debug, PartialEq)]
pub enum Value<'a> {
    /// `null`, or a text of nothing but white space: counts as absent.
    Blank,
    /// A normalized text.
    Text(Cow<'a, str>),
    /// An instant.
    Time(DateTime<Utc>),
    /// Right, and of no further interest.
    Other,
}

/// Why a value is not of its type.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub reason: Reason,
    pub detail: String,
}

/// Reads `raw` (checked JSON text of one value) as `ty`.
pub fn coerce(ty: FieldType, raw: &str) -> Result<Value<'_>, Mismatch> {
    if raw == "null" {
        return Ok(Value::Blank);
    }
    match ty {
        FieldType::Json => Ok(Value::Other),
        FieldType::Identifier => text(raw, "a string").and_then(identifier),
        FieldType::Text => Ok(blank_or(trimmed(text(raw, "a string")?))),
        FieldType::Enum(words) => word(text(raw, "a string")?, words),
        FieldType::Float => {
            number(raw, "a finite number", |n| n.parse::<f64>().ok().filter(|v| v.is_finite()).is_some())
        }
        FieldType::Integer => number(raw, "an integer of 64 bits", is_integer),
        FieldType::Timestamp => timestamp(raw),
    }
}

fn wrong_type(expected: &str) -> Mismatch {
    Mismatch { reason: Reason::WrongType, detail: format!("must be {expected}") }
}

fn invalid(detail: String) -> Mismatch {
    Mismatch { reason: Reason::InvalidValue, detail }
}

fn text<'a>(raw: &'a str, expected: &str) -> Result<Cow<'a, str>, Mismatch> {
    let inner = raw.strip_prefix('"').and_then(|r| r.strip_suffix('"')).ok_or_else(|| wrong_type(expected))?;
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    serde_json::from_str::<String>(raw)
        .map(Cow::Owned)
        .map_err(|_| Mismatch { reason: Reason::InvalidJson, detail: "has an invalid escape".to_owned() })
}

fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(t) => Cow::Borrowed(t.trim()),
        Cow::Owned(t) if t.trim().len() == t.len() => Cow::Owned(t),
        Cow::Owned(t) => Cow::Owned(t.trim().to_owned()),
    }
}

fn blank_or(text: Cow<'_, str>) -> Value<'_> {
    if text.is_empty() { Value::Blank } else { Value::Text(text) }
}

fn identifier(text: Cow<'_, str>) -> Result<Value<'_>, Mismatch> {
    let mut text = trimmed(text);
    if !text.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        text = Cow::Owned(text.to_lowercase());
    }
    if text.len() > MAX_IDENTIFIER_BYTES {
        return Err(invalid(format!("is {} bytes long; at most {MAX_IDENTIFIER_BYTES} are allowed", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid("holds a control character".to_owned()));
    }
    Ok(blank_or(text))
}

fn word<'a>(text: Cow<'a, str>, words: &[&str]) -> Result<Value<'a>, Mismatch> {
    if text.trim().is_empty() {
        return Ok(Value::Blank);
    }
    match words.iter().any(|word| word.eq_ignore_ascii_case(text.trim())) {
        true => Ok(Value::Text(text)),
        false => Err(invalid(format!("must be one of {}", words.join(", ")))),
    }
}

fn number<'a>(raw: &'a str, expected: &str, fits: impl Fn(&str) -> bool) -> Result<Value<'a>, Mismatch> {
    let quoted = raw.starts_with('"');
    let digits = match quoted {
        true => trimmed(text(raw, expected)?),
        false => Cow::Borrowed(raw),
    };
    if quoted && digits.is_empty() {
        return Ok(Value::Blank);
    }
    match is_number(&digits) && fits(&digits) {
        true => Ok(Value::Other),
        false => Err(wrong_type(expected)),
    }
}

/// Rust also parses "inf", "NaN" and "1."; JSON's own grammar is the rule, inside a string too.
fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()
}

/// `7.0` is an integer, as JSON Schema sees it; `7e0` is not.
fn is_integer(number: &str) -> bool {
    let whole = number
        .split_once('.')
        .map_or(Some(number), |(whole, fraction)| fraction.bytes().all(|b| b == b'0').then_some(whole));
    whole.is_some_and(|whole| whole.parse::<i64>().is_ok())
}

fn timestamp(raw: &str) -> Result<Value<'_>, Mismatch> {
    const EXPECTED: &str = "an RFC 3339 time with an offset, or epoch seconds, milliseconds or microseconds";
    let number = match raw.starts_with('"') {
        true => {
            let text = trimmed(text(raw, EXPECTED)?);
            if text.is_empty() {
                return Ok(Value::Blank);
            }
            if let Ok(time) = DateTime::parse_from_rfc3339(&text) {
                return Ok(Value::Time(time.with_timezone(&Utc)));
            }
            if !is_number(&text) {
                return Err(invalid(format!("must be {EXPECTED}")));
            }
            text
        }
        false if is_number(raw) => Cow::Borrowed(raw),
        false => return Err(wrong_type(EXPECTED)),
    };
    let micros = match number.parse::<i64>() {
        Ok(whole) => i128::from(whole) * unit_micros(whole.unsigned_abs() as f64)?,
        Err(_) => {
            let value = number.parse::<f64>().map_err(|_| wrong_type(EXPECTED))?;
            (value * unit_micros(value.abs())? as f64).round() as i128
        }
    };
    i64::try_from(micros)
        .ok()
        .and_then(DateTime::from_timestamp_micros)
        .map(Value::Time)
        .ok_or_else(|| invalid("is no time on the calendar".to_owned()))
}

/// Microseconds in the unit an epoch number of this magnitude counts: below 10^11 seconds (until
/// the year 5138), below 10^14 milliseconds, below 10^17 microseconds.
fn unit_micros(magnitude: f64) -> Result<i128, Mismatch> {
    match magnitude {
        m if m < 1e11 => Ok(1_000_000),
        m if m < 1e14 => Ok(1_000),
        m if m < 1e17 => Ok(1),
        _ => Err(invalid("is too large for epoch microseconds".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(ty: FieldType, raw: &str) -> Option<Reason> {
        coerce(ty, raw).err().map(|m| m.reason)
    }

    #[test]
    fn epoch_units_are_told_apart_by_magnitude() {
        let expected = DateTime::parse_from_rfc3339("2026-01-02T03:04:05Z").unwrap().with_timezone(&Utc);
        let texts = [
            "1767323045",
            "1767323045000",
            "1767323045000000",
            "1767323045.0",
            "\"2026-01-02T03:04:05Z\"",
            "\"2026-01-02T05:04:05+02:00\"",
            "\"1767323045\"",
            "\" 2026-01-01t22:04:05-05:00 \"",
        ];
        for raw in texts {
            assert_eq!(coerce(FieldType::Timestamp, raw), Ok(Value::Time(expected)), "{raw}");
        }
        for raw in ["true", "{}"] {
            assert_eq!(reason(FieldType::Timestamp, raw), Some(Reason::WrongType), "{raw}");
        }
        let invalid =
            ["\"yesterday\"", "\"2026-13-01T00:00:00Z\"", "\"2026-01-01T00:00:00\"", "1e300", "99999999999999999999"];
        for raw in invalid {
            assert_eq!(reason(FieldType::Timestamp, raw), Some(Reason::InvalidValue), "{raw}");
        }
    }

    #[test]
    fn identifiers_are_trimmed_and_folded() {
        let read = |raw| coerce(FieldType::Identifier, raw);
        assert_eq!(read("\"  ALPHA\\t\""), Ok(Value::Text("alpha".into())));
        assert_eq!(read("\"\\u0041\""), Ok(Value::Text("a".into())));
        assert_eq!(read("\"  \""), Ok(Value::Blank));
        assert_eq!(reason(FieldType::Identifier, &format!("\"{}\"", "a".repeat(257))), Some(Reason::InvalidValue));
        assert_eq!(reason(FieldType::Identifier, "\"a\\u0000b\""), Some(Reason::InvalidValue));
        assert_eq!(reason(FieldType::Identifier, "7"), Some(Reason::WrongType));
        assert_eq!(reason(FieldType::Identifier, "\"\\ud800\""), Some(Reason::InvalidJson));
    }

    #[test]
    fn numbers_may_be_quoted_but_must_be_finite_and_fit() {
        for raw in ["1.5", "\"1.5\"", "-1e3", "7"] {
            assert_eq!(coerce(FieldType::Float, raw), Ok(Value::Other), "{raw}");
        }
        for raw in ["1e999", "\"NaN\"", "\"inf\"", "\"1.\"", "true", "\"[1]\""] {
            assert_eq!(reason(FieldType::Float, raw), Some(Reason::WrongType), "{raw}");
        }
        for raw in ["3002", "\"-3\"", "7.0"] {
            assert_eq!(coerce(FieldType::Integer, raw), Ok(Value::Other), "{raw}");
        }
        for raw in ["1.5", "1e3", "9223372036854775808", "\"+3\"", "[]"] {
            assert_eq!(reason(FieldType::Integer, raw), Some(Reason::WrongType), "{raw}");
        }
    }
}
