//! `[worker]` of the configuration.

use std::{path::PathBuf, time::Duration};

use companyos_sinks::delta::FileOptions;
use serde::{Deserialize, Serialize};

use crate::spec::{PipelineSpec, SpecError};

/// How a worker runs its pipelines.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// Names of the pipelines to run; empty runs all that are declared.
    pub pipelines: Vec<String>,
    /// Folder of pipeline files that replace the built-in ones of the same name or add to them.
    pub pipelines_dir: Option<PathBuf>,
    /// How often rows become visible.
    #[serde(with = "humantime_serde")]
    pub commit_interval: Duration,
    /// An epoch is committed early when it holds this many bytes of columns. Twice this much may
    /// be held at a time, per member.
    pub epoch_max_bytes: usize,
    /// Rows an operator batch holds at most.
    pub batch_rows: usize,
    /// Members (threads) per pipeline in this process.
    pub members: usize,
    /// Topic that announces quarantined events; empty announces none.
    pub quarantine_topic: String,
    /// How data files are written.
    pub files: FileOptions,
}

impl WorkerConfig {
    /// The pipelines to run: of the built-in ones and those in the folder, the ones named.
    pub fn load_pipelines(&self) -> Result<Vec<PipelineSpec>, SpecError> {
        PipelineSpec::select(PipelineSpec::load_all(self.pipelines_dir.as_deref())?, &self.pipelines)
    }
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            pipelines: Vec::new(),
            pipelines_dir: None,
            commit_interval: Duration::from_secs(1),
            epoch_max_bytes: 32 << 20,
            batch_rows: 8192,
            members: 1,
            quarantine_topic: "quarantine".to_owned(),
            files: FileOptions::default(),
        }
    }
}
