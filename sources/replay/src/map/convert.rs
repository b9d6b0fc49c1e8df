//! From a row to the bytes of an event.

use std::{borrow::Cow, fmt};

use companyos_schemas::payload_hash;
use serde::Serialize;
use serde_json::Value;

use super::{
    ReplayMap,
    expression::{Mapped, RowView},
    step::text_of,
};
use crate::{pace::event_time, rows::Row};

/// An event ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Record key.
    pub key: Option<String>,
    /// The envelope as JSON text.
    pub value: Vec<u8>,
    /// `occurred_at` in microseconds since 1970, where it could be read.
    pub occurred_at: Option<i64>,
}

/// Why a row could not be mapped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowProblem {
    /// Field of the envelope concerned; none if the row itself could not be read.
    pub field: Option<&'static str>,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for RowProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field {
            Some(field) => write!(f, "field {field:?}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

/// A map at work on one file.
pub(crate) struct Converter {
    map: ReplayMap,
    file: String,
}

impl Converter {
    /// Maps rows of the file of this name (without folders and compression suffix).
    pub(crate) fn new(map: ReplayMap, file: String) -> Self {
        Self { map, file }
    }

    /// Maps a row.
    pub(crate) fn convert(&self, row: &Row) -> Result<Event, RowProblem> {
        let view = RowView::new(row, &self.file).map_err(|reason| RowProblem { field: None, reason })?;
        let mut value = String::with_capacity(row.raw.len() + 256);
        value.push('{');
        let mut occurred_at = None;
        let mut mapped = Vec::with_capacity(self.map.fields.len());
        for (field, expression) in &self.map.fields {
            let problem = |reason| RowProblem { field: Some(field.name), reason };
            let found = expression.eval(&view).map_err(problem)?;
            match &found {
                Mapped::Missing if field.required => return Err(problem("has no value and no default".to_owned())),
                Mapped::Missing => {}
                Mapped::Value(v) => {
                    if field.name == "occurred_at" {
                        occurred_at = event_time(v);
                    }
                    write_member(&mut value, field.name, &v.to_string());
                }
                Mapped::Json(text) => write_member(&mut value, field.name, text),
            }
            mapped.push(found);
        }
        let payload = self.map.payload.render(&view).map_err(|reason| RowProblem { field: Some("payload"), reason })?;
        if let Some(payload) = &payload {
            write_member(&mut value, "payload", payload);
        }
        let required = || self.map.stream.fields().iter().any(|f| f.name == "payload_hash" && f.required);
        if self.map.computes_hash && (payload.is_some() || required()) {
            // An absent payload is hashed as null.
            let hash = payload_hash::compute(payload.as_deref().unwrap_or("null"));
            write_member(&mut value, "payload_hash", &format!("\"{hash}\""));
        }
        value.push('}');
        Ok(Event { key: self.key(&mapped)?, value: value.into_bytes(), occurred_at })
    }

    fn key(&self, mapped: &[Mapped]) -> Result<Option<String>, RowProblem> {
        let Some(template) = &self.map.key else { return Ok(None) };
        template.render(|index| match &mapped[*index] {
            Mapped::Missing => Ok(Some(Cow::Borrowed(""))),
            Mapped::Json(text) => Ok(Some(Cow::Borrowed(text.as_str()))),
            Mapped::Value(value) => text_of(value).map(Some).map_err(|reason| RowProblem {
                field: Some(self.map.fields[*index].0.name),
                reason: format!("as part of the key: {reason}"),
            }),
        })
    }
}

fn write_member(object: &mut String, name: &str, json: &str) {
    if object.len() > 1 {
        object.push(',');
    }
    object.push_str(&Value::from(name).to_string());
    object.push(':');
    object.push_str(json);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rows::Content;

    const MAP: &str = r#"
stream: product_events
fields:
  event_id: $row_hash
  occurred_at: time
  tenant: { from: channel, then: [slug] }
  user_id: user
  role: { template: "{isRobot}/{isAnonymous}", then: [{ lookup: { true/false: bot, false/true: anonymous } }], default: editor }
  feature: namespace
  region: { from: country, then: [{ groups: { eu-west-1: [DE] } }], default: us-east-1 }
  env: { const: prod }
  client: { const: wikimedia }
  pii_classification: { const: none }
"#;

    fn row(text: &str) -> Row {
        Row { number: 1, line: 1, raw: text.as_bytes().to_vec(), content: Content::Json }
    }

    fn convert(map: &str, text: &str) -> Result<Event, RowProblem> {
        Converter::new(ReplayMap::parse(map).unwrap(), "f".to_owned()).convert(&row(text))
    }

    const ROW: &str = r##"{"time": "2015-09-11T00:46:58.771Z", "channel": "#en.wikipedia", "user": "GEL", "namespace": "Talk",
        "country": null, "isRobot": true, "isAnonymous": false, "added": 36, "page": "A\"b"}"##;

    #[test]
    fn writes_the_envelope_with_a_hash_of_the_payload_as_it_stands() {
        let event = convert(MAP, ROW).unwrap();
        let text = String::from_utf8(event.value.clone()).unwrap();
        let envelope: Value = serde_json::from_slice(&event.value).unwrap();
        for (field, expected) in [
            ("tenant", "en-wikipedia"),
            ("role", "bot"),
            ("region", "us-east-1"),
            ("user_id", "GEL"),
            ("occurred_at", "2015-09-11T00:46:58.771Z"),
        ] {
            assert_eq!(envelope[field], expected, "{field}");
        }
        assert_eq!(envelope["payload"], json!({"added": 36, "page": "A\"b"}));
        let payload = r#"{"added":36,"page":"A\"b"}"#;
        assert!(text.contains(payload));
        assert!(payload_hash::verify(envelope["payload_hash"].as_str().unwrap(), Some(payload)));
        assert_eq!(event.key.unwrap(), format!("en-wikipedia/{}", envelope["event_id"].as_str().unwrap()));
        assert_eq!(event.occurred_at, Some(1_441_932_418_771_000));
        assert_eq!(event.value, convert(MAP, ROW).unwrap().value, "the same row gives the same event");
    }

    #[test]
    fn an_absent_payload_is_hashed_as_null_where_a_hash_is_required() {
        let event = convert(&format!("{MAP}payload: none\n"), ROW).unwrap();
        let envelope: Value = serde_json::from_slice(&event.value).unwrap();
        assert_eq!(envelope.get("payload"), None);
        assert!(payload_hash::verify(envelope["payload_hash"].as_str().unwrap(), None));
    }

    #[test]
    fn names_the_field_that_cannot_be_mapped() {
        let problem = convert(MAP, &ROW.replace("\"namespace\": \"Talk\"", "\"namespace\": \" \"")).unwrap_err();
        assert_eq!(problem.to_string(), "field \"feature\": has no value and no default");
        let problem = convert(MAP, &ROW.replace("\"#en.wikipedia\"", "[1]")).unwrap_err();
        assert_eq!(problem.field, Some("tenant"));
        let problem = convert(MAP, "{\"a\":").unwrap_err();
        assert!(problem.field.is_none() && problem.reason.starts_with("not JSON"), "{problem}");
        assert!(convert(MAP, "[1]").unwrap_err().reason.contains("object"));
    }
}
