//! What the chain refuses: why, which event, and whom the event says it belongs to.

use std::borrow::Cow;

use companyos_schemas::quarantine::Reason;

use crate::{
    coerce::{Word, identifier},
    json::Span,
};

/// Why one event is refused. `detail` never holds a value of the event: it may be personal data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reject {
    pub reason: Reason,
    pub rule: Option<Cow<'static, str>>,
    pub field: Option<Cow<'static, str>>,
    pub detail: String,
}

impl Reject {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, rule: None, field: None, detail: detail.into() }
    }

    pub fn of_field(reason: Reason, field: &'static str, detail: impl Into<String>) -> Self {
        Self { field: Some(Cow::Borrowed(field)), ..Self::new(reason, detail) }
    }

    /// Names the rule that refused the event; a release may waive it by that name.
    pub fn by_rule(self, rule: impl Into<Cow<'static, str>>) -> Self {
        Self { rule: Some(rule.into()), ..self }
    }
}

/// Where an event's bytes are in the record log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowSource {
    /// Position of the record in the log.
    pub record: u32,
    /// Position of the event in its record.
    pub index: i32,
    /// The event's text within its record.
    pub span: Span,
}

/// One refused event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub source: RowSource,
    pub reject: Reject,
    pub identity: Identity,
}

/// What a refused event says about itself, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Identity {
    pub tenant: Claim,
    pub env: Claim,
    pub region: Claim,
    pub event_id: Option<String>,
    pub occurred_at: Option<i64>,
}

/// A name an event claims.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Claim {
    /// None.
    #[default]
    Absent,
    /// One.
    Named(String),
    /// Several, or one that cannot be a name.
    Unclear,
}

impl Claim {
    pub fn name(&self) -> Option<&str> {
        match self {
            Claim::Named(name) => Some(name),
            Claim::Absent | Claim::Unclear => None,
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Claim::Absent, claim) | (claim, Claim::Absent) => claim,
            (claim, other) if claim == other => claim,
            _ => Claim::Unclear,
        }
    }

    /// The claim that `text` makes.
    pub fn from_text(text: &str) -> Self {
        let mut folded = String::new();
        match identifier(text, true, &mut folded) {
            Word::Clean => Claim::Named(text.to_owned()),
            Word::Folded => Claim::Named(folded),
            Word::Blank => Claim::Absent,
            Word::Invalid(_) => Claim::Unclear,
        }
    }
}

impl Identity {
    /// Looks for names in bytes that could not be parsed, so that residency holds for them too.
    ///
    /// Any `"region": "…"` counts, however deep; two that differ make the claim unclear.
    pub fn search(bytes: &[u8]) -> Self {
        Self {
            tenant: search(bytes, b"\"tenant\""),
            env: search(bytes, b"\"env\""),
            region: search(bytes, b"\"region\""),
            ..Self::default()
        }
    }

    /// What two readings of the same event say together.
    pub fn and(self, other: Self) -> Self {
        Self {
            tenant: self.tenant.and(other.tenant),
            env: self.env.and(other.env),
            region: self.region.and(other.region),
            event_id: self.event_id.or(other.event_id),
            occurred_at: self.occurred_at.or(other.occurred_at),
        }
    }
}

fn search(bytes: &[u8], key: &[u8]) -> Claim {
    // The keys are lower-case letters, U+0061 to U+007A, and one that is spelled with an escape is
    // not found by its letters.
    let hidden = |escape: &[u8]| memchr::memmem::find(bytes, escape).is_some();
    let mut found = if hidden(b"\\u006") || hidden(b"\\u007") { Claim::Unclear } else { Claim::Absent };
    for at in memchr::memmem::find_iter(bytes, key) {
        let after = bytes.get(at + key.len()..).unwrap_or_default().trim_ascii_start();
        let Some(value) = after.strip_prefix(b":") else { continue };
        let claim = match value.trim_ascii_start().strip_prefix(b"\"") {
            Some(text) => quoted(text),
            None => Claim::Unclear,
        };
        found = found.and(claim);
    }
    found
}

fn quoted(text: &[u8]) -> Claim {
    let end = memchr::memchr2(b'"', b'\\', text).filter(|end| text.get(*end) == Some(&b'"'));
    let name = end.and_then(|end| text.get(..end)).and_then(|name| std::str::from_utf8(name).ok());
    name.map_or(Claim::Unclear, Claim::from_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_names_in_broken_text() {
        let named = |name: &str| Claim::Named(name.to_owned());
        let found = Identity::search(
            br#"{"tenant" : "Alpha","x":bad,"payload":{"region":"us-east-1"},"region":"US-EAST-1 ","env":3"#,
        );
        assert_eq!(found.tenant, named("alpha"));
        assert_eq!(found.region, named("us-east-1"));
        assert_eq!(found.env, Claim::Unclear);
        assert_eq!(Identity::search(br#"{"region":"a","region":"b"#).region, Claim::Unclear);
        assert_eq!(Identity::search(br#"{"region":"a","region":"b"}"#).region, Claim::Unclear);
        assert_eq!(Identity::search(b"{\"region\":\"a\xff\"}").region, Claim::Unclear);
        assert_eq!(Identity::search(br#"{"region":"a\u0062"}"#).region, Claim::Unclear);
        assert_eq!(Identity::search(br#"{"re\u0067ion":"a""#).region, Claim::Unclear);
        assert_eq!(Identity::search(br#"{"tenant":"t","x":"caf\u00e9"#).tenant, named("t"));
        assert_eq!(Identity::search(br#"["region","tenant"]"#), Identity::default());
    }
}
