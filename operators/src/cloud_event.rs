//! CloudEvents 1.0 to our envelope, by the rule the HTTP gateway follows too, so that an event
//! becomes the same row whichever door it came through.
//!
//! 1. **Attributes.** Structured mode: the members of the object except `data`. Binary mode: the
//!    `ce_*` headers without the prefix, every value a string; the record's value is `data`.
//! 2. **Required.** `specversion` must be the string `1.0`; `id`, `source` and `type` must be
//!    strings that are not blank. Anything else is `invalid_cloud_event`. `source` and `type` are
//!    checked only: the envelope has its own words for them.
//! 3. **Data.** `data` must be JSON; `data_base64`, and in binary mode a content type that is not
//!    JSON, is `invalid_cloud_event`. No data means no payload.
//! 4. **Enveloped data.** If `data` is an object that has `tenant`, `env` and `region`, it is the
//!    event, byte for byte. Where its `event_id` is absent or `null` it gets `id`; where its
//!    `occurred_at` is absent or `null` it gets `time`. Other attributes are ignored.
//! 5. **Plain data.** Otherwise `data` is the event's `payload`, byte for byte; `id` becomes
//!    `event_id`, `time` becomes `occurred_at`, and every other field of the stream is taken from
//!    the attribute of its name without underscores. Other attributes are ignored.
//! 6. Without `time`, a record's own timestamp is when the event occurred.
//!
//! An object is taken for a structured CloudEvent if its content type says so or if it has all of
//! `specversion`, `id`, `source` and `type`. An attribute that stands twice is `duplicate_field`.

use companyos_schemas::{Stream, quarantine::Reason};

use crate::{
    coerce::is_blank,
    json::{Kind, Nesting, Node, Scanner, Span, quote_into, unescape_into},
    record::CloudEventHeaders,
    refusal::Reject,
    stage::Stage,
};

/// Members of an object by name, as far as [`Stage`] has sorted them.
struct Attributes<'s, 't> {
    stage: &'s Stage,
    stream: Stream,
    text: &'t str,
}

impl<'t> Attributes<'_, 't> {
    /// The value of an attribute; none if absent or `null`.
    fn get(&self, name: &'static str) -> Result<Option<Node>, Reject> {
        if let Some(field) = self.stream.field_index(name) {
            let cell = self.stage.cell(field);
            return Ok((!matches!(cell.kind, Kind::Absent | Kind::Null)).then_some(cell));
        }
        let mut found = self.stage.unknown().iter().filter(|m| m.key.span.of(self.text) == name);
        let first = found.next();
        if found.next().is_some() {
            return Err(Reject::new(Reason::DuplicateField, format!("attribute {name:?} stands twice")));
        }
        Ok(first.map(|m| m.value).filter(|v| v.kind != Kind::Null))
    }

    /// The attribute that an envelope field is taken from, if the event has it.
    fn get_for_field(&self, field: &'static str) -> Option<&'t str> {
        let wanted = field.bytes().filter(|b| *b != b'_');
        let cell = match self.stream.field_index(field) {
            Some(index) if !field.contains('_') => self.stage.cell(index),
            _ => {
                let is_it = |name: &str| name.bytes().eq(wanted.clone());
                self.stage.unknown().iter().find(|m| is_it(m.key.span.of(self.text)))?.value
            }
        };
        (cell.kind != Kind::Absent).then(|| cell.outer().of(self.text))
    }
}

/// Whether a content type is that of a structured CloudEvent or a batch of them.
pub(crate) fn is_structured(content_type: Option<&str>) -> bool {
    content_type
        .is_some_and(|ty| ty.trim_start().get(..23).is_some_and(|t| t.eq_ignore_ascii_case("application/cloudevents")))
}

/// Whether the staged object has every attribute a CloudEvent must have.
pub(crate) fn looks_like_one(stage: &Stage, stream: Stream, text: &str) -> bool {
    // Events that keep to the contract have nothing unknown and are told apart here.
    if stage.unknown().is_empty() {
        return false;
    }
    let has = |name: &str| {
        stage.unknown().iter().any(|m| m.key.span.of(text) == name)
            || stream.field_index(name).is_some_and(|field| stage.cell(field).kind != Kind::Absent)
    };
    ["specversion", "id", "source", "type"].into_iter().all(has)
}

/// Writes the event inside the staged structured CloudEvent to `out`. `timestamp_ms` is the record's.
pub(crate) fn envelope(
    stage: &Stage,
    stream: Stream,
    text: &str,
    timestamp_ms: Option<i64>,
    out: &mut String,
) -> Result<(), Reject> {
    let attributes = Attributes { stage, stream, text };
    require(&attributes)?;
    if attributes.get("data_base64")?.is_some() {
        return Err(invalid("data_base64", "data_base64 is not supported; send JSON in data"));
    }
    let id = attributes.get("id")?.map(|id| id.outer().of(text));
    let record_time = timestamp_ms.map(|ms| ms.to_string());
    let time = attributes.get("time")?.map(|time| time.outer().of(text)).or(record_time.as_deref());
    let data = attributes.get("data")?;
    out.clear();
    if let Some(data) = data
        && let Some(inner) = Enveloped::of(data, text)
    {
        inner.write(id, time, out);
        return Ok(());
    }
    let mut separator = '{';
    for field in stream.fields() {
        let value = match field.name {
            "event_id" => id,
            "occurred_at" => time,
            "payload" => data.map(|data| data.outer().of(text)),
            name => attributes.get_for_field(name),
        };
        let Some(value) = value else { continue };
        out.push(separator);
        separator = ',';
        out.extend(["\"", field.name, "\":", value]);
    }
    out.push('}');
    Ok(())
}

fn require(attributes: &Attributes<'_, '_>) -> Result<(), Reject> {
    let mut text = String::new();
    for name in ["specversion", "id", "source", "type"] {
        text.clear();
        match attributes.get(name)? {
            Some(Node { kind: Kind::Plain, span }) => text.push_str(span.of(attributes.text)),
            Some(Node { kind: Kind::Escaped, span }) => unescape_into(span.of(attributes.text), &mut text),
            _ => {}
        }
        if name == "specversion" && text != "1.0" {
            return Err(invalid(name, "specversion must be \"1.0\""));
        }
        if is_blank(&text) {
            return Err(invalid(name, "a CloudEvent needs id, source and type as strings that are not blank"));
        }
    }
    Ok(())
}

fn invalid(field: &'static str, detail: &str) -> Reject {
    Reject::of_field(Reason::InvalidCloudEvent, field, detail)
}

/// An envelope inside `data`.
struct Enveloped<'t> {
    object: &'t str,
    /// Where the values of `event_id` and `occurred_at` stand in it, if they do.
    given: [Option<Node>; 2],
}

impl<'t> Enveloped<'t> {
    fn of(data: Node, text: &'t str) -> Option<Self> {
        if data.kind != Kind::Object {
            return None;
        }
        let object = data.span.of(text);
        let mut scope = [false; 3];
        let mut given = [None; 2];
        for (key, value) in members(object) {
            match key.span.of(object) {
                "tenant" => scope[0] = true,
                "env" => scope[1] = true,
                "region" => scope[2] = true,
                "event_id" => given[0] = given[0].or(Some(value)),
                "occurred_at" => given[1] = given[1].or(Some(value)),
                _ => {}
            }
        }
        (scope == [true; 3]).then_some(Self { object, given })
    }

    fn write(&self, id: Option<&str>, time: Option<&str>, out: &mut String) {
        let mut nulls: Vec<(Span, &str)> = Vec::new();
        let mut added = String::new();
        for ((name, value), given) in [("event_id", id), ("occurred_at", time)].into_iter().zip(self.given) {
            match (value, given) {
                (Some(value), None) => added.extend([",\"", name, "\":", value]),
                (Some(value), Some(Node { kind: Kind::Null, span })) => nulls.push((span, value)),
                _ => {}
            }
        }
        nulls.sort_by_key(|(span, _)| span.start);
        // The object has members, so what is added can follow its last one.
        let body = self.object.strip_suffix('}').unwrap_or(self.object);
        let mut copied = 0;
        for (span, value) in nulls {
            out.push_str(body.get(copied..span.start as usize).unwrap_or_default());
            out.push_str(value);
            copied = span.end as usize;
        }
        out.push_str(body.get(copied..).unwrap_or_default());
        out.push_str(&added);
        out.push('}');
    }
}

/// Members of an object that has been scanned before.
fn members(object: &str) -> Vec<(Node, Node)> {
    let mut found = Vec::new();
    let mut nesting = Nesting::default();
    let mut scanner = Scanner::new(object.as_bytes(), 0);
    let mut next = || {
        scanner.advance(1);
        scanner.skip_space();
        let key = scanner.string().ok()?;
        scanner.colon().ok()?;
        let value = scanner.value(&mut nesting).ok()?;
        scanner.skip_space();
        Some((key, value))
    };
    while let Some(member) = next() {
        found.push(member);
    }
    found
}

/// A binary-mode CloudEvent as the structured one it stands for, so that there is one text to judge,
/// to quarantine and to release.
pub(crate) fn from_binary(
    headers: &CloudEventHeaders<'_>,
    content_type: Option<&str>,
    value: &[u8],
) -> (String, Result<(), Reject>) {
    let mut out = String::from("{");
    for (name, value) in &headers.attributes {
        quote_into(name, &mut out);
        out.push(':');
        quote_into(value, &mut out);
        out.push(',');
    }
    let verdict = match value.trim_ascii() {
        [] => {
            if out.ends_with(',') {
                out.pop();
            }
            Ok(())
        }
        data => match json_data(data, content_type) {
            Ok(data) => {
                out.extend(["\"data\":", data]);
                Ok(())
            }
            Err(reject) => {
                out.push_str("\"data_base64\":\"");
                base64::Engine::encode_string(&base64::engine::general_purpose::STANDARD, value, &mut out);
                out.push('"');
                Err(reject)
            }
        },
    };
    out.push('}');
    (out, verdict)
}

/// `data` as text. It is judged by itself: text such as `1,"tenant":"x"` must not become members of
/// the event.
fn json_data<'d>(data: &'d [u8], content_type: Option<&str>) -> Result<&'d str, Reject> {
    let essence = content_type.unwrap_or("application/json").split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    if essence != "application/json" && !essence.ends_with("+json") {
        return Err(invalid("datacontenttype", "the content type must be application/json or end in +json"));
    }
    let text = std::str::from_utf8(data)
        .map_err(|e| Reject::new(Reason::InvalidUtf8, format!("not UTF-8 at byte {} of data", e.valid_up_to())))?;
    let mut scanner = Scanner::new(data, 0);
    let scanned = scanner.value(&mut Nesting::default()).and_then(|_| scanner.end());
    scanned.map_err(|e| Reject::new(Reason::InvalidJson, format!("{} at byte {} of data", e.what, e.at)))?;
    Ok(text)
}
