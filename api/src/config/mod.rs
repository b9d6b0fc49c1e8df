//! The configuration: one TOML file, overlaid with `COMPANYOS_*` variables.
//!
//! A variable names a key by its path, with two underscores between the parts:
//! `COMPANYOS_KAFKA__BROKERS` is `brokers` in `[kafka]`. Keys that do not exist are refused by name,
//! in the file as in the environment. Every key is documented in deploy/companyos.toml.

mod sections;
#[cfg(test)]
mod shipped;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use companyos_dlp::{DlpConfig, Redactor};
use companyos_maintenance::MaintenanceConfig;
use companyos_pipelines::{
    PipelineSpec, WorkerConfig, alerts::AlertsConfig, detections::DetectConfig, slo::SloConfig, tasks::TasksConfig,
    views::ViewsConfig,
};
use companyos_query::QueryConfig;
use companyos_schemas::{
    access::TokenRegistry,
    tenancy::{Region, Tenancy},
};
use figment::{
    Figment,
    providers::{Env, Format, Toml},
};
use serde::{Deserialize, Serialize};

pub use sections::{
    AccessSection, GatewaySection, KafkaSection, LogFormat, QuarantineSection, TelemetrySection, local,
};

/// Everything a process can be told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Kafka.
    pub kafka: KafkaSection,
    /// Tenants and regions.
    pub tenancy: Tenancy,
    /// Tokens.
    pub access: AccessSection,
    /// HTTP event gateway.
    pub gateway: GatewaySection,
    /// Worker.
    pub worker: WorkerConfig,
    /// Jobs that follow the tables: views, SLOs, detections.
    pub tasks: TasksConfig,
    /// Materialized views.
    pub views: ViewsConfig,
    /// Service level objectives.
    pub slo: SloConfig,
    /// Alerts on views.
    pub alerts: AlertsConfig,
    /// Security detections.
    pub detect: DetectConfig,
    /// SQL.
    pub query: QueryConfig,
    /// Data loss prevention.
    pub dlp: DlpConfig,
    /// Quarantine.
    pub quarantine: QuarantineSection,
    /// Table maintenance.
    pub maintenance: MaintenanceConfig,
    /// Logs, metrics, traces, health.
    pub telemetry: TelemetrySection,
    /// Pipelines that replace the built-in ones.
    pub pipelines: Vec<PipelineSpec>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kafka: KafkaSection::default(),
            tenancy: default_tenancy(),
            access: AccessSection::default(),
            gateway: GatewaySection::default(),
            worker: WorkerConfig::default(),
            tasks: TasksConfig::default(),
            views: ViewsConfig::default(),
            slo: SloConfig::default(),
            alerts: AlertsConfig::default(),
            detect: DetectConfig::default(),
            query: QueryConfig::default(),
            dlp: DlpConfig::default(),
            quarantine: QuarantineSection::default(),
            maintenance: MaintenanceConfig::default(),
            telemetry: TelemetrySection::default(),
            pipelines: Vec::new(),
        }
    }
}

/// One region and no tenants: it starts, and stores nobody's events.
fn default_tenancy() -> Tenancy {
    let mut regions = BTreeMap::new();
    if let Ok(storage) = "file:///var/lib/companyos/local".parse() {
        regions.insert("local".to_owned(), Region { storage, archive: None, options: BTreeMap::new() });
    }
    Tenancy { home_region: "local".to_owned(), regions, tenants: BTreeMap::new() }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// Path as given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key that does not exist, or a value of the wrong kind.
    #[error("{0}")]
    Keys(String),
    /// A value that cannot be used.
    #[error("{key}: {problem}")]
    Value {
        /// Path of the key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// Variables with the prefix that are arguments of commands, not keys.
const NOT_KEYS: [&str; 3] = ["config", "token", "url"];

impl Config {
    /// Reads the file, if any, and the environment.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut figment = Figment::new();
        if let Some(path) = file {
            let text =
                std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
            figment = figment.merge(Toml::string(&text));
        }
        let config = Self::extract(figment.merge(Env::prefixed("COMPANYOS_").ignore(&NOT_KEYS).split("__")), file)?;
        config.validate()?;
        Ok(config)
    }

    fn extract(figment: Figment, file: Option<&Path>) -> Result<Self, ConfigError> {
        figment.extract().map_err(|errors| {
            let lines: Vec<String> = errors.into_iter().map(|error| describe(&error, file)).collect();
            ConfigError::Keys(lines.join("\n"))
        })
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |key, problem: String| Err(ConfigError::Value { key, problem });
        if let Err(error) = self.tenancy.validate() {
            return refuse("tenancy", error.to_string());
        }
        if let Err(error) = self.maintenance.validate() {
            return refuse("maintenance", error.to_string());
        }
        if let Err(error) = self.query.validate() {
            return refuse("query", error.to_string());
        }
        if let Err(error) = TokenRegistry::new(self.access.tokens.iter().cloned()) {
            return refuse("access.tokens", error.to_string());
        }
        if let Some(token) = self.access.tokens.iter().find(|t| !self.tenancy.tenants.contains_key(&t.scope.tenant)) {
            return refuse("access.tokens", format!("token {:?}: no tenant {:?}", token.id, token.scope.tenant));
        }
        if !(0.0..=1.0).contains(&self.telemetry.otlp_sample_ratio) {
            return refuse("telemetry.otlp_sample_ratio", "must lie between 0 and 1".to_owned());
        }
        if self.tasks.shards == 0 {
            return refuse("tasks.shards", "must be at least 1".to_owned());
        }
        if self.kafka.group.is_empty() {
            return refuse("kafka.group", "is empty".to_owned());
        }
        self.redactor()?;
        self.quarantine.sealer().map(|_| ())
    }

    /// Data loss prevention; none if it is turned off.
    pub fn redactor(&self) -> Result<Option<Redactor>, ConfigError> {
        let redactor =
            Redactor::new(&self.dlp).map_err(|e| ConfigError::Value { key: "dlp", problem: e.to_string() })?;
        Ok(self.dlp.enabled.then_some(redactor))
    }

    /// The tenancy, shared.
    pub fn shared_tenancy(&self) -> Arc<Tenancy> {
        Arc::new(self.tenancy.clone())
    }

    /// The configured tokens by digest.
    pub fn token_registry(&self) -> Result<TokenRegistry, ConfigError> {
        TokenRegistry::new(self.access.tokens.iter().cloned())
            .map_err(|e| ConfigError::Value { key: "access.tokens", problem: e.to_string() })
    }
}

/// `kafka.brokerz: unknown field …, in companyos.toml`.
fn describe(error: &figment::Error, file: Option<&Path>) -> String {
    let mut path = error.path.join(".");
    if let figment::error::Kind::UnknownField(name, _) = &error.kind
        && error.path.last().map(String::as_str) != Some(name)
    {
        path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
    }
    let place = match &error.metadata {
        Some(metadata) if metadata.name.contains("environment") => {
            format!("in the environment, as COMPANYOS_{}", path.replace('.', "__").to_uppercase())
        }
        _ => file.map(|f| format!("in {}", f.display())).unwrap_or_default(),
    };
    let kind = &error.kind;
    match (path.is_empty(), place.is_empty()) {
        (true, true) => format!("{kind}"),
        (true, false) => format!("{kind}, {place}"),
        (false, true) => format!("{path}: {kind}"),
        (false, false) => format!("{path}: {kind}, {place}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let config = Config::extract(Figment::from(Toml::string(text)), Some(Path::new("c.toml")))?;
        config.validate().map(|()| config)
    }

    fn error(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn unknown_keys_are_refused_with_their_path() {
        let top = error("[kafkaa]\n");
        assert!(top.contains("kafkaa") && top.contains("c.toml"), "{top}");
        assert!(error("[kafka]\nbrokerz = 'x'").contains("kafka.brokerz"), "{}", error("[kafka]\nbrokerz = 'x'"));
        let nested = error("[maintenance.vacuum]\nretenton = '8days'");
        assert!(nested.contains("maintenance.vacuum.retenton"), "{nested}");
        let flat = error("[gateway]\nlisen = '127.0.0.1:1'");
        assert!(flat.contains("gateway") && flat.contains("lisen"), "{flat}");
        let deep = error("[gateway.limits]\nmax_eventz = 1");
        assert!(deep.contains("gateway") && deep.contains("max_eventz"), "{deep}");
        let grant = error("[[access.tokens]]\nid = 'a'\nsha256 = ''\npermissions = []\ntenant = 'a'\nrole = 'x'");
        assert!(grant.contains("role"), "{grant}");
    }

    #[test]
    fn wrong_values_name_their_key() {
        let kind = error("[worker]\nmembers = 'two'");
        assert!(kind.contains("worker.members"), "{kind}");
        let tenant = error(&format!(
            "[[access.tokens]]\nid = 'a'\nsha256 = '{}'\npermissions = ['query']\ntenant = 'nobody'",
            "0".repeat(64)
        ));
        assert!(tenant.contains("access.tokens") && tenant.contains("nobody"), "{tenant}");
        let vacuum = error("[maintenance.vacuum]\nretention = '1h'");
        assert!(vacuum.contains("maintenance") && vacuum.contains("vacuum.retention"), "{vacuum}");
    }

    #[test]
    fn the_benchmarks_form_is_read() {
        let config = read(
            "[kafka]\nbrokers = 'b:1'\ngroup = 'g'\n[[pipelines]]\nstream = 'product_events'\ntopics = ['t']\n\
             [tenancy]\nhome_region = 'eu'\n[tenancy.regions.eu]\nstorage = 'file:///x'\n[tenancy.tenants]\n",
        )
        .unwrap();
        assert_eq!(config.pipelines[0].topics, ["t"]);
        assert_eq!(config.tenancy.regions.len(), 1, "the default region must not stay beside configured ones");
    }
}
