//! Whether one event may pass, decided from its text alone: the contract of its stream, the scope
//! of the sender's token, residency, clock skew and the payload hash.
//!
//! Pure: the same text, rules and time give the same verdict. What passes keeps its bytes, except
//! that `payload_hash` is added where the stream has one and the sender left it out.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use companyos_schemas::{
    Stream,
    access::Scope,
    payload_hash,
    quarantine::Reason,
    tenancy::{ScopeViolation, Tenancy},
};

use crate::{
    cloudevents,
    coerce::{Value, coerce},
    members::{NoMembers, depth, lone_surrogate, members},
    splice::set_member,
};

/// What an event is held against.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Whose contract.
    pub stream: Stream,
    /// Which tenants, environments and regions there are.
    pub tenancy: &'a Tenancy,
    /// What the sender's token reaches.
    pub scope: &'a Scope,
    /// How far ahead of `now` an event may be.
    pub max_future_skew: Duration,
    /// How far behind `now` an event may be.
    pub max_age: Duration,
    /// Deepest nesting of objects and arrays.
    pub max_depth: usize,
    /// The receive time.
    pub now: DateTime<Utc>,
}

/// An event that may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidEvent {
    /// Its id, trimmed.
    pub event_id: String,
    /// Its tenant, normalized.
    pub tenant: String,
    /// Its region, normalized.
    pub region: String,
    /// Its text, ready for Kafka.
    pub value: Bytes,
}

/// An event that may not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Position in the request, from 0; the caller sets it.
    pub index: usize,
    /// Why.
    pub cause: Cause,
    /// The field at fault.
    pub field: Option<&'static str>,
    /// In words, with positions, but never with values: they may be personal data.
    pub detail: String,
    /// The event's id, if it could be read.
    pub event_id: Option<String>,
}

/// Kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The event breaks its contract, as the worker would find too.
    Event(Reason),
    /// The token does not reach the event.
    Scope,
    /// Kafka did not acknowledge it.
    Undelivered,
}

impl Cause {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Event(reason) => reason.as_str(),
            Cause::Scope => "out_of_scope",
            Cause::Undelivered => "broker_unavailable",
        }
    }
}

impl Refusal {
    /// A refusal for a reason the worker knows too.
    pub fn event(reason: Reason, field: Option<&'static str>, detail: impl Into<String>) -> Self {
        Self { index: 0, cause: Cause::Event(reason), field, detail: detail.into(), event_id: None }
    }
}

/// Judges one event. One that has all that makes a CloudEvent is read as one, whatever it was sent
/// as: the worker will do the same, and must not find another event than was judged here.
pub fn validate(raw: &Bytes, rules: &Rules<'_>) -> Result<ValidEvent, Refusal> {
    let event = Event::read(checked_text(raw, rules.max_depth)?, rules.stream)?;
    if event.is_cloud_event {
        return validate_inner(&cloudevents::structured(raw, rules)?, rules);
    }
    event.judge_and_name(raw, rules)
}

/// Judges the event from inside a CloudEvent.
pub fn validate_inner(raw: &Bytes, rules: &Rules<'_>) -> Result<ValidEvent, Refusal> {
    let event = Event::read(checked_text(raw, rules.max_depth)?, rules.stream)?;
    if event.is_cloud_event {
        let detail = "the data of a CloudEvent may not be a CloudEvent";
        return Err(Refusal::event(Reason::InvalidCloudEvent, Some("data"), detail));
    }
    event.judge_and_name(raw, rules)
}

/// The text of an event or CloudEvent, if it is Unicode and not nested deeper than allowed.
pub fn checked_text(raw: &[u8], max_depth: usize) -> Result<&str, Refusal> {
    if raw.is_empty() {
        return Err(Refusal::event(Reason::EmptyValue, None, "the event has no bytes"));
    }
    let text = std::str::from_utf8(raw).map_err(|e| {
        Refusal::event(Reason::InvalidUtf8, None, format!("byte {} of the event is not UTF-8", e.valid_up_to()))
    })?;
    if depth(text) > max_depth {
        return Err(Refusal::event(Reason::TooDeep, None, format!("nested deeper than {max_depth} levels")));
    }
    if let Some(at) = lone_surrogate(text) {
        let detail = format!("half a surrogate pair is escaped at byte {at} of the event");
        return Err(Refusal::event(Reason::InvalidJson, None, detail));
    }
    Ok(text)
}

/// The refusal for a text that is not a JSON object.
pub fn no_object(error: NoMembers) -> Refusal {
    match error {
        NoMembers::Syntax { line, column } => {
            Refusal::event(Reason::InvalidJson, None, format!("not JSON at line {line}, column {column} of the event"))
        }
        NoMembers::NotAnObject => Refusal::event(Reason::NotAnObject, None, "the event must be a JSON object"),
    }
}

/// An event's text and, for each field of the contract, the text of its value.
struct Event<'a> {
    text: &'a str,
    stream: Stream,
    values: Vec<Option<&'a str>>,
    /// Whether it has every attribute a CloudEvent must have.
    is_cloud_event: bool,
}

/// What a member's name means here: a field of the contract, a CloudEvents attribute, or both.
struct Name {
    field: Option<usize>,
    attribute: Option<usize>,
}

impl Name {
    fn of(name: &str, stream: Stream) -> Option<Self> {
        let field = stream.field_index(name);
        let attribute = cloudevents::REQUIRED.iter().position(|required| *required == name);
        (field.is_some() || attribute.is_some()).then_some(Self { field, attribute })
    }
}

impl<'a> Event<'a> {
    fn read(text: &'a str, stream: Stream) -> Result<Self, Refusal> {
        let found = members(text, |name| Name::of(name, stream)).map_err(no_object)?;
        let mut values = vec![None; stream.fields().len()];
        let mut attributes = [false; cloudevents::REQUIRED.len()];
        for (name, value) in found {
            if let Some(attribute) = name.attribute {
                attributes[attribute] = true;
            }
            let Some(index) = name.field else { continue };
            if values[index].replace(value).is_some() {
                let name = stream.fields()[index].name;
                return Err(Refusal::event(Reason::DuplicateField, Some(name), format!("{name} stands twice")));
            }
        }
        Ok(Self { text, stream, values, is_cloud_event: attributes.iter().all(|present| *present) })
    }

    /// The verdict, with the event's id where it can be read.
    fn judge_and_name(&self, raw: &Bytes, rules: &Rules<'_>) -> Result<ValidEvent, Refusal> {
        self.judge(raw, rules).map_err(|refusal| Refusal { event_id: self.text("event_id").ok(), ..refusal })
    }

    fn judge(&self, raw: &Bytes, rules: &Rules<'_>) -> Result<ValidEvent, Refusal> {
        let (tenant, env, region) = (self.text("tenant")?, self.text("env")?, self.text("region")?);
        // Scope first: a stranger to a tenant does not learn whether it exists.
        if !rules.scope.covers(&tenant, &env, &region) {
            return Err(Refusal {
                cause: Cause::Scope,
                ..Refusal::event(Reason::UnknownTenant, None, "the token does not reach this tenant, env and region")
            });
        }
        rules.tenancy.check(&tenant, &env, &region).map_err(|violation| {
            let (reason, field) = match violation {
                ScopeViolation::UnknownTenant => (Reason::UnknownTenant, "tenant"),
                ScopeViolation::EnvNotAllowed => (Reason::EnvNotAllowed, "env"),
                ScopeViolation::RegionNotAllowed => (Reason::RegionNotAllowed, "region"),
            };
            Refusal::event(reason, Some(field), violation.to_string())
        })?;
        for index in 0..self.values.len() {
            self.value(index)?;
        }
        self.check_clock(rules)?;
        Ok(ValidEvent { event_id: self.text("event_id")?, tenant, region, value: self.hashed(raw)? })
    }

    /// The field's value, or a refusal if it is not as the contract says.
    fn value(&self, index: usize) -> Result<Value<'a>, Refusal> {
        let field = &self.stream.fields()[index];
        let value = match self.values[index] {
            None => Value::Blank,
            Some(raw) => coerce(field.ty, raw)
                .map_err(|m| Refusal::event(m.reason, Some(field.name), format!("{} {}", field.name, m.detail)))?,
        };
        // The one required field the gateway fills in.
        if value == Value::Blank && field.required && field.name != "payload_hash" {
            let detail = format!("{} is required and absent, null or blank", field.name);
            return Err(Refusal::event(Reason::MissingField, Some(field.name), detail));
        }
        Ok(value)
    }

    fn named(&self, name: &'static str) -> Result<Value<'a>, Refusal> {
        self.stream.field_index(name).map_or(Ok(Value::Blank), |index| self.value(index))
    }

    fn text(&self, name: &'static str) -> Result<String, Refusal> {
        match self.named(name)? {
            Value::Text(text) => Ok(text.into_owned()),
            _ => Err(Refusal::event(Reason::MissingField, Some(name), format!("{name} is required"))),
        }
    }

    fn check_clock(&self, rules: &Rules<'_>) -> Result<(), Refusal> {
        const FIELD: &str = "occurred_at";
        let Value::Time(at) = self.named(FIELD)? else { return Ok(()) };
        let ahead = at.signed_duration_since(rules.now).to_std().unwrap_or_default();
        let behind = rules.now.signed_duration_since(at).to_std().unwrap_or_default();
        let (reason, by, limit, side) = if ahead > rules.max_future_skew {
            (Reason::ClockSkewFuture, ahead, rules.max_future_skew, "ahead of")
        } else if behind > rules.max_age {
            (Reason::ClockSkewPast, behind, rules.max_age, "behind")
        } else {
            return Ok(());
        };
        let whole = |d: Duration| humantime::format_duration(Duration::from_secs(d.as_secs())).to_string();
        let detail = format!("{FIELD} is {} {side} the receive time; {} is allowed", whole(by), whole(limit));
        Err(Refusal::event(reason, Some(FIELD), detail))
    }

    /// The event's bytes with a payload hash that is right.
    fn hashed(&self, raw: &Bytes) -> Result<Bytes, Refusal> {
        const FIELD: &str = "payload_hash";
        let Some(index) = self.stream.field_index(FIELD) else { return Ok(raw.clone()) };
        let payload = self.stream.field_index("payload").and_then(|i| self.values[i]);
        match self.value(index)? {
            Value::Text(claimed) if payload_hash::verify(&claimed, payload) => Ok(raw.clone()),
            Value::Text(_) => {
                let detail = "payload_hash is not the SHA-256 of payload, as sent or canonical";
                Err(Refusal::event(Reason::PayloadHashMismatch, Some(FIELD), detail))
            }
            _ => {
                let hash = format!("\"{}\"", payload_hash::compute(payload.unwrap_or("null")));
                Ok(set_member(self.text, FIELD, &hash, self.values[index]).into())
            }
        }
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
pub(crate) mod tests;
