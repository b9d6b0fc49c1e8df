//! Notices from their topics to webhooks.
//!
//! Promises:
//! - A receiver that is slow or away holds up nobody: not the operators, whose notices are delivered
//!   when the topic has them, and not other receivers, each of which has a consumer group of its own.
//! - Every notice is delivered at least once, or given up and then in the dead-letter topic: the
//!   position moves on only afterwards.
//! - A receiver that is new gets the notices of the last ten minutes, not all that were ever told.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use companyos_sinks::{
    kafka::{KafkaSink, OutgoingRecord},
    webhook::{Webhook, WebhookConfig, WebhookMessage},
};
use companyos_source_kafka::KafkaConfig;
use futures::{StreamExt, future::join_all};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer, StreamConsumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{NoticeSetupError, TasksConfig};

/// Messages under way to one receiver at a time.
const AT_ONCE: usize = 16;
/// What a new receiver gets of the past.
const PAST: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_secs(1);

/// Starts sending to every configured webhook, until `stop`. `group` is the deployment's.
pub fn send_to_webhooks(
    kafka: &KafkaConfig,
    group: &str,
    config: &TasksConfig,
    stop: &CancellationToken,
) -> Result<Vec<JoinHandle<()>>, NoticeSetupError> {
    let dead_letters = KafkaSink::new(&kafka.brokers, &kafka.settings)?;
    let mut running = Vec::new();
    for settings in &config.webhooks {
        let topics = topics(settings, config)?;
        let waits = settings.timeout + settings.give_up_after;
        let consumer: StreamConsumer = kafka
            .client()
            .set("group.id", format!("{group}.webhook.{}", settings.name))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("max.poll.interval.ms", (waits * 2).as_millis().max(300_000).to_string())
            .create()?;
        consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
        let sender = Sender {
            consumer,
            webhook: Webhook::new(settings.clone())?,
            dead_letters: dead_letters.clone(),
            dead_letter_topic: config.dead_letter_topic.clone(),
            since: BTreeMap::new(),
            started_ms: chrono::Utc::now().timestamp_millis(),
        };
        running.push(tokio::spawn(sender.run(stop.clone())));
    }
    Ok(running)
}

/// Topics of the kinds a webhook wants.
fn topics(webhook: &WebhookConfig, config: &TasksConfig) -> Result<BTreeSet<String>, NoticeSetupError> {
    if webhook.kinds.is_empty() {
        return Ok(config.topics.values().cloned().collect());
    }
    let topic = |kind: &String| {
        config
            .topics
            .get(kind)
            .cloned()
            .ok_or_else(|| NoticeSetupError::NoTopic { webhook: webhook.name.clone(), kind: kind.clone() })
    };
    webhook.kinds.iter().map(topic).collect()
}

struct Sender {
    consumer: StreamConsumer,
    webhook: Webhook,
    dead_letters: KafkaSink,
    dead_letter_topic: String,
    /// Milliseconds before which notices of a topic's partition are passed over.
    since: BTreeMap<(String, i32), i64>,
    started_ms: i64,
}

/// A notice as its record holds it.
struct Told {
    id: String,
    kind: String,
    tenant: String,
    key: String,
    body: String,
    traceparent: Option<String>,
}

impl Sender {
    async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let next = tokio::select! {
                () = stop.cancelled() => return,
                next = self.chunk() => next,
            };
            if let Err(error) = next {
                warn!(webhook = self.webhook.name(), %error, "notices cannot be read; trying again");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }

    /// Delivers what is there, and moves the position on.
    async fn chunk(&mut self) -> Result<(), KafkaError> {
        let messages = self.consumer.stream().ready_chunks(AT_ONCE).next().await.unwrap_or_default();
        let messages = messages.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut positions: BTreeMap<(String, i32), i64> = BTreeMap::new();
        let mut told = Vec::new();
        for message in &messages {
            let place = (message.topic().to_owned(), message.partition());
            positions.insert(place.clone(), message.offset() + 1);
            let since = match self.since.get(&place) {
                Some(since) => *since,
                None => {
                    let since = self.since(&place)?;
                    self.since.insert(place, since);
                    since
                }
            };
            if message.timestamp().to_millis().is_none_or(|at| at >= since) {
                told.extend(read(message));
            }
        }
        let wanted = told.iter().filter(|told| self.webhook.wants(&told.kind, &told.tenant));
        join_all(wanted.map(|told| self.deliver(told))).await;
        let mut done = TopicPartitionList::new();
        for ((topic, partition), offset) in positions {
            done.add_partition_offset(&topic, partition, Offset::Offset(offset))?;
        }
        self.consumer.commit(&done, CommitMode::Async)
    }

    /// The receiver is new to a partition if its group has no position there.
    fn since(&self, (topic, partition): &(String, i32)) -> Result<i64, KafkaError> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition(topic, *partition);
        let found = tokio::task::block_in_place(|| self.consumer.committed_offsets(asked, Duration::from_secs(10)))?;
        let known = found.elements().iter().any(|element| matches!(element.offset(), Offset::Offset(_)));
        Ok(if known { i64::MIN } else { self.started_ms - PAST.as_millis() as i64 })
    }

    async fn deliver(&self, told: &Told) {
        let message = WebhookMessage { id: &told.id, body: &told.body, traceparent: told.traceparent.as_deref() };
        let Err(failure) = self.webhook.send(message).await else { return };
        error!(webhook = self.webhook.name(), id = told.id, error = %failure, "a notice was given up");
        if self.dead_letter_topic.is_empty() {
            return;
        }
        loop {
            let mut headers = vec![("id", told.id.clone()), ("kind", told.kind.clone())];
            headers.extend(told.traceparent.clone().map(|trace| ("traceparent", trace)));
            headers.push(("webhook", self.webhook.name().to_owned()));
            headers.push(("reason", failure.to_string()));
            let record = OutgoingRecord { key: told.key.clone(), payload: told.body.clone().into_bytes(), headers };
            match self.dead_letters.send_all(&self.dead_letter_topic, vec![record]).await {
                Ok(()) => return,
                Err(error) => warn!(webhook = self.webhook.name(), %error, "a dead letter cannot be written yet"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// None for a record that is no notice; somebody else's records may be in the topic.
fn read(message: &BorrowedMessage<'_>) -> Option<Told> {
    let header = |name: &str| {
        let headers = message.headers()?;
        let value = headers.iter().find(|header| header.key == name)?.value?;
        std::str::from_utf8(value).ok().map(str::to_owned)
    };
    let (id, kind) = (header("id")?, header("kind")?);
    let key = std::str::from_utf8(message.key()?).ok()?.to_owned();
    let tenant = key.strip_suffix(&id)?.strip_suffix('/')?.to_owned();
    let body = std::str::from_utf8(message.payload()?).ok()?.to_owned();
    Some(Told { id, kind, tenant, key, body, traceparent: header("traceparent") })
}
