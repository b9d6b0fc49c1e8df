//! Keeps events coming: over HTTP to the gateway for both tenants, and now and then a bad record
//! straight into Kafka, as from a producer that does not use the gateway.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    events::{self, Who},
    setup::Welcome,
};
use crate::config::KafkaSection;

/// What became of the events sent so far.
#[derive(Debug, Default)]
pub struct Totals {
    accepted: AtomicU64,
    refused: AtomicU64,
    direct: AtomicU64,
}

impl Totals {
    /// Accepted by the gateway.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Refused by the gateway.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Written to Kafka without the gateway.
    pub fn direct(&self) -> u64 {
        self.direct.load(Ordering::Relaxed)
    }
}

/// How often a batch is sent.
const TICK: Duration = Duration::from_millis(500);
/// One batch in so many has an event the gateway refuses, and one is followed by a bad record.
const BAD_EVERY: u64 = 6;

/// Sends until it is dropped.
pub struct Generator {
    client: reqwest::Client,
    url: String,
    tokens: [(Who, String); 2],
    producer: FutureProducer,
    rate: u32,
    totals: Arc<Totals>,
}

impl Generator {
    /// For the gateway and the broker of this run.
    pub fn new(welcome: &Welcome, kafka: &KafkaSection, rate: u32, totals: Arc<Totals>) -> Result<Self> {
        Ok(Self {
            client: reqwest::Client::builder().timeout(Duration::from_secs(20)).build()?,
            url: format!("http://{}/v1/events", welcome.gateway),
            tokens: [(Who::Alpha, welcome.alpha.clone()), (Who::Beta, welcome.beta.clone())],
            producer: kafka.source().client().create().context("kafka")?,
            rate,
            totals,
        })
    }

    /// Sends a batch each tick, most of it alpha's.
    pub async fn run(self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let per_tick = f64::from(self.rate) * TICK.as_secs_f64();
        let mut round = 0u64;
        loop {
            ticks.tick().await;
            round += 1;
            for (who, token) in &self.tokens {
                let share = if *who == Who::Alpha { 0.85 } else { 0.15 };
                let count = (per_tick * share).ceil() as usize;
                let mut batch: Vec<Value> = (0..count).map(|_| events::product_event(*who)).collect();
                if round.is_multiple_of(BAD_EVERY) {
                    batch.push(events::without_feature(*who));
                }
                if let Err(error) = self.post(token, &batch).await {
                    // Also what the last request meets when the demo stops.
                    tracing::warn!(error = format!("{error:#}"), "a batch was not taken");
                }
            }
            if round.is_multiple_of(BAD_EVERY) {
                self.send_bad().await;
            }
        }
    }

    async fn post(&self, token: &str, batch: &[Value]) -> Result<()> {
        let response = self.client.post(&self.url).bearer_auth(token).json(batch).send().await?;
        let answer: Value = response.json().await?;
        let results = answer.get("results").and_then(Value::as_array).context("an answer without results")?;
        let refused = results.iter().filter(|result| result.get("problem").is_some_and(|p| !p.is_null())).count();
        self.totals.refused.fetch_add(refused as u64, Ordering::Relaxed);
        self.totals.accepted.fetch_add((results.len() - refused) as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn send_bad(&self) {
        let value = events::bad_record();
        let record = FutureRecord::<str, str>::to("product_events").payload(&value);
        match self.producer.send(record, Duration::from_secs(5)).await {
            Ok(_) => drop(self.totals.direct.fetch_add(1, Ordering::Relaxed)),
            Err((error, _)) => tracing::warn!(%error, "a record was not taken by the broker"),
        }
    }
}
