//! What was sent, and sending it.

use std::{collections::HashSet, time::Duration};

use anyhow::Result;
use companyos_schemas::payload_hash;
use futures::{StreamExt, stream};
use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};

/// Every event that Kafka has acknowledged, by where it belongs.
pub(crate) struct Ledger {
    producer: FutureProducer,
    topic: String,
    random: fastrand::Rng,
    next: u64,
    /// Ids that must be rows.
    pub(crate) good: HashSet<String>,
    /// Ids that must be in quarantine.
    pub(crate) bad: HashSet<String>,
}

impl Ledger {
    pub(crate) fn new(bootstrap: &str, topic: &str, seed: u64) -> Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("enable.idempotence", "true")
            .set("message.timeout.ms", "240000")
            .set("reconnect.backoff.max.ms", "1000")
            .set("linger.ms", "5")
            .create()?;
        Ok(Self {
            producer,
            topic: topic.to_owned(),
            random: fastrand::Rng::with_seed(seed),
            next: 0,
            good: HashSet::new(),
            bad: HashSet::new(),
        })
    }

    /// Sends `count` new events over about `over`; 3 in 100 are broken, 2 in 100 are sent twice.
    pub(crate) async fn send(&mut self, count: usize, over: Duration) -> Result<()> {
        const STEPS: u32 = 20;
        for _ in 0..STEPS {
            let mut records = Vec::new();
            for _ in 0..count.div_ceil(STEPS as usize) {
                self.next += 1;
                let id = format!("e{}", self.next);
                let broken = self.random.u8(..100) < 3;
                let text = self.event(&id, broken);
                if self.random.u8(..100) < 2 && !broken {
                    records.push((id.clone(), text.clone()));
                }
                records.push((id.clone(), text));
                match broken {
                    true => self.bad.insert(id),
                    false => self.good.insert(id),
                };
            }
            let (producer, topic) = (&self.producer, &self.topic);
            let sends = stream::iter(&records).map(|(id, text)| {
                let record = FutureRecord::to(topic).key(id).payload(text);
                async move { producer.send(record, Duration::from_secs(240)).await.map_err(|(error, _)| error) }
            });
            let results: Vec<_> = sends.buffered(1000).collect().await;
            results.into_iter().collect::<Result<Vec<_>, _>>()?;
            tokio::time::sleep(over / STEPS).await;
        }
        Ok(())
    }

    fn event(&mut self, id: &str, broken: bool) -> String {
        let (tenant, region) = [("alpha", "eu"), ("alpha", "us"), ("beta", "us")][self.random.usize(..3)];
        let payload = format!(r#"{{"n":{}}}"#, self.random.u32(..));
        let hash = payload_hash::compute(if broken { "{}" } else { &payload });
        let now = chrono::Utc::now().to_rfc3339();
        format!(
            r#"{{"event_id":"{id}","occurred_at":"{now}","tenant":"{tenant}","role":"user","feature":"search","region":"{region}","env":"prod","client":"web/1","pii_classification":"none","payload_hash":"{hash}","payload":{payload}}}"#
        )
    }
}
