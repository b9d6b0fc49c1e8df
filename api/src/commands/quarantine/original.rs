//! An event as it came: unsealed from its row or, where the row may not keep it, read from Kafka.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use companyos_operators::Sealer;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};
use serde_json::value::RawValue;

use super::rows::Row;
use crate::config::KafkaSection;

/// How long Kafka may take to hand out one record.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);

/// What to send again.
pub struct Original {
    pub value: Vec<u8>,
    /// Headers that say how to read the value; none for a sealed one, which is JSON.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Finds a row's event.
pub async fn find(row: &Row, sealer: Option<&Sealer>, kafka: &KafkaSection) -> Result<Original> {
    match (&row.sealed, sealer) {
        (Some(sealed), Some(sealer)) if row.seal_key.as_deref() == Some(sealer.key_id()) => {
            Ok(Original { value: sealer.open(sealed)?, headers: Vec::new() })
        }
        // Without the right key Kafka may still have it.
        (Some(_), _) => from_kafka(row, kafka).await.with_context(|| {
            format!(
                "its original is sealed with key {:?}, which is not configured",
                row.seal_key.as_deref().unwrap_or("")
            )
        }),
        (None, _) => from_kafka(row, kafka).await,
    }
}

async fn from_kafka(row: &Row, kafka: &KafkaSection) -> Result<Original> {
    let (row, kafka) = (row.clone(), kafka.clone());
    tokio::task::spawn_blocking(move || fetch(&row, &kafka)).await?
}

fn fetch(row: &Row, kafka: &KafkaSection) -> Result<Original> {
    let mut settings = kafka.source().client();
    settings
        .set("group.id", "companyos.quarantine")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error");
    let consumer: BaseConsumer = settings.create()?;
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition_offset(&row.topic, row.partition, Offset::Offset(row.offset))?;
    consumer.assign(&wanted)?;
    let deadline = Instant::now() + FETCH_TIMEOUT;
    while Instant::now() < deadline {
        let Some(polled) = consumer.poll(Duration::from_millis(200)) else { continue };
        let message = polled.with_context(|| format!("Kafka no longer has {}", row.id))?;
        // After compaction or retention the next record comes instead.
        if message.offset() != row.offset {
            break;
        }
        let value = message.payload().unwrap_or_default();
        let headers = message.headers().map(|headers| {
            let kept = headers.iter().filter(|h| h.key == "content-type" || h.key.starts_with("ce_"));
            kept.map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect()
        });
        return Ok(Original { value: event(value, row.index)?.to_vec(), headers: headers.unwrap_or_default() });
    }
    bail!("Kafka no longer has {}", row.id)
}

/// The event at `index` of a record: an element if the record is an array, the record otherwise.
/// The others must not be sent again: they are in the table.
fn event(value: &[u8], index: i32) -> Result<&[u8]> {
    if !value.trim_ascii_start().starts_with(b"[") {
        return Ok(value);
    }
    match serde_json::from_slice::<Vec<&RawValue>>(value) {
        Ok(events) => {
            let event = usize::try_from(index).ok().and_then(|i| events.get(i));
            Ok(event.with_context(|| format!("the record has no event {index}"))?.get().as_bytes())
        }
        // It was refused as a whole, for what it is.
        Err(_) => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_refused_element_of_an_array_is_sent_again() {
        assert_eq!(event(br#" [{"a":1}, {"b":2}]"#, 1).unwrap(), br#"{"b":2}"#);
        assert_eq!(event(br#"{"a":1}"#, 0).unwrap(), br#"{"a":1}"#);
        assert_eq!(event(b"[1,", 0).unwrap(), b"[1,");
        assert!(event(b"[1]", 4).is_err());
    }
}
