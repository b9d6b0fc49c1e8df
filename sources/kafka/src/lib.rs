//! The Kafka source: a consumer-group member that starts every partition where the tables stand.
//!
//! Group offsets are written for lag dashboards and never read: on assignment the
//! [`AssignmentHandler`] says where each partition resumes. All calls of one [`KafkaSource`],
//! rebalances included, happen on the thread that polls it.

mod assignment;
mod config;
mod record;

pub use assignment::{AssignmentHandler, Start, TopicPartition};
pub use config::KafkaConfig;
pub use record::SourceRecord;

use std::{sync::Arc, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::KafkaError,
};

use assignment::SourceContext;

/// Why the source cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// librdkafka refused or gave up.
    #[error("kafka {doing}: {source}")]
    Kafka {
        /// What was being done.
        doing: &'static str,
        /// What librdkafka said.
        source: KafkaError,
    },
    /// The handler could not say where a partition starts.
    #[error("partitions {partitions:?} could not be positioned: {reason}")]
    Unpositioned {
        /// The partitions.
        partitions: Vec<TopicPartition>,
        /// Why.
        reason: String,
    },
    /// The tables are ahead of the topic.
    #[error(
        "{partition:?}: the tables continue at offset {position}, but the topic ends at {end}: it was made anew or \
         truncated. Read it under another pipeline name, or bring the old topic back"
    )]
    BeyondEnd {
        /// The partition.
        partition: TopicPartition,
        /// Where the tables continue.
        position: i64,
        /// One after the topic's last record.
        end: i64,
    },
}

/// One member of a consumer group.
pub struct KafkaSource {
    consumer: BaseConsumer<SourceContext>,
}

impl KafkaSource {
    /// Joins the group and subscribes; partitions arrive through the handler while polling.
    pub fn subscribe(
        config: &KafkaConfig,
        group: &str,
        topics: &[String],
        handler: Arc<dyn AssignmentHandler>,
    ) -> Result<Self, SourceError> {
        let context = SourceContext::new(handler);
        let consumer: BaseConsumer<SourceContext> = config
            .consumer(group)
            .create_with_context(context)
            .map_err(|source| SourceError::Kafka { doing: "create consumer", source })?;
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(|source| SourceError::Kafka { doing: "subscribe", source })?;
        Ok(Self { consumer })
    }

    /// Waits up to `timeout` for the next record, serving rebalances meanwhile.
    ///
    /// Errors that librdkafka heals by itself (a broker away, a leader moving) are logged and give
    /// `None`; what it cannot heal is returned.
    pub fn poll(&self, timeout: Duration) -> Result<Option<SourceRecord<'_>>, SourceError> {
        let polled = self.consumer.poll(timeout);
        if let Some(error) = self.consumer.context().take_failure() {
            return Err(error);
        }
        match polled {
            None => Ok(None),
            Some(Ok(message)) => Ok(Some(SourceRecord::new(message))),
            Some(Err(source @ KafkaError::MessageConsumptionFatal(_))) => {
                Err(SourceError::Kafka { doing: "poll", source })
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "kafka is not answering as it should; still polling");
                metrics::counter!("companyos_source_errors_total").increment(1);
                Ok(None)
            }
        }
    }

    /// Whether any broker answers, as of the latest statistics (every 5 s unless configured otherwise).
    pub fn is_connected(&self) -> bool {
        self.consumer.context().is_connected()
    }

    /// Stops fetching from all assigned partitions; rebalances still go on.
    pub fn pause(&self) -> Result<(), SourceError> {
        self.with_assignment("pause", |tpl| self.consumer.pause(tpl))
    }

    /// Fetches again.
    pub fn resume(&self) -> Result<(), SourceError> {
        self.with_assignment("resume", |tpl| self.consumer.resume(tpl))
    }

    /// Continues a partition at another offset; what was fetched ahead is thrown away.
    pub fn seek(&self, partition: &TopicPartition, start: Start) -> Result<(), SourceError> {
        self.consumer
            .seek(&partition.topic, partition.partition, start.offset(), Duration::from_secs(30))
            .map_err(|source| SourceError::Kafka { doing: "seek", source })
    }

    /// Tells the group how far the tables are, for lag dashboards. Best effort.
    pub fn report_progress(&self, positions: impl IntoIterator<Item = (TopicPartition, i64)>) {
        let mut tpl = TopicPartitionList::new();
        for (partition, last) in positions {
            // The only failure is an invalid offset, and a position is never negative.
            let _ = tpl.add_partition_offset(&partition.topic, partition.partition, Offset::Offset(last + 1));
        }
        if tpl.count() > 0
            && let Err(error) = self.consumer.commit(&tpl, CommitMode::Async)
        {
            tracing::debug!(%error, "group offsets not written");
        }
    }

    fn with_assignment(
        &self,
        doing: &'static str,
        call: impl FnOnce(&TopicPartitionList) -> Result<(), KafkaError>,
    ) -> Result<(), SourceError> {
        let fail = |source| SourceError::Kafka { doing, source };
        let assignment = self.consumer.assignment().map_err(fail)?;
        if assignment.count() == 0 {
            return Ok(());
        }
        call(&assignment).map_err(fail)
    }
}
