//! The Kafka headers the operators read.

use companyos_operators::{CloudEventHeaders, RecordHeaders, Sealer, WAIVER_HEADER, open_waiver};
use companyos_source_kafka::SourceRecord;

/// The rules a release lets this record pass, if it carries a waiver that we issued for it.
pub(crate) fn waived_rules(record: &SourceRecord<'_>, sealer: Option<&Sealer>) -> Option<String> {
    let (sealer, payload) = (sealer?, record.payload()?);
    let mut rules = None;
    record.visit_headers(|key, value| {
        if key == WAIVER_HEADER {
            rules = open_waiver(sealer, payload, value);
        }
    });
    rules
}

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
