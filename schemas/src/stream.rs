//! The five event streams and the field table of each.

use std::{fmt, str::FromStr};

use crate::field::{Field, FieldType::*};

/// A kind of event, with a contract and a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// What users did with a feature.
    ProductEvents,
    /// Deployments, incidents, SLO alerts, policy denials.
    OpsEvents,
    /// Service level indicator samples.
    SliMetrics,
    /// Signals for the SOC.
    SecuritySignals,
    /// Who did what to the platform itself.
    AuditEvents,
}

impl Stream {
    /// Every stream, in the order they are documented.
    pub const ALL: [Stream; 5] =
        [Stream::ProductEvents, Stream::OpsEvents, Stream::SliMetrics, Stream::SecuritySignals, Stream::AuditEvents];

    /// Name of the stream, of its table and, unless configured otherwise, of its topic.
    pub const fn name(self) -> &'static str {
        match self {
            Stream::ProductEvents => "product_events",
            Stream::OpsEvents => "ops_events",
            Stream::SliMetrics => "sli_metrics",
            Stream::SecuritySignals => "security_signals",
            Stream::AuditEvents => "audit_events",
        }
    }

    /// Version of the contract below; adding an optional field raises it by one.
    pub const fn version(self) -> u32 {
        1
    }

    /// The contract: every field a producer may send at the top level of an event. Fields not
    /// listed are kept inside `payload`.
    pub const fn fields(self) -> &'static [Field] {
        match self {
            Stream::ProductEvents => PRODUCT_EVENTS,
            Stream::OpsEvents => OPS_EVENTS,
            Stream::SliMetrics => SLI_METRICS,
            Stream::SecuritySignals => SECURITY_SIGNALS,
            Stream::AuditEvents => AUDIT_EVENTS,
        }
    }

    /// Position of a field in [`Stream::fields`].
    pub fn field_index(self, name: &str) -> Option<usize> {
        self.fields().iter().position(|f| f.name == name)
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no stream's.
#[derive(Debug, thiserror::Error)]
#[error(
    "unknown stream {0:?}; expected one of product_events, ops_events, sli_metrics, security_signals, audit_events"
)]
pub struct UnknownStream(pub String);

impl FromStr for Stream {
    type Err = UnknownStream;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Stream::ALL.into_iter().find(|stream| stream.name() == s).ok_or_else(|| UnknownStream(s.to_owned()))
    }
}

/// Classes of personal data an event may declare, least sensitive first.
pub const PII_CLASSIFICATIONS: &[&str] = &["none", "internal", "pseudonymous", "personal", "sensitive"];

/// Severities, least first.
pub const SEVERITIES: &[&str] = &["info", "low", "medium", "high", "critical"];

/// Kinds of indicator an SLI metric may carry.
pub const SLI_TYPES: &[&str] = &["availability", "latency", "error_rate", "throughput", "freshness", "correctness"];

const EVENT_ID: Field =
    Field::required("event_id", Text, "Unique id of the event within its tenant; duplicates are dropped by it.");
const OCCURRED_AT: Field = Field::required("occurred_at", Timestamp, "When it happened, by the producer's clock.");
const TENANT: Field = Field::required("tenant", Identifier, "Tenant the event belongs to.");
const REGION: Field = Field::required("region", Identifier, "Region whose storage may hold the event.");
const ENV: Field = Field::required("env", Identifier, "Environment, such as prod or staging.");
const USER_ID: Field = Field::optional("user_id", Text, "The acting user, if there is one.");
const PAYLOAD: Field = Field::optional(
    "payload",
    Json,
    "The event's own data; unknown top-level fields are kept here under \"_unknown\".",
);
const PAYLOAD_HASH_OPTIONAL: Field =
    Field::optional("payload_hash", Text, "SHA-256 of payload, verified when present.");
const PII_OPTIONAL: Field =
    Field::optional("pii_classification", Enum(PII_CLASSIFICATIONS), "Most sensitive class of personal data inside.");

const PRODUCT_EVENTS: &[Field] = &[
    EVENT_ID,
    OCCURRED_AT,
    TENANT,
    USER_ID,
    Field::required("role", Identifier, "Role the user acted in."),
    Field::required("feature", Identifier, "Feature that was used."),
    REGION,
    ENV,
    Field::required("client", Text, "Client application and version."),
    Field::required("pii_classification", Enum(PII_CLASSIFICATIONS), "Most sensitive class of personal data inside."),
    Field::required(
        "payload_hash",
        Text,
        "SHA-256 of payload (hex, optionally prefixed sha256:), over its bytes as sent or over its RFC 8785 form; verified.",
    ),
    PAYLOAD,
];

const OPS_EVENTS: &[Field] = &[
    EVENT_ID,
    OCCURRED_AT,
    TENANT,
    USER_ID,
    Field::optional("role", Identifier, "Role the user acted in."),
    Field::optional("feature", Identifier, "Feature concerned."),
    REGION,
    ENV,
    Field::optional("client", Text, "Client application and version."),
    PII_OPTIONAL,
    PAYLOAD_HASH_OPTIONAL,
    PAYLOAD,
    Field::required("kind", Identifier, "deployment, incident, slo_alert, policy_denial or another kind of operation."),
    Field::required("service", Identifier, "Service concerned."),
    Field::optional("severity", Enum(SEVERITIES), "How bad it is."),
    Field::optional("deploy_id", Text, "Deployment concerned."),
    Field::optional("commit", Text, "Source revision concerned."),
    Field::optional("maestro_plan", Text, "Plan that led to it."),
    Field::optional("evidence_pack_uri", Text, "Where the evidence lies."),
];

const SLI_METRICS: &[Field] = &[
    EVENT_ID,
    OCCURRED_AT,
    TENANT,
    Field::required("service", Identifier, "Service measured."),
    ENV,
    REGION,
    Field::required("sli_type", Enum(SLI_TYPES), "What is measured."),
    Field::required("window", Text, "Length of the measurement, such as 1m."),
    Field::required("value", Float, "The indicator's value."),
    Field::required("objective", Float, "The value aimed at."),
    Field::optional("good", Float, "Good events in the window."),
    Field::optional("total", Float, "All events in the window."),
    PAYLOAD,
];

const SECURITY_SIGNALS: &[Field] = &[
    EVENT_ID,
    OCCURRED_AT,
    TENANT,
    REGION,
    ENV,
    Field::required("actor", Text, "Who acted."),
    Field::required("signal_type", Identifier, "What was seen."),
    Field::required("severity", Enum(SEVERITIES), "How bad it is."),
    Field::required("evidence", Json, "What supports the signal."),
    Field::optional("lineage", Json, "Where the signal came from."),
    Field::optional("class_uid", Integer, "OCSF class of the event."),
    Field::optional("nonce", Text, "Replay protection."),
    Field::optional("source", Text, "System that sent it."),
    Field::optional("signature", Text, "Signature by the source."),
    PII_OPTIONAL,
    PAYLOAD_HASH_OPTIONAL,
    PAYLOAD,
];

const AUDIT_EVENTS: &[Field] = &[
    EVENT_ID,
    OCCURRED_AT,
    TENANT,
    REGION,
    ENV,
    Field::required("actor", Text, "Who acted."),
    Field::required("action", Identifier, "What was done."),
    Field::required("resource", Text, "What it was done to."),
    Field::required("outcome", Enum(&["success", "failure", "denied"]), "How it ended."),
    Field::optional("reason", Text, "Why."),
    Field::optional("request_id", Text, "Request it belongs to."),
    PII_OPTIONAL,
    PAYLOAD_HASH_OPTIONAL,
    PAYLOAD,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_is_scoped_timed_and_identified() {
        for stream in Stream::ALL {
            for name in ["event_id", "occurred_at", "tenant", "env", "region"] {
                let index = stream.field_index(name).unwrap_or_else(|| panic!("{stream} lacks {name}"));
                assert!(stream.fields()[index].required, "{stream}.{name} must be required");
            }
            assert_eq!(stream.name().parse::<Stream>().ok(), Some(stream));
        }
    }
}
