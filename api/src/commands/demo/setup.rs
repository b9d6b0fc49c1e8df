//! What the demo needs before it starts: folders, ports, tokens, a key, and the configuration that
//! other commands can use on the same data.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use companyos_dlp::{KeyConfig, KeyRingConfig};
use companyos_schemas::{
    access::{Permission, Scope, TokenGrant, token_digest},
    tenancy::{Region, Tenancy, Tenant},
};
use tokio::net::TcpListener;
use url::Url;

use crate::{
    commands::token::random_token,
    config::{Config, local},
};

pub const HOME: &str = "eu-west-1";
pub const OTHER: &str = "us-east-1";

/// Most of the demo's events say whether they went well.
const FEATURE_SLO: &str = include_str!("../../../../pipelines/slo/feature-success.yaml");

/// Everything made, nothing started.
pub struct Setup {
    pub data: PathBuf,
    pub config: Config,
    pub broker_listen: SocketAddr,
    pub gateway: TcpListener,
    pub query: TcpListener,
    pub admin: TcpListener,
    pub welcome: Welcome,
}

/// What a person needs to know.
#[derive(Debug, Clone)]
pub struct Welcome {
    pub gateway: SocketAddr,
    pub query: SocketAddr,
    pub admin: SocketAddr,
    pub config_file: PathBuf,
    pub alpha: String,
    pub beta: String,
}

impl Setup {
    /// Binds the ports and prepares the folder.
    pub async fn prepare(data: &Path, any_ports: bool) -> Result<Self> {
        fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
        let data = data.canonicalize()?;
        let gateway = bind(local(8080), any_ports).await?;
        let query = bind(local(8082), any_ports).await?;
        let admin = bind(local(9464), any_ports).await?;
        // The broker binds by itself: what is free now will most likely be free in a moment.
        let broker_listen = match bind(local(9092), any_ports).await {
            Ok(probe) => probe.local_addr()?,
            Err(_) => local(0),
        };
        let welcome = Welcome {
            gateway: gateway.local_addr()?,
            query: query.local_addr()?,
            admin: admin.local_addr()?,
            config_file: data.join("companyos.toml"),
            alpha: random_token(),
            beta: random_token(),
        };
        let mut config = Config { tenancy: tenancy(&data)?, ..Config::default() };
        config.access.tokens = vec![grant("alpha", &welcome.alpha), grant("beta", &welcome.beta)];
        config.gateway.listen = welcome.gateway;
        config.query.listen = welcome.query;
        config.telemetry.listen = welcome.admin.to_string();
        config.quarantine.key_file = Some(key_file(&data, "quarantine.key")?);
        let token_key = KeyConfig { version: 1, file: Some(key_file(&data, "dlp.key")?), ..KeyConfig::default() };
        config.dlp.keys = Some(KeyRingConfig { active: 1, ring: vec![token_key] });
        let slos = data.join("slo");
        fs::create_dir_all(&slos)?;
        fs::write(slos.join("feature-success.yaml"), FEATURE_SLO).context("cannot write the demo's SLO")?;
        config.slo.paths = vec![slos];
        Ok(Self { data, config, broker_listen, gateway, query, admin, welcome })
    }

    /// Leaves the configuration where `companyos … --config` finds it. It holds digests, no tokens.
    pub fn write_config(&self) -> Result<()> {
        let text = toml::to_string(&self.config)?;
        fs::write(&self.welcome.config_file, text).context("cannot write the demo's configuration")
    }
}

/// The usual port, or any free one if it is taken.
async fn bind(usual: SocketAddr, any: bool) -> Result<TcpListener> {
    if !any && let Ok(listener) = TcpListener::bind(usual).await {
        return Ok(listener);
    }
    TcpListener::bind(local(0)).await.context("no free port")
}

fn tenancy(data: &Path) -> Result<Tenancy> {
    let region = |name: &str| -> Result<(String, Region)> {
        let folder = data.join("tables").join(name);
        fs::create_dir_all(&folder)?;
        let storage = Url::from_directory_path(&folder).map_err(|()| anyhow!("{} is no path", folder.display()))?;
        Ok((name.to_owned(), Region { storage, archive: None, options: BTreeMap::new() }))
    };
    let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
    let alpha = Tenant { environments: set(&["prod", "staging"]), regions: set(&[HOME, OTHER]) };
    let beta = Tenant { environments: set(&["prod"]), regions: set(&[HOME]) };
    Ok(Tenancy {
        home_region: HOME.to_owned(),
        regions: [region(HOME)?, region(OTHER)?].into(),
        tenants: [("alpha".to_owned(), alpha), ("beta".to_owned(), beta)].into(),
    })
}

fn grant(tenant: &str, token: &str) -> TokenGrant {
    TokenGrant {
        id: format!("demo-{tenant}"),
        sha256: token_digest(token),
        permissions: [Permission::Ingest, Permission::Query].into(),
        scope: Scope { tenant: tenant.to_owned(), envs: None, regions: None },
        expires_at: None,
    }
}

/// A key of 256 bits that outlives the run, kept beside the data it opens: good enough for a demo alone.
fn key_file(data: &Path, name: &str) -> Result<PathBuf> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let path = data.join(name);
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => writeln!(file, "{}", hex::encode(rand::random::<[u8; 32]>()))?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).context("cannot write a key"),
    }
    Ok(path)
}

impl Welcome {
    /// Where things are, and two commands to paste.
    pub fn print(&self) {
        let Welcome { gateway, query, admin, alpha, beta, .. } = self;
        let config = self.config_file.display();
        println!(
            r#"
CompanyOS demo: two tenants, alpha (heavy on feature-x) and beta (light). Ctrl-C stops it cleanly.

  gateway  http://{gateway}/v1/events     send events
  query    http://{query}/v1/sql        ask in SQL
  metrics  http://{admin}/metrics        also /healthz and /readyz
  config   {config}
  token alpha  {alpha}
  token beta   {beta}

Ask:
  companyos sql --url http://{query} --token {alpha} "SELECT feature, count(*) AS events, count(DISTINCT user_id) AS users FROM product_events GROUP BY feature ORDER BY events DESC"

  curl -s http://{query}/v1/sql -H 'Authorization: Bearer {beta}' -H 'Content-Type: application/json' -d '{{"sql": "SELECT count(*) AS events FROM product_events"}}'

Send:
  curl -s http://{gateway}/v1/events -H 'Authorization: Bearer {alpha}' -H 'Content-Type: application/json' -d '{{"event_id": "mine-1", "occurred_at": "{now}", "tenant": "alpha", "region": "{HOME}", "env": "prod", "role": "admin", "feature": "feature-x", "client": "curl", "pii_classification": "none", "payload": {{"note": "hello"}}}}'

Look at what was refused:
  companyos quarantine list --config {config} --tenant alpha

Views, an SLO, an attack:
  companyos sql --config {config} --tenant alpha "SELECT day, feature, role, events, users FROM feature_adoption ORDER BY events DESC LIMIT 10"
  companyos slo report product --config {config} --tenant alpha
  companyos simulate attack mfa_fatigue --config {config} --tenant alpha
"#,
            now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        );
    }
}
