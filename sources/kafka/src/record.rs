//! One record, borrowed from librdkafka's buffers, with the headers the engine reads picked out.

use rdkafka::message::{BorrowedMessage, Headers, Message};

/// A Kafka record.
pub struct SourceRecord<'a> {
    message: BorrowedMessage<'a>,
}

impl<'a> SourceRecord<'a> {
    pub(crate) fn new(message: BorrowedMessage<'a>) -> Self {
        Self { message }
    }

    /// Topic it came from.
    pub fn topic(&self) -> &str {
        self.message.topic()
    }

    /// Partition it came from.
    pub fn partition(&self) -> i32 {
        self.message.partition()
    }

    /// Its offset.
    pub fn offset(&self) -> i64 {
        self.message.offset()
    }

    /// Record timestamp, milliseconds since the epoch.
    pub fn timestamp_ms(&self) -> Option<i64> {
        self.message.timestamp().to_millis()
    }

    /// Key bytes.
    pub fn key(&self) -> Option<&[u8]> {
        self.message.key()
    }

    /// Value bytes; none is a tombstone.
    pub fn payload(&self) -> Option<&[u8]> {
        self.message.payload()
    }

    /// Calls `visit` for each header whose value is UTF-8.
    pub fn visit_headers<'m>(&'m self, mut visit: impl FnMut(&'m str, &'m str)) {
        let Some(headers) = self.message.headers() else { return };
        for header in headers.iter() {
            if let Some(Ok(value)) = header.value.map(std::str::from_utf8) {
                visit(header.key, value);
            }
        }
    }
}
