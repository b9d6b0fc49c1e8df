//! Pipelines as files: which topics feed which stream, and the operators' settings.

use std::path::Path;

use companyos_operators::{DecodeConfig, DedupConfig};
use companyos_schemas::Stream;
use serde::{Deserialize, Serialize};

/// One declared pipeline.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineSpec {
    /// Name; the stream's unless given. Part of the consumer group and of the tables' positions, so it
    /// must not change.
    #[serde(default)]
    pub name: String,
    /// Contract the events follow and table they go to.
    pub stream: Stream,
    /// Topics read; defaults to the stream's name.
    #[serde(default)]
    pub topics: Vec<String>,
    /// Bounds and defaults of decoding.
    #[serde(default)]
    pub decode: DecodeConfig,
    /// Horizon and size of deduplication.
    #[serde(default)]
    pub dedup: DedupConfig,
    /// Whether data loss prevention runs. Off is for streams that cannot hold personal data.
    #[serde(default = "yes")]
    pub dlp: bool,
}

fn yes() -> bool {
    true
}

/// A pipeline file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The file or folder cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The YAML does not describe a pipeline.
    #[error("pipeline {file}: {source}")]
    Parse {
        /// File.
        file: String,
        /// What is wrong, with line and column.
        source: serde_yaml_ng::Error,
    },
    /// A name that no pipeline has.
    #[error("no pipeline named {0:?}")]
    Unknown(String),
}

const BUILT_IN: [(&str, &str); 5] = [
    ("product_events.yaml", include_str!("../product_events.yaml")),
    ("ops_events.yaml", include_str!("../ops_events.yaml")),
    ("sli_metrics.yaml", include_str!("../sli_metrics.yaml")),
    ("security_signals.yaml", include_str!("../security_signals.yaml")),
    ("audit_events.yaml", include_str!("../audit_events.yaml")),
];

impl PipelineSpec {
    /// The pipelines that ship with the product, overlaid with those in `dir`.
    pub fn load_all(dir: Option<&Path>) -> Result<Vec<PipelineSpec>, SpecError> {
        let mut specs = Vec::new();
        for (file, text) in BUILT_IN {
            specs.push(Self::parse(file, text)?);
        }
        for (file, text) in dir.map(read_dir).transpose()?.unwrap_or_default() {
            let spec = Self::parse(&file, &text)?;
            specs.retain(|s| s.name != spec.name);
            specs.push(spec);
        }
        Ok(specs)
    }

    /// Those of `all` that are named, or all if none is.
    pub fn select(all: Vec<PipelineSpec>, names: &[String]) -> Result<Vec<PipelineSpec>, SpecError> {
        if let Some(unknown) = names.iter().find(|name| !all.iter().any(|s| &s.name == *name)) {
            return Err(SpecError::Unknown(unknown.clone()));
        }
        Ok(all.into_iter().filter(|s| names.is_empty() || names.contains(&s.name)).collect())
    }

    fn parse(file: &str, text: &str) -> Result<Self, SpecError> {
        let spec: PipelineSpec =
            serde_yaml_ng::from_str(text).map_err(|source| SpecError::Parse { file: file.to_owned(), source })?;
        Ok(spec.complete())
    }

    /// With the stream's name where no name or topic is given.
    pub fn complete(mut self) -> Self {
        if self.name.is_empty() {
            self.name = self.stream.name().to_owned();
        }
        if self.topics.is_empty() {
            self.topics.push(self.stream.name().to_owned());
        }
        self
    }

    /// Consumer group of the pipeline, in a deployment whose groups start with `prefix`.
    pub fn group(&self, prefix: &str) -> String {
        format!("{prefix}.{}", self.name)
    }
}

fn read_dir(dir: &Path) -> Result<Vec<(String, String)>, SpecError> {
    let fail = |path: &Path| {
        let path = path.display().to_string();
        move |source| SpecError::Read { path, source }
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(fail(dir))? {
        let path = entry.map_err(fail(dir))?.path();
        if path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
            let text = std::fs::read_to_string(&path).map_err(fail(&path))?;
            files.push((path.display().to_string(), text));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_has_a_built_in_pipeline() {
        let specs = PipelineSpec::load_all(None).unwrap();
        for stream in Stream::ALL {
            let spec = specs.iter().find(|s| s.stream == stream).unwrap();
            assert_eq!(spec.topics, [stream.name()]);
        }
        assert!(matches!(PipelineSpec::select(specs, &["nope".into()]), Err(SpecError::Unknown(_))));
    }

    #[test]
    fn a_folder_replaces_by_name_and_unknown_keys_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.yaml");
        std::fs::write(&path, "name: product_events\nstream: product_events\ntopics: [a, b]\n").unwrap();
        let specs = PipelineSpec::load_all(Some(dir.path())).unwrap();
        assert_eq!(specs.len(), 5);
        assert_eq!(specs.iter().find(|s| s.name == "product_events").unwrap().topics, ["a", "b"]);
        std::fs::write(&path, "name: x\nstream: product_events\ntopic: a\n").unwrap();
        let error = PipelineSpec::load_all(Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains("unknown field `topic`"), "{error}");
    }
}
