//! One field of an event: its name, its type, whether a producer must send it.

/// A field as the contract states it; the single source of the Arrow and JSON schemas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Name in JSON and in the table.
    pub name: &'static str,
    /// How the value is read and stored.
    pub ty: FieldType,
    /// Whether an event without it (or with `null`) is refused.
    pub required: bool,
    /// One sentence for the published schema.
    pub doc: &'static str,
}

impl Field {
    /// A field an event must carry.
    pub const fn required(name: &'static str, ty: FieldType, doc: &'static str) -> Self {
        Self { name, ty, required: true, doc }
    }

    /// A field an event may leave out.
    pub const fn optional(name: &'static str, ty: FieldType, doc: &'static str) -> Self {
        Self { name, ty, required: false, doc }
    }
}

/// How a field's JSON value is coerced and which column holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// A name people type in many ways: trimmed and lower-cased. Utf8, at most 256 bytes.
    Identifier,
    /// An opaque id or free text: trimmed, case kept. Utf8.
    Text,
    /// RFC 3339 with any offset, or epoch seconds, milliseconds or microseconds told apart by
    /// magnitude. Timestamp(µs, UTC).
    Timestamp,
    /// A finite JSON number, or a string holding one. Float64.
    Float,
    /// A JSON integer, or a string holding one. Int64.
    Integer,
    /// One of a closed set of lower-case words. Utf8.
    Enum(&'static [&'static str]),
    /// Any JSON value, kept as its text. Utf8.
    Json,
}

/// Longest identifier accepted, in bytes: it becomes part of object-store paths.
pub const MAX_IDENTIFIER_BYTES: usize = 256;
