//! The producer and its window: rows that are sent and not yet acknowledged, in file order.
//!
//! Acknowledgements are taken from the front only, so what has been taken is a gapless prefix of
//! the file, which is what a checkpoint may claim.

use std::{collections::VecDeque, time::Duration};

use futures::FutureExt;
use rdkafka::{
    ClientConfig,
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer},
    types::RDKafkaErrorCode,
};

use crate::{
    ReplayError, ReplayOptions, RowProblem, StopReason,
    map::Event,
    reader::{Prepare, Prepared},
};

/// Header on rows that were sent as they are; says why.
const PROBLEM_HEADER: &str = "companyos-replay-problem";

/// A producer by the replay's options, with a broker that has answered.
pub(crate) async fn connect(options: &ReplayOptions, topic: &str) -> Result<FutureProducer, ReplayError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.brokers)
        .set("client.id", "companyos-replay")
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "zstd")
        .set("linger.ms", "20")
        .set("batch.size", "1000000")
        .set("message.timeout.ms", "120000")
        // As Java producers do, so that one event id always lands in one partition, where it is
        // recognized if it comes twice.
        .set("partitioner", "murmur2_random")
        .set("message.max.bytes", (options.max_row_bytes.saturating_mul(2).clamp(1 << 20, 1_000_000_000)).to_string());
    for (name, value) in &options.kafka {
        config.set(name, value);
    }
    let producer: FutureProducer = config.create().map_err(|e| ReplayError::Settings(describe(&e)))?;
    let (asked, topic, timeout) = (producer.clone(), topic.to_owned(), options.broker_timeout);
    // The topic itself may not exist yet: asking creates it where the broker is set up to.
    let answer = tokio::task::spawn_blocking(move || asked.client().fetch_metadata(Some(&topic), timeout).map(drop));
    let unreachable = |reason| ReplayError::Unreachable { brokers: options.brokers.clone(), reason };
    match answer.await {
        Ok(Ok(())) => Ok(producer),
        Ok(Err(e)) => Err(unreachable(describe(&e))),
        Err(e) => Err(unreachable(e.to_string())),
    }
}

/// An error without the values of settings, which may be secret.
fn describe(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, reason, name, _) => format!("{name}: {reason}"),
        other => other.to_string(),
    }
}

/// What became of a row.
#[derive(Debug)]
pub(crate) enum Done {
    /// Sent as an event.
    Mapped,
    /// Sent as it is.
    Unmapped(RowProblem),
    /// Nothing to send.
    Blank,
    /// Too large, and not sent.
    Oversized(RowProblem),
}

/// A row taken from the front of the window.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    /// Line it starts on.
    pub line: u64,
    /// Bytes sent.
    pub bytes: usize,
    /// What became of it.
    pub done: Done,
}

struct InFlight {
    line: u64,
    bytes: usize,
    done: Done,
    delivery: Option<DeliveryFuture>,
}

/// Rows in flight.
pub(crate) struct Window {
    producer: FutureProducer,
    topic: String,
    rows: VecDeque<InFlight>,
    bytes: usize,
    max_rows: usize,
    max_bytes: usize,
    skip_oversized: bool,
}

impl Window {
    pub(crate) fn new(producer: FutureProducer, topic: String, options: &ReplayOptions) -> Self {
        Self {
            producer,
            topic,
            rows: VecDeque::new(),
            bytes: 0,
            max_rows: options.max_in_flight.max(1),
            max_bytes: options.max_in_flight_bytes,
            skip_oversized: options.skip_oversized,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether another row may be sent before one is acknowledged.
    pub(crate) fn has_room(&self) -> bool {
        self.rows.is_empty() || (self.rows.len() < self.max_rows && self.bytes < self.max_bytes)
    }

    /// Sends a row, or gives it back if librdkafka's queue is full just now.
    pub(crate) fn send(&mut self, row: Prepared) -> Result<Option<Prepared>, StopReason> {
        let line = row.line;
        let (delivery, bytes, done) = match row.content {
            Prepare::Blank => (None, 0, Done::Blank),
            Prepare::TooLarge(reason) => (None, 0, self.oversized(line, reason)?),
            Prepare::Event(event) => match self.produce(event.key.as_deref(), &event.value, None) {
                Ok(delivery) => (Some(delivery), size(&event), Done::Mapped),
                Err(e) if is_full(&e) => return Ok(Some(Prepared { line, content: Prepare::Event(event) })),
                Err(e) => (None, 0, self.refused(line, &e)?),
            },
            Prepare::Raw(raw, problem) => match self.produce(None, &raw, Some(&problem)) {
                Ok(delivery) => (Some(delivery), raw.len(), Done::Unmapped(problem)),
                Err(e) if is_full(&e) => return Ok(Some(Prepared { line, content: Prepare::Raw(raw, problem) })),
                Err(e) => (None, 0, self.refused(line, &e)?),
            },
        };
        self.bytes += bytes;
        self.rows.push_back(InFlight { line, bytes, done, delivery });
        Ok(None)
    }

    fn produce(
        &self,
        key: Option<&str>,
        value: &[u8],
        problem: Option<&RowProblem>,
    ) -> Result<DeliveryFuture, KafkaError> {
        let mut record = FutureRecord::<str, [u8]>::to(&self.topic).payload(value);
        record.key = key;
        if let Some(problem) = problem {
            let text = problem.to_string();
            record = record.headers(OwnedHeaders::new().insert(Header { key: PROBLEM_HEADER, value: Some(&text) }));
        }
        self.producer.send_result(record).map_err(|(e, _)| e)
    }

    /// Waits for the row at the front; pending for ever when there is none. Safe to cancel.
    pub(crate) async fn acknowledged(&mut self) -> Result<Acknowledged, StopReason> {
        let Some(front) = self.rows.front_mut() else { return std::future::pending().await };
        let result = match front.delivery.as_mut() {
            Some(delivery) => Some(delivery.await),
            None => None,
        };
        self.take(result)
    }

    /// The row at the front if it is acknowledged already.
    pub(crate) fn acknowledged_now(&mut self) -> Option<Result<Acknowledged, StopReason>> {
        let result = match self.rows.front_mut()?.delivery.as_mut() {
            Some(delivery) => Some(delivery.now_or_never()?),
            None => None,
        };
        Some(self.take(result))
    }

    fn take(&mut self, result: Option<<DeliveryFuture as Future>::Output>) -> Result<Acknowledged, StopReason> {
        let Some(row) = self.rows.pop_front() else {
            return Err(StopReason::ReaderDied);
        };
        self.bytes -= row.bytes;
        let InFlight { line, bytes, done, .. } = row;
        match result {
            None | Some(Ok(Ok(_))) => Ok(Acknowledged { line, bytes, done }),
            Some(Ok(Err((e, _)))) => Ok(Acknowledged { line, bytes: 0, done: self.refused(line, &e)? }),
            Some(Err(_)) => Err(StopReason::Delivery { line, reason: "the producer closed".to_owned() }),
        }
    }

    fn refused(&self, line: u64, error: &KafkaError) -> Result<Done, StopReason> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
                self.oversized(line, describe(error))
            }
            _ => Err(StopReason::Delivery { line, reason: describe(error) }),
        }
    }

    fn oversized(&self, line: u64, reason: String) -> Result<Done, StopReason> {
        match self.skip_oversized {
            true => Ok(Done::Oversized(RowProblem { field: None, reason })),
            false => Err(StopReason::TooLarge { line, reason }),
        }
    }

    /// Takes what is still acknowledged within `patience`, passing each to `taken`.
    pub(crate) async fn drain(
        &mut self,
        patience: Option<Duration>,
        mut taken: impl FnMut(Acknowledged),
    ) -> Result<(), StopReason> {
        let all = async {
            while !self.is_empty() {
                taken(self.acknowledged().await?);
            }
            Ok(())
        };
        match patience {
            None => all.await,
            // What is not acknowledged by then is left to the next run.
            Some(patience) => tokio::time::timeout(patience, all).await.unwrap_or(Ok(())),
        }
    }
}

fn size(event: &Event) -> usize {
    event.value.len() + event.key.as_ref().map_or(0, String::len)
}

fn is_full(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
}
