//! From a body to the texts of its events, without parsing them: each is judged by itself later,
//! so one that is broken does not take the others with it.

use axum::http::{HeaderMap, header};
use bytes::Bytes;

use crate::{
    cloudevents,
    problem::{self, Problem},
};

/// How the events stand in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyKind {
    /// One JSON object, or an array of them.
    Json,
    /// One JSON object a line.
    NdJson,
    /// One CloudEvent, structured.
    CloudEvent,
    /// An array of structured CloudEvents.
    CloudEventBatch,
    /// One CloudEvent with its attributes in the headers.
    BinaryCloudEvent,
}

impl BodyKind {
    /// Told from `Content-Type`, and for binary CloudEvents from the `ce-*` headers.
    pub fn of(headers: &HeaderMap) -> Result<Self, Box<Problem>> {
        let media_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let mut parts = media_type.split(';').map(|part| part.trim().to_ascii_lowercase());
        let essence = parts.next().unwrap_or_default();
        let charset = parts.find_map(|p| p.strip_prefix("charset=").map(|c| c.trim_matches('"').to_owned()));
        if charset.is_some_and(|c| c != "utf-8") {
            return Err(Problem::new(problem::UNSUPPORTED_MEDIA_TYPE, "The charset must be utf-8.").into());
        }
        match essence.as_str() {
            "application/cloudevents+json" => Ok(Self::CloudEvent),
            "application/cloudevents-batch+json" => Ok(Self::CloudEventBatch),
            _ if cloudevents::is_binary(headers) => Ok(Self::BinaryCloudEvent),
            "application/json" => Ok(Self::Json),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Ok(Self::NdJson),
            _ => Err(Problem::new(
                problem::UNSUPPORTED_MEDIA_TYPE,
                "Content-Type must be application/json, application/x-ndjson, application/cloudevents+json or \
                 application/cloudevents-batch+json.",
            )
            .into()),
        }
    }
}

/// The text of each event, in order; the body is shared, not copied.
pub fn split(kind: BodyKind, body: &Bytes, max_events: usize) -> Result<Vec<Bytes>, Box<Problem>> {
    let trimmed = body.slice_ref(body.trim_ascii());
    let events = match kind {
        BodyKind::BinaryCloudEvent => vec![trimmed],
        BodyKind::CloudEventBatch if trimmed.first() != Some(&b'[') => {
            return Err(broken("a CloudEvents batch must be a JSON array", 0));
        }
        BodyKind::Json | BodyKind::CloudEventBatch if trimmed.first() == Some(&b'[') => {
            split_array(&trimmed, max_events)?
        }
        BodyKind::NdJson => split_lines(&trimmed, max_events)?,
        _ if trimmed.is_empty() => vec![],
        _ => vec![trimmed],
    };
    match events.is_empty() {
        true => Err(Problem::new(problem::INVALID_REQUEST, "The body holds no event.").into()),
        false => Ok(events),
    }
}

fn split_lines(body: &Bytes, max_events: usize) -> Result<Vec<Bytes>, Box<Problem>> {
    let mut events = Vec::new();
    for line in body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        push(&mut events, body.slice_ref(line), max_events)?;
    }
    Ok(events)
}

/// Cuts an array at the commas of its own level. What lies between is not looked into: if each
/// element is JSON by itself, the array was JSON with exactly these elements.
fn split_array(body: &Bytes, max_events: usize) -> Result<Vec<Bytes>, Box<Problem>> {
    let mut events = Vec::new();
    let (mut depth, mut start, mut at) = (0usize, 1usize, 1usize);
    while at < body.len() {
        match body[at] {
            b'"' => at = string_end(body, at)?,
            b'{' | b'[' => depth += 1,
            b']' if depth == 0 => {
                let last = body.slice_ref(body[start..at].trim_ascii());
                if at + 1 != body.len() {
                    return Err(broken("something follows the array", at + 1));
                }
                if last.is_empty() && !events.is_empty() {
                    return Err(broken("a comma with no element behind it", at));
                }
                if !last.is_empty() {
                    push(&mut events, last, max_events)?;
                }
                return Ok(events);
            }
            b'}' | b']' => depth = depth.checked_sub(1).ok_or_else(|| broken("a brace that was never opened", at))?,
            b',' if depth == 0 => {
                let element = body[start..at].trim_ascii();
                if element.is_empty() {
                    return Err(broken("a comma with no element before it", at));
                }
                push(&mut events, body.slice_ref(element), max_events)?;
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    Err(broken("the array is not closed", body.len()))
}

/// Position of the quote that ends the string opened at `open`.
fn string_end(body: &[u8], open: usize) -> Result<usize, Box<Problem>> {
    let mut at = open + 1;
    while at < body.len() {
        match body[at] {
            b'"' => return Ok(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    Err(broken("a string is not closed", open))
}

fn push(events: &mut Vec<Bytes>, event: Bytes, max_events: usize) -> Result<(), Box<Problem>> {
    if events.len() == max_events {
        let detail = format!("At most {max_events} events are allowed in one request.");
        return Err(Problem::new(problem::TOO_LARGE, detail).into());
    }
    events.push(event);
    Ok(())
}

fn broken(what: &str, at: usize) -> Box<Problem> {
    Problem::new(problem::INVALID_REQUEST, format!("The body is not a JSON array: {what}, at byte {at}."))
        .reason("invalid_json")
        .into()
}

#[cfg(test)]
mod tests {
    use proptest::{collection, prelude::*};
    use serde_json::{Value, json};

    use super::*;

    fn cut(kind: BodyKind, body: &str) -> Result<Vec<String>, u16> {
        split(kind, &Bytes::copy_from_slice(body.as_bytes()), 3)
            .map(|events| events.iter().map(|e| String::from_utf8(e.to_vec()).unwrap()).collect())
            .map_err(|p| p.status().as_u16())
    }

    #[test]
    fn one_broken_element_leaves_the_others_alone() {
        let elements = cut(BodyKind::Json, r#" [{"a":"],\"["} , {bad} ,[1]] "#).unwrap();
        assert_eq!(elements, [r#"{"a":"],\"["}"#, "{bad}", "[1]"]);
        assert_eq!(cut(BodyKind::NdJson, "{}\r\n\n nope \n{}").unwrap(), ["{}", "nope", "{}"]);
    }

    #[test]
    fn bodies_that_cannot_be_cut_or_hold_nothing_or_too_much_are_refused() {
        for body in ["[{},]", "[,{}]", "[{}", "[{}]]", "[}]", "[\"", "[\"\\", "[] []", "[]", "", "  "] {
            assert_eq!(cut(BodyKind::Json, body), Err(400), "{body}");
        }
        assert_eq!(cut(BodyKind::Json, "[1,2,3,4]"), Err(413));
        assert_eq!(cut(BodyKind::NdJson, "1\n2\n3\n4"), Err(413));
        assert_eq!(cut(BodyKind::CloudEventBatch, "{}"), Err(400));
    }

    proptest! {
        #[test]
        fn arrays_are_cut_as_a_parser_would(elements in collection::vec("\\PC*", 1..3), pretty in any::<bool>()) {
            let array: Vec<Value> = elements.iter().map(|text| json!({ text.as_str(): [text, {"x": text}] })).collect();
            let text = if pretty { serde_json::to_string_pretty(&array) } else { serde_json::to_string(&array) }.unwrap();
            let cut: Vec<Value> = cut(BodyKind::Json, &text).unwrap().iter().map(|e| serde_json::from_str(e).unwrap()).collect();
            prop_assert_eq!(cut, array);
        }
    }
}
