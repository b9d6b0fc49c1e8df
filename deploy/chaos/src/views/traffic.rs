//! The events of a run: four tenants, one in each shard; some come late, some twice.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Duration, SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::product::{Deployment, Producer, REGION, Row, product_event};

/// By the rule of `Shard::has`, in the shards 2, 1, 0 and 3 of four.
pub(crate) const TENANTS: [&str; 4] = ["alpha", "beta", "gamma", "sigma"];
const STREAMS: [&str; 3] = ["product_events", "ops_events", "sli_metrics"];

/// Everything that Kafka has acknowledged, by stream, tenant and id.
pub(crate) struct Traffic {
    producer: Producer,
    random: fastrand::Rng,
    start: DateTime<Utc>,
    next: usize,
    sent: BTreeMap<(&'static str, &'static str), BTreeMap<String, Value>>,
    /// All product events in order, to be sent again.
    product: Vec<(String, String)>,
    pub(crate) copies: usize,
    pub(crate) late: usize,
}

impl Traffic {
    pub(crate) fn new(bootstrap: &str, seed: u64) -> Result<Self> {
        Ok(Self {
            producer: Producer::new(bootstrap)?,
            random: fastrand::Rng::with_seed(seed ^ 0x5eed),
            start: Utc::now(),
            next: 0,
            sent: BTreeMap::new(),
            product: Vec::new(),
            copies: 0,
            late: 0,
        })
    }

    /// Different product events sent so far.
    pub(crate) fn product_events(&self) -> usize {
        self.product.len()
    }

    /// Sends `count` new product events and a tenth as many of the other two streams.
    pub(crate) async fn send(&mut self, count: usize) -> Result<()> {
        let mut records: BTreeMap<&str, Vec<(String, String)>> = BTreeMap::new();
        for number in 0..count {
            let (key, text) = self.event("product_events");
            if self.random.u8(..100) < 3 {
                records.entry("product_events").or_default().push((key.clone(), text.clone()));
                self.copies += 1;
            }
            self.product.push((key.clone(), text.clone()));
            records.entry("product_events").or_default().push((key, text));
            // Copies of what was stored long ago, perhaps by a worker that is gone.
            if self.random.u8(..100) < 3 {
                let again = self.product[self.random.usize(..self.product.len())].clone();
                records.entry("product_events").or_default().push(again);
                self.copies += 1;
            }
            if number % 10 == 0 {
                for stream in &STREAMS[1..] {
                    let record = self.event(stream);
                    records.entry(stream).or_default().push(record);
                }
            }
        }
        for (stream, records) in records {
            self.producer.send(stream, &records).await?;
        }
        Ok(())
    }

    /// Mostly of the last two hours, a tenth up to 40 days late.
    fn time(&mut self) -> DateTime<Utc> {
        let minutes = match self.random.u8(..10) {
            0 => {
                self.late += 1;
                40 * 24 * 60
            }
            _ => 120,
        };
        self.start - Duration::microseconds(self.random.i64(0..minutes * 60_000_000))
    }

    fn event(&mut self, stream: &'static str) -> (String, String) {
        self.next += 1;
        let tenant = one_of(&mut self.random, TENANTS);
        let id = format!("e{}", self.next);
        let at = self.time();
        let random = &mut self.random;
        let event = match stream {
            "product_events" => {
                let user = (random.u8(..10) > 0).then(|| format!("u{}", random.u8(..40)));
                let role = one_of(random, ["admin", "editor", "viewer"]);
                let feature = one_of(random, ["search", "export", "share"]);
                let ms = 100.0 + f64::from(random.u32(..20_000)) / 100.0;
                let payload = json!({ "ms": ms, "n": random.u32(..1000), "ok": random.u8(..10) > 1 });
                product_event(tenant, &id, at, (user.as_deref(), role, feature), &payload)
            }
            "ops_events" => json!({
                "event_id": id, "occurred_at": text_of(at), "tenant": tenant, "env": "prod", "region": REGION,
                "kind": one_of(random, ["policy_denial", "deployment", "incident"]),
                "service": one_of(random, ["api", "web"]),
            }),
            _ => {
                let latency = random.bool();
                let total = random.u32(1..1000);
                // One sample a slot would make a percentile of nothing: the latency's are few and close.
                let value = if latency { 100.0 + f64::from(random.u32(..100)) / 100.0 } else { 0.5 };
                json!({
                    "event_id": id, "occurred_at": text_of(at), "tenant": tenant, "env": "prod", "region": REGION,
                    "service": one_of(random, ["api", "web"]), "window": "1m",
                    "sli_type": if latency { "latency" } else { "availability" },
                    "value": value, "objective": 0.99, "good": random.u32(..=total), "total": total,
                })
            }
        };
        let text = event.to_string();
        self.sent.entry((stream, tenant)).or_default().insert(id.clone(), event);
        (format!("{tenant}/{id}"), text)
    }

    /// Fails unless each table holds what was sent, each event once and as it was sent.
    pub(crate) async fn check_stored(&self, deployment: &Deployment) -> Result<usize> {
        let mut count = 0;
        for ((stream, tenant), sent) in &self.sent {
            let more = match *stream {
                "product_events" => "user_id, role, feature, client, payload",
                "ops_events" => "kind, service",
                _ => "service, sli_type, value, objective, good, total",
            };
            let sql = format!("SELECT event_id, occurred_at, tenant, env, region, {more} FROM {stream}");
            let rows = deployment.ask(tenant, &sql).await?;
            if rows.len() != sent.len() {
                bail!("{stream} has {} rows of {tenant}, {} events were sent", rows.len(), sent.len());
            }
            count += rows.len();
            // As many rows as events, and each row one of them: so each event once, or one twice and one not.
            let mut missing: BTreeMap<_, _> = sent.iter().collect();
            for row in &rows {
                let id = row["event_id"].as_str().unwrap_or_default().to_owned();
                let event = missing.remove(&id).with_context(|| format!("{stream} has {id} twice, or from nowhere"))?;
                same_event(row, event).with_context(|| format!("{stream} {id} of {tenant}"))?;
            }
        }
        Ok(count)
    }
}

fn one_of<const N: usize>(random: &mut fastrand::Rng, of: [&'static str; N]) -> &'static str {
    of[random.usize(..N)]
}

fn text_of(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

fn same_event(row: &Row, event: &Value) -> Result<()> {
    for (column, stored) in row {
        let sent = &event[column.as_str()];
        let same = match (column.as_str(), stored, sent) {
            ("payload", Value::String(text), _) => serde_json::from_str::<Value>(text)? == *sent,
            ("occurred_at", Value::String(stored), Value::String(sent)) => {
                stored.parse::<DateTime<Utc>>()? == sent.parse::<DateTime<Utc>>()?
            }
            (_, Value::Number(stored), Value::Number(sent)) => stored.as_f64() == sent.as_f64(),
            _ => stored == sent,
        };
        if !same {
            bail!("{column} was sent as {sent} and stored as {stored}");
        }
    }
    Ok(())
}
