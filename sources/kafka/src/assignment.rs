//! Rebalances: each partition starts at the position its tables hold.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientContext, Offset, Statistics, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol},
    error::KafkaError,
    types::RDKafkaRespErr,
};
use tracing::{error, info, warn};

use crate::SourceError;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
}

/// Where a partition starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record Kafka still has.
    Earliest,
    /// At this offset.
    At(i64),
}

impl Start {
    pub(crate) fn offset(self) -> Offset {
        match self {
            Start::Earliest => Offset::Beginning,
            Start::At(offset) => Offset::Offset(offset),
        }
    }
}

/// Told of rebalances, on the polling thread; may block for as long as the group allows
/// (`max.poll.interval.ms`).
pub trait AssignmentHandler: Send + Sync {
    /// Where to start each of these newly assigned partitions, in order. An error ends the source.
    fn assigned(&self, partitions: &[TopicPartition]) -> Result<Vec<Start>, String>;

    /// These partitions go to another member once this returns.
    fn revoked(&self, partitions: &[TopicPartition]);
}

pub(crate) struct SourceContext {
    handler: Arc<dyn AssignmentHandler>,
    failure: Mutex<Option<SourceError>>,
    /// By the latest statistics; true until there are any.
    connected: AtomicBool,
}

/// How long an assignment waits to hear which offsets a partition has.
const WATERMARKS_WITHIN: Duration = Duration::from_secs(10);

impl SourceContext {
    pub(crate) fn new(handler: Arc<dyn AssignmentHandler>) -> Self {
        Self { handler, failure: Mutex::new(None), connected: AtomicBool::new(true) }
    }

    pub(crate) fn take_failure(&self) -> Option<SourceError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    fn fail(&self, failure: SourceError) {
        error!(error = %failure, "rebalance failed");
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, tpl: &TopicPartitionList) -> Result<(), SourceError> {
        let partitions = partitions_of(tpl);
        info!(?partitions, "partitions assigned");
        let starts = self
            .handler
            .assigned(&partitions)
            .map_err(|reason| SourceError::Unpositioned { partitions: partitions.clone(), reason })?;
        let kafka = |doing| move |source: KafkaError| SourceError::Kafka { doing, source };
        let mut positioned = TopicPartitionList::new();
        for (partition, start) in partitions.iter().zip(starts) {
            check_start(consumer, partition, start)?;
            positioned
                .add_partition_offset(&partition.topic, partition.partition, start.offset())
                .map_err(kafka("assign"))?;
        }
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&positioned),
            _ => consumer.assign(&positioned),
        }
        .map_err(kafka("assign"))
    }

    fn unassign(&self, consumer: &BaseConsumer<Self>, tpl: &TopicPartitionList) -> Result<(), SourceError> {
        let partitions = partitions_of(tpl);
        info!(?partitions, "partitions revoked");
        self.handler.revoked(&partitions);
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(tpl),
            _ => consumer.unassign(),
        }
        .map_err(|source| SourceError::Kafka { doing: "unassign", source })
    }
}

impl ClientContext for SourceContext {
    fn stats(&self, statistics: Statistics) {
        self.connected.store(statistics.brokers.values().any(|broker| broker.state == "UP"), Ordering::Relaxed);
        for (topic, stats) in &statistics.topics {
            for (partition, stats) in stats.partitions.iter().filter(|(id, p)| **id >= 0 && p.consumer_lag >= 0) {
                metrics::gauge!(
                    "companyos_source_lag_records", "topic" => topic.clone(), "partition" => partition.to_string()
                )
                .set(stats.consumer_lag as f64);
            }
        }
    }
}

impl ConsumerContext for SourceContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, tpl: &mut TopicPartitionList) {
        let outcome = match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, tpl),
            _ => self.unassign(consumer, tpl),
        };
        if let Err(failure) = outcome {
            self.fail(failure);
        }
    }
}

/// Refuses to start after the partition's end: the topic was made anew, and its first records would be
/// taken for ones the tables have. Records that Kafka deleted unread are gone, but not silently.
fn check_start(
    consumer: &BaseConsumer<SourceContext>,
    partition: &TopicPartition,
    start: Start,
) -> Result<(), SourceError> {
    let Start::At(position) = start else { return Ok(()) };
    match consumer.fetch_watermarks(&partition.topic, partition.partition, WATERMARKS_WITHIN) {
        Ok((_, end)) if position > end => Err(SourceError::BeyondEnd { partition: partition.clone(), position, end }),
        Ok((first, _)) if position < first => {
            let lost = first.abs_diff(position);
            error!(?partition, position, first, lost, "Kafka deleted records before they were read");
            metrics::counter!("companyos_source_lost_records_total", "topic" => partition.topic.to_string())
                .increment(lost);
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(error) => {
            warn!(?partition, %error, "cannot check where the partition starts and ends");
            Ok(())
        }
    }
}

fn partitions_of(tpl: &TopicPartitionList) -> Vec<TopicPartition> {
    tpl.elements().iter().map(|e| TopicPartition { topic: Arc::from(e.topic()), partition: e.partition() }).collect()
}
