//! A rule set: its configuration file, its rules compiled, and what was refused. Shared by all
//! operators of a process; replacing it is how rules are reloaded.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use companyos_ocsf::{Extractor, TrustConfig, TrustError};
use companyos_sigma::{CheckEntry, CheckReport, CorrelationSet, FieldMapping, Loaded, Refused, RuleSet};
use serde::Deserialize;

use crate::{
    Exceptions, FindingKind, Locator, LocatorError, Mode, RollbackConfig, Rollout, RuleMeta, Severity,
    detectors::{DetectorsConfig, PatternError},
    known_fields::is_known,
    signals,
    trust::Trust,
    version,
};

/// Name of the configuration file in a folder of rules.
pub const CONFIG_FILE: &str = "detections.yaml";

/// The configuration file of a rule set. Paths are relative to it.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleSetConfig {
    /// Files and folders of Sigma rules.
    pub rules: Vec<PathBuf>,
    /// A field mapping.
    pub mapping: Option<PathBuf>,
    /// How late an event may be and still count for windows.
    #[serde(with = "humantime_serde")]
    pub lateness: Duration,
    /// A partition silent for this long holds nobody back.
    #[serde(with = "humantime_serde")]
    pub idle_after: Duration,
    /// A database in MaxMind's format with places of addresses (City).
    pub places: Option<PathBuf>,
    /// One with autonomous systems of addresses (ASN).
    pub networks: Option<PathBuf>,
    /// Stateful detectors.
    pub detectors: DetectorsConfig,
    /// Rules that are not simply live.
    pub rollouts: Vec<Rollout>,
    /// When a version is taken back.
    pub rollback: RollbackConfig,
    /// What is not sent.
    pub exceptions: Exceptions,
    /// What sources promise: keys, nonces, clocks. A source that is not named is not checked.
    pub trust: TrustConfig,
}

impl Default for RuleSetConfig {
    fn default() -> Self {
        Self {
            rules: vec![PathBuf::from("rules")],
            mapping: None,
            lateness: Duration::from_secs(3600),
            idle_after: Duration::from_secs(60),
            places: None,
            networks: None,
            detectors: DetectorsConfig::default(),
            rollouts: Vec::new(),
            rollback: RollbackConfig::default(),
            exceptions: Exceptions::default(),
            trust: TrustConfig::default(),
        }
    }
}

/// Why a rule set cannot be used at all. A rule that cannot is left out instead, and is in
/// [`RuleBook::refused`].
#[derive(Debug, thiserror::Error)]
pub enum RuleBookError {
    /// A file that cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A configuration file that is not as it should be.
    #[error("{path}: {problem}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A detector's pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A source's key.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A location database.
    #[error(transparent)]
    Locator(#[from] LocatorError),
}

/// A compiled rule set.
#[derive(Debug)]
pub struct RuleBook {
    pub(crate) config: RuleSetConfig,
    pub(crate) live: Compiled,
    /// Newer versions that run beside the live ones.
    pub(crate) candidates: Option<Compiled>,
    pub(crate) extractor: Extractor,
    pub(crate) keywords: bool,
    pub(crate) places: Option<Locator>,
    pub(crate) networks: Option<Locator>,
    rollouts: HashMap<String, Rollout>,
    refused: Vec<Refused>,
    checked: Vec<CheckEntry>,
}

/// Rules and correlations, and what findings of each have in common.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub rules: RuleSet,
    pub metas: Vec<RuleMeta>,
    pub correlations: Arc<CorrelationSet>,
    pub correlation_metas: Vec<RuleMeta>,
}

impl RuleBook {
    /// Loads a rule set: a configuration file, a folder with a `detections.yaml`, or rules alone
    /// (a file or a folder) under the default configuration.
    pub fn load(path: &Path) -> Result<Self, RuleBookError> {
        let config_path = if path.is_dir() { path.join(CONFIG_FILE) } else { path.to_owned() };
        if path.is_dir() && !config_path.exists() {
            let config = RuleSetConfig { rules: vec![path.to_owned()], ..RuleSetConfig::default() };
            return Self::from_config(config, Path::new(""), path);
        }
        let bytes = fs::read(&config_path).map_err(failed(&config_path))?;
        let text = String::from_utf8_lossy(&bytes);
        // What every Sigma document has one of, and no configuration file.
        let words = ["title:", "detection:", "correlation:", "filter:", "logsource:", "action:"];
        let is_rule = text.lines().any(|line| words.iter().any(|word| line.starts_with(word)));
        if is_rule {
            let config = RuleSetConfig { rules: vec![path.to_owned()], ..RuleSetConfig::default() };
            return Self::from_config(config, Path::new(""), path);
        }
        let config: RuleSetConfig = serde_yaml_ng::from_str(&text)
            .map_err(|e| RuleBookError::Config { path: config_path.clone(), problem: e.to_string() })?;
        let folder = config_path.parent().unwrap_or(Path::new("")).to_owned();
        Self::from_config(config, &folder, &config_path)
    }

    fn from_config(config: RuleSetConfig, folder: &Path, path: &Path) -> Result<Self, RuleBookError> {
        let mut files = Vec::new();
        for rules in &config.rules {
            collect(&folder.join(rules), &mut files)?;
        }
        files.sort();
        files.dedup();
        let mut unreadable = Vec::new();
        let mut texts = |paths: &[PathBuf]| -> Result<Vec<(String, String)>, RuleBookError> {
            let mut texts = Vec::new();
            for path in paths {
                let file = path.display().to_string();
                match String::from_utf8(fs::read(path).map_err(failed(path))?) {
                    Ok(text) => texts.push((file, text)),
                    Err(_) => unreadable.push(Refused {
                        file,
                        line: None,
                        id: None,
                        title: None,
                        reason: "the file is not UTF-8".to_owned(),
                    }),
                }
            }
            Ok(texts)
        };
        let candidates: Vec<PathBuf> =
            config.rollouts.iter().filter_map(|r| r.candidate.as_ref()).map(|c| folder.join(c)).collect();
        // A candidate may lie among the rules; it is not live because of that.
        files.retain(|file| !candidates.contains(file));
        let mapping = match &config.mapping {
            Some(mapping) => FieldMapping::from_yaml(&read(&folder.join(mapping))?)
                .map_err(|e| RuleBookError::Config { path: path.to_owned(), problem: e.to_string() })?,
            None => FieldMapping::default(),
        };
        let open = |database: &Option<PathBuf>| database.as_ref().map(|d| Locator::open(&folder.join(d))).transpose();
        let (places, networks) = (open(&config.places)?, open(&config.networks)?);
        let (files, candidates) = (texts(&files)?, texts(&candidates)?);
        let mut book = Self::from_texts(config, &files, &candidates, &mapping)?;
        (book.places, book.networks) = (places, networks);
        book.checked.extend(unreadable.iter().map(CheckEntry::refused));
        book.refused.append(&mut unreadable);
        Ok(book)
    }

    /// Compiles rules given as (file name, text); `candidates` are newer versions.
    pub fn from_texts(
        config: RuleSetConfig,
        rules: &[(String, String)],
        candidates: &[(String, String)],
        mapping: &FieldMapping,
    ) -> Result<Self, RuleBookError> {
        // Patterns and keys are tried here, so that an operator cannot fail on them.
        config.detectors.build()?;
        Trust::new(&config.trust)?;
        let (mut refused, mut checked) = (Vec::new(), Vec::new());
        let live = compile(rules, mapping, &mut refused, &mut checked);
        let candidates = (!candidates.is_empty()).then(|| compile(candidates, mapping, &mut refused, &mut checked));
        let mut wanted: Vec<String> = signals::FIELDS.iter().map(|f| (*f).to_owned()).collect();
        for compiled in [Some(&live), candidates.as_ref()].into_iter().flatten() {
            wanted.extend(compiled.rules.fields());
            wanted.extend(compiled.correlations.fields());
        }
        wanted.sort();
        wanted.dedup();
        let keywords = wanted.iter().any(|f| f == companyos_sigma::KEYWORDS);
        wanted.retain(|f| f != companyos_sigma::KEYWORDS);
        let rollouts = config.rollouts.iter().map(|r| (r.rule.clone(), r.clone())).collect();
        Ok(Self {
            config,
            live,
            candidates,
            extractor: Extractor::new(&wanted),
            keywords,
            places: None,
            networks: None,
            rollouts,
            refused,
            checked,
        })
    }

    /// Rules that were left out, and why.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// Every document: whether it loads, and the fields it needs.
    pub fn checked(&self) -> &[CheckEntry] {
        &self.checked
    }

    /// Everything that can find something: rules that are findings of their own, correlations,
    /// detectors.
    pub fn rules(&self) -> Vec<RuleMeta> {
        let standalone = self.live.rules.rules().iter().zip(&self.live.metas).filter(|(info, _)| info.standalone);
        let correlations = self
            .live
            .correlations
            .correlations()
            .iter()
            .zip(&self.live.correlation_metas)
            .filter(|(c, _)| c.standalone);
        let detectors = self.config.detectors.build().unwrap_or_default();
        standalone
            .map(|(_, meta)| meta.clone())
            .chain(correlations.map(|(_, meta)| meta.clone()))
            .chain(detectors.iter().flat_map(|d| d.rules()))
            .collect()
    }

    /// How far a version of a rule is trusted for a tenant; none if it is not for that tenant.
    pub(crate) fn mode(&self, rule: &str, candidate: bool, tenant: &str) -> Option<Mode> {
        match self.rollouts.get(rule) {
            // With a candidate, the rollout is the candidate's, and the live version stays live.
            Some(rollout) if candidate || rollout.candidate.is_none() => rollout.mode_for(tenant),
            _ if candidate => Some(Mode::Shadow),
            _ => Some(Mode::Live),
        }
    }

    /// The live version of a rule.
    pub(crate) fn live_version(&self, rule: &str) -> Option<&str> {
        let all = self.live.metas.iter().chain(&self.live.correlation_metas);
        all.into_iter().find(|m| m.id == rule).map(|m| m.version.as_str())
    }
}

fn compile(
    texts: &[(String, String)],
    mapping: &FieldMapping,
    refused: &mut Vec<Refused>,
    checked: &mut Vec<CheckEntry>,
) -> Compiled {
    let mut loaded = Loaded::default();
    let mut versions = HashMap::new();
    for (file, text) in texts {
        loaded.merge(Loaded::from_text(file, text));
        versions.extend(version::versions(text));
    }
    let (rules, refused_rules) = RuleSet::compile(&loaded, mapping);
    let (correlations, refused_correlations) = CorrelationSet::compile(&loaded, &rules, mapping);
    let report = CheckReport::new(&loaded, (&rules, &refused_rules), (&correlations, &refused_correlations), &is_known);
    checked.extend(report.entries);
    refused.extend(loaded.refused.into_iter().chain(refused_rules).chain(refused_correlations));
    let meta = |key: &str, title: &str, level: Option<&str>, tags: &[String], kind| RuleMeta {
        id: key.to_owned(),
        title: title.to_owned(),
        version: versions.get(key).cloned().unwrap_or_default(),
        kind,
        severity: Severity::of_level(level),
        tags: tags.to_vec(),
    };
    let metas = rules
        .rules()
        .iter()
        .map(|r| meta(r.key(), &r.title, r.level.as_deref(), &r.tags, FindingKind::Sigma))
        .collect();
    let correlation_metas = correlations
        .correlations()
        .iter()
        .map(|c| meta(c.key(), &c.title, c.level.as_deref(), &c.tags, FindingKind::Correlation))
        .collect();
    Compiled { rules, metas, correlations: Arc::new(correlations), correlation_metas }
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), RuleBookError> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(failed(path))? {
        let entry = entry.map_err(failed(path))?;
        let (child, kind) = (entry.path(), entry.file_type().map_err(failed(path))?);
        let yaml = child.extension().is_some_and(|e| e == "yml" || e == "yaml");
        // A linked folder may hold the one it is in.
        if kind.is_dir() || yaml && !child.is_dir() && child.file_name().is_some_and(|n| n != CONFIG_FILE) {
            collect(&child, files)?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, RuleBookError> {
    fs::read_to_string(path).map_err(failed(path))
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> RuleBookError {
    move |source| RuleBookError::Read { path: path.to_owned(), source }
}
