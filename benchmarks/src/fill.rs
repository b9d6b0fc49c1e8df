//! Fills a topic with generated events before anything is measured on it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use rdkafka::error::KafkaError;
use serde::{Deserialize, Serialize};

use crate::{
    generator::{Generator, GeneratorConfig},
    kafka::{self, Deliveries, TopicProducer},
};

/// What to fill.
#[derive(Debug, Clone)]
pub struct FillConfig {
    /// Kafka's bootstrap servers.
    pub brokers: String,
    /// Topic to create; it must not hold records yet.
    pub topic: String,
    /// Its partitions; events go to them in turn.
    pub partitions: i32,
    /// Number of events.
    pub events: u64,
    /// Codec by librdkafka's name: none, gzip, snappy, lz4 or zstd.
    pub compression: String,
    /// Shape of the events.
    pub generator: GeneratorConfig,
}

/// What was filled, and how fast.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FillResult {
    /// Events acknowledged by all replicas.
    pub events: u64,
    /// Their JSON text, in bytes.
    pub bytes: u64,
    /// Wall time, generation included.
    pub seconds: f64,
}

#[derive(Default)]
struct Counts {
    delivered: AtomicU64,
    failed: AtomicU64,
}

impl Deliveries for Counts {
    fn delivered(&self, _tag: usize, _partition: i32, _offset: i64) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self, _tag: usize, _error: KafkaError) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Creates the topic and fills it; every event is acknowledged when this returns.
pub async fn run(config: &FillConfig) -> Result<FillResult> {
    let mut generator = Generator::new(config.generator.clone());
    let topic = Topic {
        brokers: &config.brokers,
        name: &config.topic,
        partitions: config.partitions,
        compression: &config.compression,
    };
    with(&topic, config.events, |index, out| generator.write_event(index, out)).await
}

/// A topic to create.
#[derive(Debug, Clone, Copy)]
pub struct Topic<'a> {
    /// Kafka's bootstrap servers.
    pub brokers: &'a str,
    /// Its name; it must not hold records yet.
    pub name: &'a str,
    /// Its partitions; events go to them in turn.
    pub partitions: i32,
    /// Codec by librdkafka's name.
    pub compression: &'a str,
}

/// Creates the topic and fills it with the events that `write` appends, given their index.
pub async fn with(topic: &Topic<'_>, events: u64, mut write: impl FnMut(u64, &mut Vec<u8>)) -> Result<FillResult> {
    kafka::create_topic(topic.brokers, topic.name, topic.partitions, true).await?;
    let producer = TopicProducer::new(topic.brokers, topic.name, topic.compression, 20, Counts::default())?;
    let mut event = Vec::with_capacity(1024);
    let mut bytes = 0;
    let started = Instant::now();
    for index in 0..events {
        event.clear();
        write(index, &mut event);
        bytes += event.len() as u64;
        let partition = i32::try_from(index % u64::try_from(topic.partitions)?)?;
        producer.send(partition, &event, 0)?;
    }
    producer.flush().context("waiting for the last events")?;
    let seconds = started.elapsed().as_secs_f64();
    let counts = producer.deliveries();
    let failed = counts.failed.load(Ordering::Relaxed);
    ensure!(failed == 0, "{failed} events were not delivered");
    let held = kafka::record_count(&kafka::positions(topic.brokers, topic.name)?);
    ensure!(held == events, "the topic holds {held} records instead of {events}");
    Ok(FillResult { events: counts.delivered.load(Ordering::Relaxed), bytes, seconds })
}
