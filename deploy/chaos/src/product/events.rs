//! Events as producers send them.

use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, SecondsFormat, Utc};
use companyos_schemas::payload_hash;
use futures::{StreamExt, stream};
use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use serde_json::{Value, json};

use super::REGION;

/// An idempotent producer.
pub(crate) struct Producer {
    inner: FutureProducer,
}

impl Producer {
    pub(crate) fn new(bootstrap: &str) -> Result<Self> {
        let inner = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "60000")
            .set("linger.ms", "5")
            .create()?;
        Ok(Self { inner })
    }

    /// Sends (key, event) and waits until Kafka has acknowledged all.
    pub(crate) async fn send(&self, topic: &str, records: &[(String, String)]) -> Result<()> {
        let sends = stream::iter(records).map(|(key, text)| {
            let record = FutureRecord::to(topic).key(key).payload(text);
            async move { self.inner.send(record, Duration::from_secs(60)).await.map_err(|(error, _)| error) }
        });
        let results: Vec<_> = sends.buffered(1000).collect().await;
        results.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(())
    }
}

/// A product event that the contract accepts, of user `user`.
pub(crate) fn product_event(
    tenant: &str,
    id: &str,
    at: DateTime<Utc>,
    of: (Option<&str>, &str, &str),
    payload: &Value,
) -> Value {
    let (user, role, feature) = of;
    let text = payload.to_string();
    json!({
        "event_id": id, "occurred_at": at.to_rfc3339_opts(SecondsFormat::Micros, true), "tenant": tenant,
        "env": "prod", "region": REGION, "user_id": user, "role": role, "feature": feature, "client": "web/1",
        "pii_classification": "none", "payload_hash": payload_hash::compute(&text), "payload": payload,
    })
}
