//! The quarantine table: what was refused, why, and where it can be found again.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::arrow_schema::{DAY, lineage_fields, timestamp_type};

/// Name of the quarantine table in each region, and of its topic unless configured otherwise.
pub const TABLE: &str = "quarantine";
/// Log of what operators did with quarantined rows (released, purged), beside the table.
pub const ACTIONS_TABLE: &str = "quarantine_actions";
/// Columns that partition the quarantine table.
pub const PARTITION_COLUMNS: [&str; 1] = [DAY];

/// Why a record or an event was refused. The text form is stable: people filter by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The value has no bytes.
    EmptyValue,
    /// The value is not UTF-8.
    InvalidUtf8,
    /// The value is not JSON.
    InvalidJson,
    /// The value is JSON but not an object, an array of objects or a CloudEvent.
    NotAnObject,
    /// Objects and arrays are nested deeper than allowed.
    TooDeep,
    /// The event is larger than allowed.
    TooLarge,
    /// A field of the contract stands twice.
    DuplicateField,
    /// A required field is absent, null or blank.
    MissingField,
    /// A field's value cannot be read as its type.
    WrongType,
    /// A value outside a field's closed set or length.
    InvalidValue,
    /// `occurred_at` is further in the future than clocks may differ.
    ClockSkewFuture,
    /// `occurred_at` is older than events may be.
    ClockSkewPast,
    /// The payload does not have the hash it claims.
    PayloadHashMismatch,
    /// No such tenant.
    UnknownTenant,
    /// The tenant has no such environment.
    EnvNotAllowed,
    /// The tenant's data may not be stored in that region.
    RegionNotAllowed,
    /// A DLP rule said to quarantine.
    DlpPolicy,
    /// A CloudEvent that lacks a required attribute or holds a data type we do not read.
    InvalidCloudEvent,
}

impl Reason {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::EmptyValue => "empty_value",
            Reason::InvalidUtf8 => "invalid_utf8",
            Reason::InvalidJson => "invalid_json",
            Reason::NotAnObject => "not_an_object",
            Reason::TooDeep => "too_deep",
            Reason::TooLarge => "too_large",
            Reason::DuplicateField => "duplicate_field",
            Reason::MissingField => "missing_field",
            Reason::WrongType => "wrong_type",
            Reason::InvalidValue => "invalid_value",
            Reason::ClockSkewFuture => "clock_skew_future",
            Reason::ClockSkewPast => "clock_skew_past",
            Reason::PayloadHashMismatch => "payload_hash_mismatch",
            Reason::UnknownTenant => "unknown_tenant",
            Reason::EnvNotAllowed => "env_not_allowed",
            Reason::RegionNotAllowed => "region_not_allowed",
            Reason::DlpPolicy => "dlp_policy",
            Reason::InvalidCloudEvent => "invalid_cloud_event",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Schema of the quarantine table.
///
/// `payload` is the refused event with personal data masked; `sealed` is the original, encrypted
/// (AES-256-GCM, nonce first) so that a release needs nothing but the table. Both are null where
/// residency forbids keeping the event here: then only Kafka still has it, at the row's offset.
pub fn table_schema() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let mut fields = vec![
        // topic/partition/offset/index: the same refusal twice is the same row.
        text("quarantine_id", false),
        text("stream", false),
        text("reason", false),
        text("rule", true),
        text("field", true),
        text("detail", false),
        text("tenant", true),
        text("env", true),
        text("region", true),
        text("event_id", true),
        Field::new("occurred_at", timestamp_type(), true),
        text("payload", true),
        Field::new("sealed", DataType::Binary, true),
        text("seal_key", true),
        Field::new(DAY, DataType::Date32, false),
    ];
    fields.extend(lineage_fields());
    Arc::new(Schema::new(fields))
}
