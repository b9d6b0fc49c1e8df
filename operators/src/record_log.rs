//! The records behind the rows of the current epoch, kept until it is flushed.
//!
//! Operators after the decoder work on columns, but what they refuse must be quarantined as it was
//! sent. One arena holds it, reused from flush to flush.

use crate::json::Span;

/// Bytes and headers of the records pushed since the last flush.
#[derive(Debug, Default)]
pub(crate) struct RecordLog {
    bytes: Vec<u8>,
    records: Vec<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: i64,
    ingested_at: i64,
    start: usize,
    value: u32,
    trace: u32,
    origin: u32,
    waive: u32,
}

/// One record as the log keeps it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Logged<'a> {
    pub offset: i64,
    /// Microseconds since 1970.
    pub ingested_at: i64,
    pub value: &'a [u8],
    pub trace_id: Option<&'a str>,
    pub origin: Option<&'a str>,
    pub waive: Option<&'a str>,
}

impl<'a> Logged<'a> {
    /// The bytes of one of the record's events.
    pub fn event(&self, span: Span) -> &'a [u8] {
        self.value.get(span.start as usize..span.end as usize).unwrap_or_default()
    }
}

/// Whether a comma-separated list of rule ids holds `rule`.
pub(crate) fn waives(list: Option<&str>, rule: &str) -> bool {
    list.is_some_and(|list| list.split(',').any(|waived| waived.trim() == rule))
}

impl RecordLog {
    /// Adds a record and returns its position.
    pub fn push(&mut self, record: Logged<'_>) -> u32 {
        let start = self.bytes.len();
        let [trace, origin, waive] = [record.trace_id, record.origin, record.waive].map(Option::unwrap_or_default);
        self.bytes.extend_from_slice(record.value);
        for header in [trace, origin, waive] {
            self.bytes.extend_from_slice(header.as_bytes());
        }
        self.records.push(Entry {
            offset: record.offset,
            ingested_at: record.ingested_at,
            start,
            value: record.value.len() as u32,
            trace: trace.len() as u32,
            origin: origin.len() as u32,
            waive: waive.len() as u32,
        });
        self.records.len() as u32 - 1
    }

    /// The record at a position that [`RecordLog::push`] returned.
    pub fn get(&self, position: u32) -> Option<Logged<'_>> {
        let entry = self.records.get(position as usize)?;
        let (value, rest) = self.bytes.get(entry.start..)?.split_at_checked(entry.value as usize)?;
        let (trace, rest) = rest.split_at_checked(entry.trace as usize)?;
        let (origin, rest) = rest.split_at_checked(entry.origin as usize)?;
        let waive = rest.get(..entry.waive as usize)?;
        Some(Logged {
            offset: entry.offset,
            ingested_at: entry.ingested_at,
            value,
            trace_id: header(trace),
            origin: header(origin),
            waive: header(waive),
        })
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.records.len() * size_of::<Entry>()
    }

    /// Forgets all records and keeps the memory, unless one epoch was far larger than the next will be.
    pub fn clear(&mut self) {
        let used = self.bytes.len();
        self.bytes.clear();
        self.records.clear();
        if self.bytes.capacity() > 4 * used.max(1 << 20) {
            self.bytes.shrink_to(2 * used);
        }
    }
}

fn header(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}
