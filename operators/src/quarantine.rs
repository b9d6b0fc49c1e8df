//! The quarantine lane: refused events as rows of the quarantine table, in the region that may keep
//! them.
//!
//! An event that names a place its tenant may use is kept there. One that names no region stays in
//! the home region, where its record already is, unless it names a tenant that may not use that one.
//! Any other event is not kept: its row, in the home region, says what was refused, where and why,
//! and nothing of what the event held beyond its scope and id.

use std::{collections::BTreeMap, sync::Arc};

use arrow::array::{
    ArrayRef, BinaryBuilder, Date32Builder, Int32Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder,
};
use companyos_schemas::{Stream, quarantine::table_schema, tenancy::Tenancy};

use crate::{
    coerce::day_of,
    error::OperatorError,
    record_log::RecordLog,
    redact::Masker,
    refusal::{Claim, Identity, Refusal},
    seal::Sealer,
};

/// Longest text kept in `payload`, in bytes. The whole event is in `sealed`.
const MAX_PAYLOAD: usize = 64 << 10;
/// Most bytes of events in one batch of quarantine rows, far below the 2 GiB a column can hold even
/// if every byte becomes a three-byte replacement character.
const MAX_BATCH: usize = 256 << 20;
/// How far before the limit the text may be cut, to end it between two strings.
const CUT_WINDOW: usize = 4 << 10;

/// Turns refusals into rows.
pub(crate) struct QuarantineLane {
    pub stream: Stream,
    pub topic: Arc<str>,
    pub partition: i32,
    pub tenancy: Arc<Tenancy>,
    pub sealer: Option<Arc<Sealer>>,
    pub masker: Masker,
}

impl QuarantineLane {
    /// The rows of `refusals`, by the region that keeps them; a region may have several batches.
    pub fn rows(&self, refusals: &[Refusal], log: &RecordLog) -> Result<Vec<(Arc<str>, RecordBatch)>, OperatorError> {
        let mut regions: BTreeMap<&str, Rows> = BTreeMap::new();
        let mut full = Vec::new();
        for refusal in refusals {
            let (region, whole) = self.home_of(&refusal.identity);
            let rows = regions.entry(region).or_default();
            self.push(rows, refusal, log, whole)?;
            if rows.event_bytes > MAX_BATCH {
                full.push((region.into(), std::mem::take(rows).finish()?));
            }
        }
        for (region, rows) in regions.into_iter().filter(|(_, rows)| rows.rows() > 0) {
            full.push((region.into(), rows.finish()?));
        }
        Ok(full)
    }

    /// The region that keeps a refusal, and whether it may keep the event itself.
    fn home_of<'a>(&'a self, identity: &'a Identity) -> (&'a str, bool) {
        let home = self.tenancy.home_region.as_str();
        match (identity.tenant.name(), identity.env.name(), &identity.region) {
            (Some(tenant), _, Claim::Absent) => {
                (home, self.tenancy.tenants.get(tenant).is_some_and(|t| t.regions.contains(home)))
            }
            (None, _, Claim::Absent) => (home, identity.tenant == Claim::Absent),
            (Some(tenant), Some(env), Claim::Named(region)) if self.tenancy.check(tenant, env, region).is_ok() => {
                (region, true)
            }
            _ => (home, false),
        }
    }

    fn push(&self, rows: &mut Rows, refusal: &Refusal, log: &RecordLog, whole: bool) -> Result<(), OperatorError> {
        let Some(record) = log.get(refusal.source.record) else { return Ok(()) };
        let (reject, identity) = (&refusal.reject, &refusal.identity);
        let index = refusal.source.index;
        rows.quarantine_id.append_value(format!("{}/{}/{}/{index}", self.topic, self.partition, record.offset));
        rows.stream.append_value(self.stream.name());
        rows.reason.append_value(reject.reason.as_str());
        rows.rule.append_option(reject.rule.as_deref());
        rows.field.append_option(reject.field.as_deref());
        rows.detail.append_value(&reject.detail);
        rows.tenant.append_option(identity.tenant.name());
        rows.env.append_option(identity.env.name());
        rows.region.append_option(identity.region.name());
        rows.event_id.append_option(identity.event_id.as_deref());
        rows.occurred_at.append_option(identity.occurred_at.filter(|_| whole));
        if whole {
            let original = record.event(refusal.source.span);
            rows.event_bytes += original.len();
            let excerpt = excerpt(original);
            rows.payload.append_value(self.masker.mask(&excerpt));
            match &self.sealer {
                Some(sealer) => {
                    rows.sealed.append_value(sealer.seal(original)?);
                    rows.seal_key.append_value(sealer.key_id());
                }
                None => {
                    rows.sealed.append_null();
                    rows.seal_key.append_null();
                }
            }
        } else {
            rows.payload.append_null();
            rows.sealed.append_null();
            rows.seal_key.append_null();
        }
        rows.day.append_value(day_of(record.ingested_at));
        rows.topic.append_value(&self.topic);
        rows.partition.append_value(self.partition);
        rows.offset.append_value(record.offset);
        rows.index.append_value(index);
        rows.ingested_at.append_value(record.ingested_at);
        rows.trace_id.append_option(record.trace_id);
        rows.dlp_rules.append_null();
        rows.origin.append_option(record.origin);
        Ok(())
    }
}

/// The event's beginning as text. It is cut after a quote if one is near, so that nothing that DLP
/// would recognize is halved and kept.
fn excerpt(original: &[u8]) -> String {
    let head = original.get(..MAX_PAYLOAD).unwrap_or(original);
    let cut = if head.len() == original.len() {
        head
    } else {
        let window = head.get(MAX_PAYLOAD - CUT_WINDOW..).unwrap_or_default();
        let end = memchr::memrchr(b'"', window).map_or(MAX_PAYLOAD, |at| MAX_PAYLOAD - CUT_WINDOW + at + 1);
        head.get(..end).unwrap_or(head)
    };
    String::from_utf8_lossy(cut).into_owned()
}

/// Columns of the quarantine table, in its order.
#[derive(Default)]
struct Rows {
    /// Bytes of the events kept in these rows.
    event_bytes: usize,
    quarantine_id: StringBuilder,
    stream: StringBuilder,
    reason: StringBuilder,
    rule: StringBuilder,
    field: StringBuilder,
    detail: StringBuilder,
    tenant: StringBuilder,
    env: StringBuilder,
    region: StringBuilder,
    event_id: StringBuilder,
    occurred_at: TimestampMicrosecondBuilder,
    payload: StringBuilder,
    sealed: BinaryBuilder,
    seal_key: StringBuilder,
    day: Date32Builder,
    topic: StringBuilder,
    partition: Int32Builder,
    offset: Int64Builder,
    index: Int32Builder,
    ingested_at: TimestampMicrosecondBuilder,
    trace_id: StringBuilder,
    dlp_rules: StringBuilder,
    origin: StringBuilder,
}

impl Rows {
    fn rows(&self) -> usize {
        arrow::array::ArrayBuilder::len(&self.offset)
    }

    fn finish(mut self) -> Result<RecordBatch, OperatorError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.quarantine_id.finish()),
            Arc::new(self.stream.finish()),
            Arc::new(self.reason.finish()),
            Arc::new(self.rule.finish()),
            Arc::new(self.field.finish()),
            Arc::new(self.detail.finish()),
            Arc::new(self.tenant.finish()),
            Arc::new(self.env.finish()),
            Arc::new(self.region.finish()),
            Arc::new(self.event_id.finish()),
            Arc::new(self.occurred_at.finish().with_timezone("UTC")),
            Arc::new(self.payload.finish()),
            Arc::new(self.sealed.finish()),
            Arc::new(self.seal_key.finish()),
            Arc::new(self.day.finish()),
            Arc::new(self.topic.finish()),
            Arc::new(self.partition.finish()),
            Arc::new(self.offset.finish()),
            Arc::new(self.index.finish()),
            Arc::new(self.ingested_at.finish().with_timezone("UTC")),
            Arc::new(self.trace_id.finish()),
            Arc::new(self.dlp_rules.finish()),
            Arc::new(self.origin.finish()),
        ];
        Ok(RecordBatch::try_new(table_schema(), columns)?)
    }
}
