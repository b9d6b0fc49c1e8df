//! The Kafka headers the operators read.

use companyos_operators::{CloudEventHeaders, RecordHeaders};
use companyos_source_kafka::SourceRecord;

/// Picks the headers that matter out of a record. CloudEvents attributes are those prefixed `ce_`
/// (Kafka protocol binding for CloudEvents 1.0, binary content mode).
pub(crate) fn record_headers<'m>(record: &'m SourceRecord<'_>) -> RecordHeaders<'m> {
    let mut picked = RecordHeaders::default();
    record.visit_headers(|key, value| match key {
        "traceparent" => picked.traceparent = Some(value),
        "content-type" => picked.content_type = Some(value),
        "companyos-origin" => picked.origin = Some(value),
        _ => {
            if let Some(name) = key.strip_prefix("ce_") {
                let event = picked.cloud_event.get_or_insert_with(CloudEventHeaders::default);
                event.attributes.push((name, value));
            }
        }
    });
    picked
}
