//! Notices to the topic of their kind and to webhooks.

use std::collections::BTreeMap;

use async_trait::async_trait;
use companyos_sinks::{
    checkpoint::{NoticeError, NoticeSink, OutgoingNotice},
    kafka::{KafkaSink, KafkaSinkError, OutgoingRecord},
    webhook::{Webhook, WebhookError, WebhookMessage},
};
use companyos_source_kafka::KafkaConfig;
use futures::{StreamExt, stream};
use tracing::error;

use super::TasksConfig;

/// Why notices cannot be sent anywhere.
#[derive(Debug, thiserror::Error)]
pub enum NoticeSetupError {
    /// Kafka's settings are wrong.
    #[error(transparent)]
    Kafka(#[from] KafkaSinkError),
    /// A webhook's are.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
}

/// Sends each notice to the topic of its kind, then to the webhooks that want it.
pub struct NoticeRouter {
    kafka: KafkaSink,
    topics: BTreeMap<String, String>,
    dead_letter_topic: String,
    webhooks: Vec<Webhook>,
}

/// Webhook messages under way at a time.
const WEBHOOKS_AT_ONCE: usize = 16;

impl NoticeRouter {
    /// By the configuration.
    pub fn new(kafka: &KafkaConfig, config: &TasksConfig) -> Result<Self, NoticeSetupError> {
        Ok(Self {
            kafka: KafkaSink::new(&kafka.brokers, &kafka.settings)?,
            topics: config.topics.clone(),
            dead_letter_topic: config.dead_letter_topic.clone(),
            webhooks: config.webhooks.iter().cloned().map(Webhook::new).collect::<Result<_, _>>()?,
        })
    }

    async fn to_webhook(&self, webhook: &Webhook, notice: &OutgoingNotice) -> Result<(), NoticeError> {
        let message = WebhookMessage { id: &notice.id, body: &notice.body, traceparent: notice.traceparent.as_deref() };
        let Err(failure) = webhook.send(message).await else { return Ok(()) };
        error!(webhook = webhook.name(), id = notice.id, error = %failure, "a notice was given up");
        if self.dead_letter_topic.is_empty() {
            return Ok(());
        }
        let mut record = record(notice);
        record.headers.push(("webhook", webhook.name().to_owned()));
        record.headers.push(("reason", failure.to_string()));
        self.kafka.send_all(&self.dead_letter_topic, vec![record]).await.map_err(|e| NoticeError(e.to_string()))
    }
}

#[async_trait]
impl NoticeSink for NoticeRouter {
    async fn send(&self, notices: &[OutgoingNotice]) -> Result<(), NoticeError> {
        let mut by_topic: BTreeMap<&str, Vec<OutgoingRecord>> = BTreeMap::new();
        for notice in notices {
            if let Some(topic) = self.topics.get(&notice.kind) {
                by_topic.entry(topic).or_default().push(record(notice));
            }
        }
        for (topic, records) in by_topic {
            self.kafka.send_all(topic, records).await.map_err(|e| NoticeError(e.to_string()))?;
        }
        let wanted = notices.iter().flat_map(|notice| {
            self.webhooks.iter().filter(|w| w.wants(&notice.kind, &notice.tenant)).map(move |w| (w, notice))
        });
        let sends: Vec<_> = wanted.map(|(webhook, notice)| self.to_webhook(webhook, notice)).collect();
        let results: Vec<_> = stream::iter(sends).buffer_unordered(WEBHOOKS_AT_ONCE).collect().await;
        results.into_iter().collect()
    }
}

/// Keyed by tenant and id: readers drop repeats by the id.
fn record(notice: &OutgoingNotice) -> OutgoingRecord {
    let mut headers = vec![("id", notice.id.clone()), ("kind", notice.kind.clone())];
    headers.extend(notice.traceparent.clone().map(|trace| ("traceparent", trace)));
    OutgoingRecord {
        key: format!("{}/{}", notice.tenant, notice.id),
        payload: notice.body.clone().into_bytes(),
        headers,
    }
}
