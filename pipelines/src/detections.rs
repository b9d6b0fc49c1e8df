//! Security detections as a job: rule sets to operators; and the rule set and the attack scenarios
//! that come with the product.

use std::{path::PathBuf, sync::Arc, time::Duration};

use companyos_detect::{DetectOperator, RuleBook, RuleBookError, scenario::Scenario};
use companyos_sigma::FieldMapping;
use include_dir::{Dir, include_dir};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::tasks::{Definitions, OperatorFactory, Reloading, watch_files};

static SHIPPED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/detections");

/// `[detect]` of the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectConfig {
    /// Whether detections run.
    pub enabled: bool,
    /// Rule set (a folder with a `detections.yaml`, or that file) that takes the shipped one's place.
    pub rules: Option<PathBuf>,
    /// How often it is looked whether it changed.
    #[serde(with = "humantime_serde")]
    pub reload_interval: Duration,
}

impl Default for DetectConfig {
    fn default() -> Self {
        Self { enabled: true, rules: None, reload_interval: Duration::from_secs(5) }
    }
}

/// The configured rule set, or the shipped one.
pub fn load_rules(config: &DetectConfig) -> Result<RuleBook, RuleBookError> {
    let book = match &config.rules {
        Some(path) => RuleBook::load(path)?,
        None => shipped_rules()?,
    };
    for refused in book.refused() {
        tracing::error!(?refused, "a detection rule is left out");
    }
    Ok(book)
}

/// The rule set that comes with the product.
pub fn shipped_rules() -> Result<RuleBook, RuleBookError> {
    let text = SHIPPED.get_file("detections.yaml").and_then(|f| f.contents_utf8()).unwrap_or_default();
    let config = serde_yaml_ng::from_str(text)
        .map_err(|e| RuleBookError::Config { path: PathBuf::from("detections.yaml"), problem: e.to_string() })?;
    let mut rules = Vec::new();
    if let Some(folder) = SHIPPED.get_dir("rules") {
        collect(folder, &mut rules);
    }
    rules.sort();
    RuleBook::from_texts(config, &rules, &[], &FieldMapping::default())
}

/// Names of the attack scenarios that come with the product.
pub fn shipped_scenarios() -> Vec<String> {
    let files = SHIPPED.get_dir("scenarios").into_iter().flat_map(Dir::files);
    let mut names: Vec<String> =
        files.filter_map(|f| f.path().file_stem()).map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// One of them; none if there is none of that name.
pub fn shipped_scenario(name: &str) -> Option<Result<Scenario, serde_yaml_ng::Error>> {
    let file = SHIPPED.get_file(format!("scenarios/{name}.yaml"))?;
    Some(serde_yaml_ng::from_str(file.contents_utf8().unwrap_or_default()))
}

fn collect(folder: &Dir<'_>, rules: &mut Vec<(String, String)>) {
    for file in folder.files() {
        if let Some(text) = file.contents_utf8() {
            rules.push((file.path().display().to_string(), text.to_owned()));
        }
    }
    folder.dirs().for_each(|inner| collect(inner, rules));
}

/// A factory of operators that follow the rule set. Call within a tokio runtime.
pub fn detect_operators(config: &DetectConfig, stop: CancellationToken) -> Result<OperatorFactory, RuleBookError> {
    let first = load_rules(config)?;
    let again = config.clone();
    let paths = config.rules.iter().cloned().collect();
    let definitions: Definitions<RuleBook> =
        watch_files(first, paths, config.reload_interval, stop, move || load_rules(&again));
    Ok(Arc::new(move |_| {
        let mut definitions = definitions.clone();
        let operator = DetectOperator::new(definitions.borrow_and_update().clone())?;
        Ok(Box::new(Reloading::new(operator, definitions, DetectOperator::set_rules)))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_rules_load_whole() {
        let book = shipped_rules().unwrap();
        assert!(book.refused().is_empty(), "{:?}", book.refused());
        assert!(book.rules().len() >= 60, "{} rules", book.rules().len());
        assert!(shipped_scenarios().len() >= 6);
        for name in shipped_scenarios() {
            shipped_scenario(&name).unwrap().unwrap();
        }
    }
}
