//! CloudEvents 1.0 to our envelope. Every source that reads CloudEvents follows this rule, so that
//! an event becomes the same row whichever door it came through.
//!
//! 1. **Attributes.** Structured mode: the members of the object except `data`. Binary mode: the
//!    `ce-*` headers without the prefix, percent-decoded, every value a string; the body is `data`.
//! 2. **Required.** `specversion` must be the string `1.0`; `id`, `source` and `type` must be
//!    strings that are not blank. Anything else is `invalid_cloud_event`. `source` and `type` are
//!    checked only: the envelope has its own words for them.
//! 3. **Data.** `data` must be JSON. `data_base64`, and in binary mode a `Content-Type` that is not
//!    `application/json` or `…+json`, is `invalid_cloud_event`. No data (or an empty binary body)
//!    means no payload.
//! 4. **Enveloped data.** If `data` is an object that has all of `tenant`, `env` and `region` as
//!    members, `data` is the event, byte for byte. Where its `event_id` is absent or `null` it gets
//!    `id`; where its `occurred_at` is absent or `null` it gets `time`. Other attributes are ignored.
//! 5. **Plain data.** Otherwise `data` is the event's `payload`, byte for byte; `id` becomes
//!    `event_id`, `time` becomes `occurred_at`, and every other field of the stream is taken from
//!    the attribute of its name without underscores (`pii_classification` from
//!    `piiclassification`, `payload_hash` from `payloadhash`, `tenant` from `tenant`, …), because
//!    attribute names may hold only `a-z` and `0-9`. Other attributes are ignored.
//! 6. **Time.** Without `time` (absent or `null`), the receive time stands for it; behind Kafka that
//!    is the record's timestamp.
//! 7. The result is then judged like any event. It may not be a CloudEvent itself.
//!
//! An object is also taken for a structured CloudEvent, whatever its media type, if it has all of
//! `specversion`, `id`, `source` and `type`. An attribute that stands twice is `duplicate_field`.

use std::{borrow::Cow, collections::HashMap};

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use chrono::SecondsFormat;
use companyos_schemas::{Stream, quarantine::Reason};
use percent_encoding::percent_decode;
use serde_json::value::RawValue;

use crate::{
    event::{Refusal, Rules, checked_text, no_object},
    members::members,
    splice::set_member,
};

/// Attribute names and the JSON text of their values.
type Attributes<'a> = HashMap<String, Cow<'a, str>>;

/// Attributes every CloudEvent has; an object with all of them is one.
pub const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];
/// Prefix of attribute headers in binary mode.
const PREFIX: &str = "ce-";

/// Whether a request that is not structured carries a CloudEvent in its headers.
pub fn is_binary(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(PREFIX))
}

/// The event inside a structured CloudEvent.
pub fn structured(raw: &[u8], rules: &Rules<'_>) -> Result<Bytes, Refusal> {
    let text = checked_text(raw, rules.max_depth)?;
    let mut attributes = Attributes::new();
    for (name, value) in members(text, |name| Some(name.to_owned())).map_err(no_object)? {
        insert(&mut attributes, name, Cow::Borrowed(value))?;
    }
    if attributes.remove("data_base64").is_some_and(|v| v != "null") {
        return Err(invalid("data_base64", "data_base64 is not supported; send JSON in data"));
    }
    let data = match attributes.remove("data") {
        Some(Cow::Borrowed(data)) if data != "null" => Some(data),
        _ => None,
    };
    envelope(attributes, data, rules)
}

/// The event inside a binary-mode CloudEvent.
pub fn binary(headers: &HeaderMap, body: &[u8], rules: &Rules<'_>) -> Result<Bytes, Refusal> {
    let mut attributes = Attributes::new();
    for (header, value) in headers {
        let Some(name) = header.as_str().strip_prefix(PREFIX) else { continue };
        let decoded = percent_decode(value.as_bytes()).decode_utf8().map_err(|_| {
            Refusal::event(Reason::InvalidUtf8, None, format!("header {header} is not percent-encoded UTF-8"))
        })?;
        let quoted = serde_json::Value::from(decoded.into_owned()).to_string();
        insert(&mut attributes, name.to_owned(), Cow::Owned(quoted))?;
    }
    if body.trim_ascii().is_empty() {
        return envelope(attributes, None, rules);
    }
    if !is_json(headers) {
        return Err(invalid("datacontenttype", "Content-Type must be application/json or end in +json"));
    }
    let text = checked_text(body, rules.max_depth)?;
    // Checked by itself: text such as `1,"tenant":"x"` must not become members of the event.
    let data = serde_json::from_str::<&RawValue>(text).map_err(|e| {
        let detail = format!("data is not JSON at line {}, column {}", e.line(), e.column());
        Refusal::event(Reason::InvalidJson, Some("payload"), detail)
    })?;
    envelope(attributes, Some(data.get()), rules)
}

fn insert<'a>(attributes: &mut Attributes<'a>, name: String, value: Cow<'a, str>) -> Result<(), Refusal> {
    match attributes.insert(name.clone(), value) {
        None => Ok(()),
        Some(_) => Err(Refusal::event(Reason::DuplicateField, None, format!("attribute {name:?} stands twice"))),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

fn invalid(field: &'static str, detail: &str) -> Refusal {
    Refusal::event(Reason::InvalidCloudEvent, Some(field), detail)
}

fn envelope(mut attributes: Attributes<'_>, data: Option<&str>, rules: &Rules<'_>) -> Result<Bytes, Refusal> {
    require(&attributes)?;
    if attributes.get("time").is_none_or(|time| time == "null") {
        let received_at = rules.now.to_rfc3339_opts(SecondsFormat::Micros, true);
        attributes.insert("time".to_owned(), Cow::Owned(format!("\"{received_at}\"")));
    }
    match data.map(|d| (d, scope_of(d))) {
        Some((data, Some(found))) => Ok(enveloped(&attributes, data, &found)),
        Some((data, None)) => Ok(plain(&attributes, Some(data), rules.stream)),
        None => Ok(plain(&attributes, None, rules.stream)),
    }
}

fn require(attributes: &Attributes<'_>) -> Result<(), Refusal> {
    let text = |name| attributes.get(name).and_then(|raw| serde_json::from_str::<String>(raw).ok()).unwrap_or_default();
    if text("specversion") != "1.0" {
        return Err(invalid("specversion", "specversion must be \"1.0\""));
    }
    for name in &REQUIRED[1..] {
        if text(name).trim().is_empty() {
            return Err(invalid(name, "a CloudEvent needs id, source and type as strings that are not blank"));
        }
    }
    Ok(())
}

/// The members of enveloped data that matter here, or none if `data` is plain.
fn scope_of(data: &str) -> Option<Vec<(&'static str, &str)>> {
    const NAMES: [&str; 5] = ["tenant", "env", "region", "event_id", "occurred_at"];
    if !data.starts_with('{') {
        return None;
    }
    let found = members(data, |name| NAMES.into_iter().find(|n| *n == name)).ok()?;
    NAMES[..3].iter().all(|name| found.iter().any(|(n, _)| n == name)).then_some(found)
}

fn enveloped(attributes: &Attributes<'_>, data: &str, found: &[(&'static str, &str)]) -> Bytes {
    let mut event = data.to_owned();
    for (field, attribute) in [("event_id", "id"), ("occurred_at", "time")] {
        let present: Vec<&str> = found.iter().filter(|(n, _)| *n == field).map(|(_, v)| *v).collect();
        let Some(default) = attributes.get(attribute) else { continue };
        match present[..] {
            [] => event = set_member(&event, field, default, None),
            // Read again: an earlier addition has moved the text.
            ["null"] => {
                let null = members(&event, |n| (n == field).then_some(())).unwrap_or_default();
                event = set_member(&event, field, default, null.first().map(|(_, v)| *v));
            }
            _ => {}
        }
    }
    event.into()
}

fn plain(attributes: &Attributes<'_>, data: Option<&str>, stream: Stream) -> Bytes {
    let values = stream.fields().iter().filter_map(|field| {
        let value = match field.name {
            "event_id" => attributes.get("id").map(Cow::as_ref),
            "occurred_at" => attributes.get("time").map(Cow::as_ref),
            "payload" => data,
            name => attributes.get(&name.replace('_', "")).map(Cow::as_ref),
        };
        value.map(|value| format!("\"{}\":{value}", field.name))
    });
    format!("{{{}}}", values.collect::<Vec<_>>().join(",")).into()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use serde_json::{Value, json};

    use super::*;
    use crate::event::{Cause, tests::with_rules};

    fn from_structured(event: &Value) -> Result<Value, Refusal> {
        with_rules(Stream::ProductEvents, |rules| structured(event.to_string().as_bytes(), rules))
            .map(|b| serde_json::from_slice(&b).unwrap())
    }

    fn from_binary(headers: &HeaderMap, body: &[u8]) -> Result<Bytes, Refusal> {
        with_rules(Stream::ProductEvents, |rules| binary(headers, body, rules))
    }

    fn attributes() -> Value {
        json!({
            "specversion": "1.0", "id": "c-1", "source": "/shop", "type": "shop.export", "time": "2026-01-01T00:00:00Z",
            "tenant": "alpha", "env": "prod", "region": "eu", "role": "admin", "feature": "export", "client": "web/1",
            "piiclassification": "none", "payloadhash": "sha256:ab", "userid": "u-1", "other": 1,
        })
    }

    #[test]
    fn plain_data_becomes_the_payload_and_attributes_the_fields() {
        let mut event = attributes();
        event["data"] = json!({"clicks": 2});
        let expected = json!({
            "event_id": "c-1", "occurred_at": "2026-01-01T00:00:00Z", "tenant": "alpha", "user_id": "u-1", "role": "admin",
            "feature": "export", "region": "eu", "env": "prod", "client": "web/1", "pii_classification": "none",
            "payload_hash": "sha256:ab", "payload": {"clicks": 2},
        });
        assert_eq!(from_structured(&event).unwrap(), expected);
        event["time"] = Value::Null;
        assert_eq!(from_structured(&event).unwrap()["occurred_at"], "2026-06-01T12:00:00.000000Z");
    }

    #[test]
    fn enveloped_data_is_the_event_with_id_and_time_as_defaults() {
        let mut event = attributes();
        event["data"] = json!({"tenant": "beta", "env": "dev", "region": "us", "feature": "search", "event_id": null});
        let mut expected = event["data"].clone();
        expected["event_id"] = json!("c-1");
        expected["occurred_at"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(from_structured(&event).unwrap(), expected);
        event["data"]["event_id"] = json!("own");
        event["data"]["occurred_at"] = json!(1);
        assert_eq!(from_structured(&event).unwrap(), event["data"]);
    }

    #[test]
    fn missing_attributes_and_binary_data_are_refused_by_name() {
        for name in ["id", "source", "type", "specversion"] {
            for value in [Value::Null, json!(" "), json!(1)] {
                let mut event = attributes();
                event[name] = value;
                let refusal = from_structured(&event).unwrap_err();
                assert_eq!((refusal.cause, refusal.field), (Cause::Event(Reason::InvalidCloudEvent), Some(name)));
            }
        }
        let mut event = attributes();
        event["data_base64"] = json!("AA==");
        assert_eq!(from_structured(&event).unwrap_err().field, Some("data_base64"));
        let twice = attributes().to_string().replacen('{', r#"{"id":"x","#, 1);
        let refusal = with_rules(Stream::ProductEvents, |rules| structured(twice.as_bytes(), rules)).unwrap_err();
        assert_eq!(refusal.cause, Cause::Event(Reason::DuplicateField));
    }

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in attributes().as_object().unwrap() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let name = HeaderName::from_bytes(format!("ce-{name}").as_bytes()).unwrap();
            headers.insert(name, HeaderValue::from_str(&text).unwrap());
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        headers
    }

    #[test]
    fn binary_mode_gives_the_same_event_as_structured_mode() {
        let mut event = attributes();
        event["data"] = json!([1, {"a": "b"}]);
        let mut headers = headers();
        headers.insert("ce-client", HeaderValue::from_static("web%201%22%C3%A9"));
        event["client"] = json!("web 1\"é");
        let bytes = from_binary(&headers, b" [1,{\"a\":\"b\"}]\n").unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), from_structured(&event).unwrap());
    }

    #[test]
    fn binary_data_cannot_smuggle_members_into_the_event() {
        let refusal = from_binary(&headers(), br#"1,"tenant":"beta""#).unwrap_err();
        assert_eq!(refusal.cause, Cause::Event(Reason::InvalidJson));
        let mut plain_text = headers();
        plain_text.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        let refusal = from_binary(&plain_text, b"1").unwrap_err();
        assert_eq!(refusal.field, Some("datacontenttype"));
    }
}
