//! Configuration of the gateway, with limits that are safe to run with.

use std::{collections::BTreeMap, time::Duration};

use companyos_schemas::Stream;
use serde::{Deserialize, Serialize};

use crate::GatewayError;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The gateway, as configured under `[gateway]`. Durations are texts such as `10m` or `400days`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Topic of each stream; a stream that is not named goes to the topic of its own name.
    pub topics: BTreeMap<Stream, String>,
    /// How far `occurred_at` may lie ahead of the gateway's clock.
    #[serde(with = "humantime_serde")]
    pub max_future_skew: Duration,
    /// How far `occurred_at` may lie in the past.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// Sizes and counts one request, and all of them together, may reach.
    pub limits: Limits,
    /// Rates by tenant.
    pub rates: Rates,
    /// The memory behind the `Idempotency-Key` header.
    pub idempotency: IdempotencyLimits,
}

/// Bounds on one request and on all requests together.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest body as sent, in bytes.
    pub max_body_bytes: usize,
    /// Largest body after decompression, in bytes.
    pub max_decompressed_bytes: usize,
    /// Most events in one request.
    pub max_events: usize,
    /// Largest event, in bytes.
    pub max_event_bytes: usize,
    /// Deepest nesting of objects and arrays in an event.
    pub max_depth: usize,
    /// Requests worked on at once; more are told to come back.
    pub max_requests: usize,
    /// Body bytes (as sent and decompressed) held at once by all requests.
    pub max_in_flight_bytes: usize,
    /// Events of one request that are under way to Kafka at once.
    pub max_deliveries: usize,
    /// How long a client may take to send its body.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// How long a shutdown waits for requests under way.
    #[serde(with = "humantime_serde")]
    pub shutdown_grace: Duration,
}

/// Rates by tenant: `default` for all that are not named in `tenants`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// For every tenant without an entry of its own.
    pub default: TenantRate,
    /// By tenant name.
    pub tenants: BTreeMap<String, TenantRate>,
}

/// What one tenant may send.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantRate {
    /// Events a second, sustained.
    pub events_per_second: u32,
    /// Events at once; also the largest batch this tenant can send.
    pub burst_events: u32,
    /// Decompressed KiB a second, sustained.
    pub kib_per_second: u32,
    /// Decompressed KiB at once; also the largest body this tenant can send.
    pub burst_kib: u32,
}

/// Bounds of the idempotency cache.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdempotencyLimits {
    /// How long a response is kept for replay.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
    /// Most responses kept; the oldest goes first.
    pub max_entries: usize,
    /// Most bytes of responses kept.
    pub max_bytes: usize,
}

/// The Kafka producer. It is always idempotent and waits for all replicas.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProducerConfig {
    /// Brokers to start from, `host:port` separated by commas.
    pub bootstrap_servers: String,
    /// How long a record waits for company before it is sent.
    #[serde(with = "humantime_serde")]
    pub linger: Duration,
    /// How long a record may take until Kafka acknowledges it; then the client gets 503.
    #[serde(with = "humantime_serde")]
    pub delivery_timeout: Duration,
    /// How long a record waits for room in a full queue before the client gets 503.
    #[serde(with = "humantime_serde")]
    pub queue_timeout: Duration,
    /// Most KiB of records queued in the producer.
    pub queue_kib: u32,
    /// Any further librdkafka setting (SASL, TLS, …). May hold secrets, so it is never written back
    /// or shown.
    #[serde(skip_serializing)]
    pub kafka: BTreeMap<String, String>,
}

impl GatewayConfig {
    /// Topic the events of a stream are produced to.
    pub fn topic(&self, stream: Stream) -> &str {
        self.topics.get(&stream).map_or(stream.name(), String::as_str)
    }

    /// Refuses limits under which no request could succeed.
    pub(crate) fn validate(&self) -> Result<(), GatewayError> {
        let limits = &self.limits;
        let positive = [
            ("limits.max_body_bytes", limits.max_body_bytes),
            ("limits.max_decompressed_bytes", limits.max_decompressed_bytes),
            ("limits.max_events", limits.max_events),
            ("limits.max_event_bytes", limits.max_event_bytes),
            ("limits.max_depth", limits.max_depth),
            ("limits.max_requests", limits.max_requests),
            ("limits.max_deliveries", limits.max_deliveries),
            ("idempotency.max_entries", self.idempotency.max_entries),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(GatewayError::Config { key: (*key).to_owned(), detail: "must be more than 0".to_owned() });
        }
        if limits.max_in_flight_bytes < limits.max_body_bytes + limits.max_decompressed_bytes {
            return Err(GatewayError::Config {
                key: "limits.max_in_flight_bytes".to_owned(),
                detail: "must hold at least one body, as sent and decompressed".to_owned(),
            });
        }
        // librdkafka's own ceiling for message.max.bytes leaves no room above this.
        if limits.max_event_bytes > 512 * MIB {
            return Err(GatewayError::Config {
                key: "limits.max_event_bytes".to_owned(),
                detail: "must be at most 512 MiB".to_owned(),
            });
        }
        let rates = self.rates.tenants.iter().map(|(name, rate)| (format!("rates.tenants.{name}"), rate));
        for (key, rate) in rates.chain([("rates.default".to_owned(), &self.rates.default)]) {
            if [rate.events_per_second, rate.burst_events, rate.kib_per_second, rate.burst_kib].contains(&0) {
                return Err(GatewayError::Config {
                    key,
                    detail: "every rate and burst must be more than 0".to_owned(),
                });
            }
        }
        if let Some((stream, _)) = self.topics.iter().find(|(_, topic)| topic.is_empty()) {
            return Err(GatewayError::Config { key: format!("topics.{stream}"), detail: "is empty".to_owned() });
        }
        Ok(())
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            topics: BTreeMap::new(),
            max_future_skew: Duration::from_secs(10 * 60),
            max_age: Duration::from_secs(400 * 24 * 60 * 60),
            limits: Limits::default(),
            rates: Rates::default(),
            idempotency: IdempotencyLimits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_body_bytes: 8 * MIB,
            max_decompressed_bytes: 32 * MIB,
            max_events: 10_000,
            max_event_bytes: MIB,
            max_depth: 64,
            max_requests: 256,
            max_in_flight_bytes: 256 * MIB,
            max_deliveries: 1_000,
            body_timeout: Duration::from_secs(30),
            shutdown_grace: Duration::from_secs(30),
        }
    }
}

impl Default for TenantRate {
    fn default() -> Self {
        Self { events_per_second: 5_000, burst_events: 20_000, kib_per_second: 16 * 1024, burst_kib: 64 * 1024 }
    }
}

impl Default for IdempotencyLimits {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(24 * 60 * 60), max_entries: 100_000, max_bytes: 64 * MIB }
    }
}

impl Default for ProducerConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: "127.0.0.1:9092".to_owned(),
            linger: Duration::from_millis(5),
            delivery_timeout: Duration::from_secs(10),
            queue_timeout: Duration::from_secs(1),
            queue_kib: 64 * 1024,
            kafka: BTreeMap::new(),
        }
    }
}

// Settings hold credentials, so only their names reach a log line.
impl std::fmt::Debug for ProducerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProducerConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("linger", &self.linger)
            .field("delivery_timeout", &self.delivery_timeout)
            .field("queue_timeout", &self.queue_timeout)
            .field("queue_kib", &self.queue_kib)
            .field("kafka", &self.kafka.keys().collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations_and_topics_and_refuses_unknown_keys() {
        let config: GatewayConfig =
            toml::from_str("max_age = '2days'\n[topics]\nops_events = 'ops'\n[rates.tenants.beta]\nburst_events = 7\n")
                .unwrap();
        assert_eq!(config.max_age, Duration::from_secs(2 * 86_400));
        assert_eq!((config.topic(Stream::OpsEvents), config.topic(Stream::SliMetrics)), ("ops", "sli_metrics"));
        assert_eq!(config.rates.tenants["beta"].burst_events, 7);
        config.validate().unwrap();
        let error = toml::from_str::<GatewayConfig>("max_agee = '1s'").unwrap_err().to_string();
        assert!(error.contains("max_agee"), "{error}");
    }

    #[test]
    fn refuses_limits_that_let_nothing_through() {
        let mut config = GatewayConfig::default();
        config.limits.max_in_flight_bytes = 1;
        assert!(config.validate().unwrap_err().to_string().contains("max_in_flight_bytes"));
        let mut config = GatewayConfig::default();
        config.rates.tenants.insert("beta".to_owned(), TenantRate { kib_per_second: 0, ..TenantRate::default() });
        assert!(config.validate().unwrap_err().to_string().contains("rates.tenants.beta"));
    }

    #[test]
    fn secrets_show_neither_in_debug_output_nor_written_back() {
        let kafka = BTreeMap::from([("sasl.password".to_owned(), "hunter2".to_owned())]);
        let config = ProducerConfig { kafka, ..ProducerConfig::default() };
        assert!(format!("{config:?}").contains("sasl.password"));
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!toml::to_string(&config).unwrap().contains("hunter2"));
    }
}
