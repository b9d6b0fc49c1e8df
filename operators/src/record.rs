//! A record as the source hands it over: borrowed, its headers already picked out.

/// One Kafka record, or something shaped like one.
#[derive(Debug, Clone, Default)]
pub struct Record<'a> {
    /// Offset in its partition.
    pub offset: i64,
    /// The record's own timestamp in milliseconds since 1970; clock skew is judged against it.
    pub timestamp_ms: Option<i64>,
    /// The key, which the chain does not read.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub payload: Option<&'a [u8]>,
    /// The headers that matter.
    pub headers: RecordHeaders<'a>,
}

/// The headers an operator reads; none where the record has no such header.
#[derive(Debug, Clone, Default)]
pub struct RecordHeaders<'a> {
    /// W3C `traceparent`.
    pub traceparent: Option<&'a str>,
    /// `content-type`.
    pub content_type: Option<&'a str>,
    /// `companyos-origin`: `topic/partition/offset/index` of a row released from quarantine.
    pub origin: Option<&'a str>,
    /// Comma-separated rule ids that a release waived. The source has made sure that it was us who
    /// wrote them.
    pub waive: Option<&'a str>,
    /// Attributes of a binary-mode CloudEvent, if the record is one.
    pub cloud_event: Option<CloudEventHeaders<'a>>,
}

/// The attributes of a binary-mode CloudEvent.
#[derive(Debug, Clone, Default)]
pub struct CloudEventHeaders<'a> {
    /// Name without the `ce_` prefix, and value.
    pub attributes: Vec<(&'a str, &'a str)>,
}
