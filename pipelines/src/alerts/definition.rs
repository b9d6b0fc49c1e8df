//! What an alert on views is, as YAML.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use include_dir::{Dir, include_dir};
use serde::{Deserialize, Serialize};

static SHIPPED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/alerts");

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertSeverity {
    /// To be looked at.
    Ticket,
    /// To be looked at now.
    Page,
}

impl AlertSeverity {
    /// As written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ticket => "ticket",
            Self::Page => "page",
        }
    }
}

/// An alert on views.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewAlert {
    /// Name.
    pub name: String,
    /// How bad it is.
    pub severity: AlertSeverity,
    /// What it says, for people.
    pub summary: String,
    /// Columns of the query that tell one thing that is wrong from another, besides tenant, env and
    /// region, which the query must have as well.
    #[serde(default)]
    pub keys: Vec<String>,
    /// How often it is asked.
    #[serde(with = "humantime_serde", default = "a_minute")]
    pub every: Duration,
    /// The query.
    pub query: String,
}

/// Why an alert cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AlertError {
    /// A file that cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// YAML that is no alert.
    #[error("{path}: {source}")]
    Yaml {
        /// File.
        path: PathBuf,
        /// Why, with the line.
        source: serde_yaml_ng::Error,
    },
    /// Two alerts of one name.
    #[error("two alerts are named {0:?}")]
    Twice(String),
}

fn a_minute() -> Duration {
    Duration::from_secs(60)
}

/// The alerts that come with the product: the files in `pipelines/alerts`.
pub fn shipped_alerts() -> Result<Vec<ViewAlert>, AlertError> {
    let mut alerts = Vec::new();
    for file in SHIPPED.files() {
        let text = file.contents_utf8().unwrap_or_default();
        let alert = serde_yaml_ng::from_str(text);
        alerts.push(alert.map_err(|source| AlertError::Yaml { path: file.path().to_owned(), source })?);
    }
    Ok(alerts)
}

/// Alerts of files and of the `.yaml` files of folders.
pub(super) fn load_alerts(paths: &[PathBuf]) -> Result<Vec<ViewAlert>, AlertError> {
    let mut alerts = Vec::new();
    for path in paths {
        for file in files(path).map_err(|source| AlertError::Read { path: path.clone(), source })? {
            let text =
                std::fs::read_to_string(&file).map_err(|source| AlertError::Read { path: file.clone(), source })?;
            alerts.push(serde_yaml_ng::from_str(&text).map_err(|source| AlertError::Yaml { path: file, source })?);
        }
    }
    Ok(alerts)
}

/// One alert a name.
pub(super) fn distinct(alerts: &[ViewAlert]) -> Result<(), AlertError> {
    let mut names = BTreeSet::new();
    match alerts.iter().find(|alert| !names.insert(alert.name.as_str())) {
        Some(alert) => Err(AlertError::Twice(alert.name.clone())),
        None => Ok(()),
    }
}

fn files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
