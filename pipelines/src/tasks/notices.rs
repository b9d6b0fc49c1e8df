//! Notices to the topic of their kind.

use std::collections::BTreeMap;

use async_trait::async_trait;
use companyos_sinks::{
    checkpoint::{NoticeError, NoticeSink, OutgoingNotice},
    kafka::{KafkaSink, KafkaSinkError, OutgoingRecord},
    webhook::WebhookError,
};
use companyos_source_kafka::KafkaConfig;
use rdkafka::error::KafkaError;

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
    /// A webhook's consumer cannot be made.
    #[error(transparent)]
    Consumer(#[from] KafkaError),
    /// A webhook wants what goes to no topic.
    #[error("webhook {webhook}: notices of the kind {kind:?} go to no topic; see tasks.topics")]
    NoTopic {
        /// Receiver.
        webhook: String,
        /// Kind.
        kind: String,
    },
}

/// Sends each notice to the topic of its kind, from where webhooks get it.
pub struct NoticeRouter {
    kafka: KafkaSink,
    topics: BTreeMap<String, String>,
}

impl NoticeRouter {
    /// By the configuration.
    pub fn new(kafka: &KafkaConfig, config: &TasksConfig) -> Result<Self, NoticeSetupError> {
        Ok(Self { kafka: KafkaSink::new(&kafka.brokers, &kafka.settings)?, topics: config.topics.clone() })
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
        Ok(())
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
