//! The sections of the configuration that belong to the binary itself.

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use companyos_operators::Sealer;
use companyos_schemas::access::TokenGrant;
use companyos_source_gateway::GatewayConfig;
use companyos_source_kafka::KafkaConfig;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// `[access]`: who may send events and run queries.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessSection {
    /// One entry per token; `companyos token create` prints them. None means nobody gets in.
    pub tokens: Vec<TokenGrant>,
}

/// `[kafka]`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaSection {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// First part of the consumer groups' names; the pipeline's name follows. Deployments that
    /// share a cluster need one each.
    pub group: String,
    /// A stable name of this process: makes its group membership static.
    pub instance_id: Option<String>,
    /// Any librdkafka setting, for every client. May hold secrets, so it is never written back.
    #[serde(skip_serializing)]
    pub settings: BTreeMap<String, String>,
}

impl Default for KafkaSection {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            group: "companyos".to_owned(),
            instance_id: None,
            settings: BTreeMap::new(),
        }
    }
}

// Settings hold passwords, so only their names are shown.
impl fmt::Debug for KafkaSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSection")
            .field("brokers", &self.brokers)
            .field("group", &self.group)
            .field("instance_id", &self.instance_id)
            .field("settings", &self.settings.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl KafkaSection {
    /// What the Kafka source takes.
    pub fn source(&self) -> KafkaConfig {
        KafkaConfig {
            brokers: self.brokers.clone(),
            instance_id: self.instance_id.clone(),
            settings: self.settings.clone(),
        }
    }
}

/// `[gateway]`: the gateway's own keys and where it listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewaySection {
    /// Address and port of the HTTP endpoint.
    pub listen: SocketAddr,
    /// The gateway's own keys.
    #[serde(flatten)]
    pub gateway: GatewayConfig,
}

impl Default for GatewaySection {
    fn default() -> Self {
        Self { listen: local(8080), gateway: GatewayConfig::default() }
    }
}

/// `[quarantine]`: the key that seals originals. Without one no originals are kept.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuarantineSection {
    /// Name of the key; rows carry it, so give every new key a new one.
    pub key_id: String,
    /// The key itself, 64 hex digits. Meant for the environment
    /// (`COMPANYOS_QUARANTINE__KEY`), not for the file.
    #[serde(skip_serializing)]
    pub key: Option<String>,
    /// File that holds the key as 64 hex digits.
    pub key_file: Option<PathBuf>,
}

impl Default for QuarantineSection {
    fn default() -> Self {
        Self { key_id: "k1".to_owned(), key: None, key_file: None }
    }
}

impl fmt::Debug for QuarantineSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuarantineSection")
            .field("key_id", &self.key_id)
            .field("key", &self.key.as_ref().map(|_| "(hidden)"))
            .field("key_file", &self.key_file)
            .finish()
    }
}

impl QuarantineSection {
    /// The sealer; none if no key is configured.
    pub fn sealer(&self) -> Result<Option<Sealer>, ConfigError> {
        let refuse = |problem: String| ConfigError::Value { key: "quarantine.key", problem };
        let text = match (&self.key, &self.key_file) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return Err(refuse("give either key or key_file, not both".to_owned())),
            (Some(key), None) => key.clone(),
            (None, Some(path)) => std::fs::read_to_string(path).map_err(|e| ConfigError::Value {
                key: "quarantine.key_file",
                problem: format!("{}: {e}", path.display()),
            })?,
        };
        let mut key = [0u8; 32];
        // The decoder's own error would quote characters of the key.
        hex::decode_to_slice(text.trim(), &mut key).map_err(|_| {
            refuse("must be 64 hex digits (256 bits), such as `openssl rand -hex 32` prints".to_owned())
        })?;
        Ok(Some(Sealer::new(self.key_id.clone(), key)))
    }
}

/// `[telemetry]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetrySection {
    /// Address of /metrics, /healthz and /readyz; empty serves none.
    pub listen: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which lines are logged, in tracing's filter syntax; the variable RUST_LOG wins.
    pub log_filter: String,
    /// OTLP/HTTP endpoint that spans are sent to, such as http://collector:4318; empty sends none.
    pub otlp_endpoint: String,
    /// Share of traces to send, 0 to 1. A caller's own decision in `traceparent` wins.
    pub otlp_sample_ratio: f64,
    /// `service.name` of the spans.
    pub service_name: String,
    /// /readyz fails once an epoch has waited this long for its commit.
    #[serde(with = "humantime_serde")]
    pub max_commit_age: Duration,
}

impl Default for TelemetrySection {
    fn default() -> Self {
        Self {
            listen: local(9464).to_string(),
            log_format: LogFormat::Text,
            log_filter: "info".to_owned(),
            otlp_endpoint: String::new(),
            otlp_sample_ratio: 1.0,
            service_name: "companyos".to_owned(),
            max_commit_age: Duration::from_secs(30),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// An address only this machine reaches: nothing listens to the world unless told to.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealing_key_is_used_or_refused_without_being_shown() {
        let none = QuarantineSection::default();
        assert!(none.sealer().unwrap().is_none());
        let good = QuarantineSection { key: Some("ab".repeat(32)), ..QuarantineSection::default() };
        let sealer = good.sealer().unwrap().unwrap();
        assert_eq!(sealer.open(&sealer.seal(b"x").unwrap()).unwrap(), b"x");
        assert!(!format!("{good:?}").contains("abab"));
        let bad = QuarantineSection { key: Some("hunter2".to_owned()), ..QuarantineSection::default() };
        let error = bad.sealer().unwrap_err().to_string();
        assert!(error.contains("quarantine.key") && !error.contains("hunter2"), "{error}");
        assert!(!toml::to_string(&good).unwrap().contains("abab"));
    }
}
