//! Topics: made, counted, produced to.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rdkafka::{
    ClientConfig, ClientContext,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseRecord, NoCustomPartitioner, Producer, ProducerContext, ThreadedProducer},
};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Creates `topic`; if it exists, it must have that many partitions and, with `empty`, no records.
pub async fn create_topic(brokers: &str, topic: &str, partitions: i32, empty: bool) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let results = admin.create_topics([&new], &AdminOptions::new().operation_timeout(Some(TIMEOUT))).await?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => bail!("topic {name} cannot be created: {code}"),
        }
    }
    // A topic that was just created takes a moment to have leaders.
    let deadline = std::time::Instant::now() + TIMEOUT;
    let ends = loop {
        match positions(brokers, topic) {
            Ok(ends) if !ends.is_empty() => break ends,
            Ok(_) | Err(_) if std::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Ok(_) => bail!("topic {topic} did not appear"),
            Err(error) => return Err(error),
        }
    };
    if ends.len() != usize::try_from(partitions)? {
        bail!("topic {topic} exists with {} partitions, not {partitions}", ends.len());
    }
    if empty && record_count(&ends) > 0 {
        bail!("topic {topic} already holds {} records", record_count(&ends));
    }
    Ok(())
}

/// First offset and end offset of each partition.
pub fn positions(brokers: &str, topic: &str) -> Result<Vec<(i64, i64)>> {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let topic_metadata = metadata.topics().first().context("the broker sent no metadata")?;
    if let Some(error) = topic_metadata.error() {
        bail!("topic {topic}: {}", RDKafkaErrorCode::from(error));
    }
    let mut ids: Vec<i32> = topic_metadata.partitions().iter().map(|p| p.id()).collect();
    ids.sort_unstable();
    ids.into_iter().map(|id| Ok(consumer.fetch_watermarks(topic, id, TIMEOUT)?)).collect()
}

/// Records between first and end offsets.
pub fn record_count(positions: &[(i64, i64)]) -> u64 {
    positions.iter().map(|(first, end)| u64::try_from(end - first).unwrap_or_default()).sum()
}

/// Told what became of each record.
pub trait Deliveries: Send + Sync + 'static {
    /// The record sent with `tag` is at `offset` of `partition`.
    fn delivered(&self, tag: usize, partition: i32, offset: i64);
    /// The record will not arrive.
    fn failed(&self, tag: usize, error: KafkaError);
}

/// An idempotent producer with `acks=all`.
pub struct TopicProducer<D: Deliveries> {
    topic: String,
    producer: ThreadedProducer<Delivery<D>>,
}

struct Delivery<D>(D);

impl<D: Deliveries> ClientContext for Delivery<D> {}

impl<D: Deliveries> ProducerContext<NoCustomPartitioner> for Delivery<D> {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        use rdkafka::Message;
        match result {
            Ok(message) => self.0.delivered(tag, message.partition(), message.offset()),
            Err((error, _)) => self.0.failed(tag, error.clone()),
        }
    }
}

impl<D: Deliveries> TopicProducer<D> {
    /// Connects; `compression` and `linger_ms` as librdkafka names them.
    pub fn new(brokers: &str, topic: &str, compression: &str, linger_ms: u32, deliveries: D) -> Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("compression.type", compression)
            .set("linger.ms", linger_ms.to_string())
            .set("batch.size", "1000000")
            .set("queue.buffering.max.kbytes", "131072")
            .set("queue.buffering.max.messages", "500000")
            .create_with_context(Delivery(deliveries))?;
        Ok(Self { topic: topic.to_owned(), producer })
    }

    /// Queues a record without a key; waits while the queue is full.
    pub fn send(&self, partition: i32, payload: &[u8], tag: usize) -> Result<()> {
        let mut record =
            BaseRecord::<(), [u8], usize>::with_opaque_to(&self.topic, tag).partition(partition).payload(payload);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(anyhow!(error).context(format!("producing to {}", self.topic))),
            }
        }
    }

    /// Waits until every queued record has been delivered or has failed.
    pub fn flush(&self) -> Result<()> {
        Ok(self.producer.flush(Duration::from_secs(120))?)
    }

    /// What was told about deliveries.
    pub fn deliveries(&self) -> &D {
        &self.producer.context().0
    }
}
