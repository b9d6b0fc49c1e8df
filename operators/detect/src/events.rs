//! JSON events as rows of the stream tables, for tests of rules, back tests and simulations.
//!
//! An event may be complete (as on Kafka), or a vendor's record alone (a CloudTrail line, an Okta
//! event), which is then wrapped as evidence of a security signal, or a short form of either: what
//! the contract requires and is missing is filled in.

use std::{sync::Arc, time::Duration};

use arrow::array::{
    ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use chrono::{DateTime, NaiveDate, Utc};
use companyos_schemas::{FieldType, Stream, arrow_schema as columns};
use serde_json::{Map, Value, json};

/// Where and when events belong that do not say so themselves.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// Tenant.
    pub tenant: String,
    /// Environment.
    pub env: String,
    /// Region.
    pub region: String,
    /// Event ids are this and a number.
    pub id_prefix: String,
    /// Time that `at` is relative to.
    pub start: DateTime<Utc>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            tenant: "acme".to_owned(),
            env: "prod".to_owned(),
            region: "eu".to_owned(),
            id_prefix: "event-".to_owned(),
            // A Monday morning, inside the usual change windows.
            start: DateTime::from_timestamp(1_767_607_200, 0).unwrap_or_default(),
        }
    }
}

/// An event that cannot be made a row.
#[derive(Debug, thiserror::Error)]
#[error("event {number}: {problem}")]
pub struct EventError {
    /// Its position, from 0.
    pub number: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// Completes an event. `at` (such as `90s`) becomes `occurred_at`, `stream` chooses the stream,
/// `record` is the vendor's record.
pub fn complete(event: &Value, number: usize, defaults: &Defaults) -> Result<(Stream, Value), EventError> {
    let fail = |problem: String| EventError { number, problem };
    let Value::Object(given) = event else { return Err(fail("is not an object".to_owned())) };
    let mut event = given.clone();
    let stream = match event.remove("stream") {
        Some(Value::String(name)) => name.parse().map_err(|e| fail(format!("{e}")))?,
        Some(_) => return Err(fail("stream is not a name".to_owned())),
        None => Stream::SecuritySignals,
    };
    let at = match event.remove("at") {
        Some(Value::String(at)) => {
            duration(&at).ok_or_else(|| fail(format!("at {at:?} is not a duration such as 90s")))?
        }
        Some(_) => return Err(fail("at is not a duration such as 90s".to_owned())),
        None => Duration::ZERO,
    };
    if stream == Stream::SecuritySignals {
        event = as_signal(event);
    }
    let mut or = |name: &str, value: Value| {
        event.entry(name).or_insert(value);
    };
    or("event_id", json!(format!("{}{number}", defaults.id_prefix)));
    or("occurred_at", json!((defaults.start + at).to_rfc3339()));
    or("tenant", json!(defaults.tenant));
    or("env", json!(defaults.env));
    or("region", json!(defaults.region));
    match stream {
        Stream::SecuritySignals => {
            or("actor", json!("unknown"));
            or("signal_type", json!("signal"));
            or("severity", json!("info"));
            or("evidence", json!({}));
        }
        Stream::AuditEvents => {
            or("actor", json!("unknown"));
            or("resource", json!("unknown"));
            or("outcome", json!("success"));
        }
        Stream::OpsEvents => or("service", json!("unknown")),
        _ => {}
    }
    Ok((stream, Value::Object(event)))
}

/// A vendor's record, bare or under `record`, as a signal.
fn as_signal(mut event: Map<String, Value>) -> Map<String, Value> {
    let record = match event.remove("record") {
        Some(record) => record,
        None if event.contains_key("evidence") || event.contains_key("signal_type") => return event,
        None => Value::Object(std::mem::take(&mut event)),
    };
    let text = |path: &str| record.pointer(path).and_then(Value::as_str).map(str::to_owned);
    let said = event.get("source").and_then(Value::as_str).map(str::to_owned);
    let source = said.as_deref().or_else(|| recognize(&record));
    let (kind, actor, id, time) = match source {
        Some("cloudtrail") => (
            text("/eventName"),
            text("/userIdentity/arn").or_else(|| text("/userIdentity/invokedBy")),
            text("/eventID"),
            text("/eventTime").or_else(|| text("/@timestamp")),
        ),
        Some("okta") => (text("/eventType"), text("/actor/alternateId"), text("/uuid"), text("/published")),
        Some("github") => (text("/action"), text("/actor"), text("/_document_id"), None),
        Some("kubernetes") => (text("/verb"), text("/user/username"), None, text("/requestReceivedTimestamp")),
        Some("openssh") => (Some("sshd".to_owned()), None, None, None),
        _ => (None, None, None, None),
    };
    let given = [("signal_type", kind), ("actor", actor), ("event_id", id), ("occurred_at", time)];
    for (name, value) in given.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        event.entry(name).or_insert(Value::String(value));
    }
    if let Some(source) = source {
        event.entry("source").or_insert(json!(source));
    }
    event.entry("evidence").or_insert(record);
    event
}

fn recognize(record: &Value) -> Option<&'static str> {
    let has = |names: &[&str]| names.iter().all(|name| record.get(name).is_some());
    if has(&["eventSource", "eventName"]) {
        Some("cloudtrail")
    } else if has(&["eventType", "outcome"]) || has(&["eventType", "published"]) {
        Some("okta")
    } else if has(&["verb", "user"]) {
        Some("kubernetes")
    } else if has(&["action", "actor"]) {
        Some("github")
    } else if record.get("message").and_then(Value::as_str).is_some_and(|m| m.contains("sshd")) {
        Some("openssh")
    } else {
        None
    }
}

/// Such as `90s`, `5m`, `2h`, `8d`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

/// Complete events of one stream as rows, at offsets from `offset` on in partition 0 of the topic
/// named as the stream.
pub fn batch(stream: Stream, events: &[Value], offset: usize) -> Result<RecordBatch, EventError> {
    let rows = events.len();
    let mut arrays: Vec<ArrayRef> = Vec::new();
    let mut times = Vec::new();
    for field in stream.fields() {
        let array: ArrayRef = match field.ty {
            FieldType::Timestamp => {
                for (row, event) in events.iter().enumerate() {
                    let time = event.get(field.name).and_then(micros).ok_or_else(|| EventError {
                        number: offset + row,
                        problem: format!("{} is missing or no time", field.name),
                    })?;
                    times.push(time);
                }
                Arc::new(TimestampMicrosecondArray::from(times.clone()).with_timezone("UTC"))
            }
            FieldType::Float => {
                Arc::new(events.iter().map(|e| e.get(field.name).and_then(Value::as_f64)).collect::<Float64Array>())
            }
            FieldType::Integer => {
                Arc::new(events.iter().map(|e| e.get(field.name).and_then(Value::as_i64)).collect::<Int64Array>())
            }
            _ => {
                let text = |event: &Value| match event.get(field.name) {
                    None | Some(Value::Null) => None,
                    Some(Value::String(text)) if field.ty != FieldType::Json => Some(text.clone()),
                    Some(other) => Some(other.to_string()),
                };
                if let Some(row) = events.iter().position(|e| field.required && text(e).is_none()) {
                    return Err(EventError { number: offset + row, problem: format!("{} is missing", field.name) });
                }
                Arc::new(events.iter().map(text).collect::<StringArray>())
            }
        };
        arrays.push(array);
    }
    let day = |micros: &i64| {
        let days = DateTime::from_timestamp_micros(*micros).unwrap_or_default().date_naive() - NaiveDate::default();
        i32::try_from(days.num_days()).unwrap_or_default()
    };
    let count = |row: usize| i64::try_from(row).unwrap_or(i64::MAX);
    arrays.push(Arc::new(Date32Array::from_iter_values(times.iter().map(day))));
    arrays.push(Arc::new(StringArray::from(vec![stream.name(); rows])));
    arrays.push(Arc::new(Int32Array::from(vec![0; rows])));
    arrays.push(Arc::new((0..rows).map(|row| count(offset + row)).collect::<Int64Array>()));
    arrays.push(Arc::new(Int32Array::from(vec![0; rows])));
    arrays.push(Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")));
    for _ in [columns::TRACE_ID, columns::DLP_RULES, columns::ORIGIN] {
        arrays.push(Arc::new(StringArray::new_null(rows)));
    }
    RecordBatch::try_new(columns::table_schema(stream), arrays)
        .map_err(|e| EventError { number: offset, problem: e.to_string() })
}

/// RFC 3339, or epoch seconds, milliseconds or microseconds by their size.
pub(crate) fn micros(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => Some(DateTime::parse_from_rfc3339(text).ok()?.timestamp_micros()),
        Value::Number(number) => {
            let number = number.as_i64()?;
            match number.unsigned_abs() {
                0..100_000_000_000 => number.checked_mul(1_000_000),
                100_000_000_000..100_000_000_000_000 => number.checked_mul(1000),
                _ => Some(number),
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_record_becomes_a_signal() {
        let record = json!({"eventSource": "s3.amazonaws.com", "eventName": "GetObject", "eventID": "x",
            "eventTime": "2026-01-01T00:00:00Z", "userIdentity": {"arn": "a"}});
        let (stream, event) = complete(&record, 3, &Defaults::default()).unwrap();
        assert_eq!(stream, Stream::SecuritySignals);
        assert_eq!(event["signal_type"], "GetObject");
        assert_eq!(event["event_id"], "x");
        assert_eq!(event["evidence"], record);
        assert_eq!(batch(stream, &[event], 0).unwrap().num_rows(), 1);
    }

    #[test]
    fn problems_name_the_event() {
        let error = complete(&json!({"at": "soon"}), 7, &Defaults::default()).unwrap_err();
        assert_eq!(error.to_string(), r#"event 7: at "soon" is not a duration such as 90s"#);
        let error = batch(Stream::AuditEvents, &[json!({"occurred_at": 1})], 4).unwrap_err();
        assert_eq!(error.to_string(), "event 4: event_id is missing");
    }
}
