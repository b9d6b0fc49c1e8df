//! What is in a topic, as any consumer reads it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, bail};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};
use serde_json::Value;

use super::Deployment;

/// A record.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

const TIMEOUT: Duration = Duration::from_secs(30);

impl Deployment {
    /// All records of a topic's first partition, from the first on.
    pub(crate) async fn messages(&self, topic: &'static str) -> Result<Vec<Message>> {
        let bootstrap = self.bootstrap.clone();
        tokio::task::spawn_blocking(move || read(&bootstrap, topic)).await?
    }
}

fn read(bootstrap: &str, topic: &str) -> Result<Vec<Message>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "chaos-reader")
        .set("enable.auto.commit", "false")
        .create()?;
    let (_, end) = consumer.fetch_watermarks(topic, 0, TIMEOUT)?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&partitions)?;
    let mut messages = Vec::new();
    while (messages.len() as i64) < end {
        let Some(record) = consumer.poll(TIMEOUT) else {
            bail!("{topic}: {} of {end} records within {TIMEOUT:?}", messages.len());
        };
        let record = record?;
        let mut headers = BTreeMap::new();
        for header in record.headers().into_iter().flat_map(Headers::iter) {
            let value = String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned();
            headers.insert(header.key.to_owned(), value);
        }
        let body = serde_json::from_slice(record.payload().unwrap_or_default());
        messages.push(Message { headers, body: body.with_context(|| format!("{topic}: a record is not JSON"))? });
    }
    Ok(messages)
}
