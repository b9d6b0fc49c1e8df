//! SLO burn rates as a job: OpenSLO files to operators.

use std::{path::PathBuf, sync::Arc, time::Duration};

use companyos_slo::{CompiledSlo, SloOperator, compile, load_path};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::tasks::{Definitions, OperatorFactory, Reloading, watch_files};

/// `[slo]` of the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SloConfig {
    /// OpenSLO files and folders; without any no SLO is watched.
    pub paths: Vec<PathBuf>,
    /// How often it is looked whether they changed.
    #[serde(with = "humantime_serde")]
    pub reload_interval: Duration,
}

impl Default for SloConfig {
    fn default() -> Self {
        Self { paths: Vec::new(), reload_interval: Duration::from_secs(5) }
    }
}

/// What can be run of the configured files; what cannot is logged with its reason.
pub fn load_slos(paths: &[PathBuf]) -> Vec<CompiledSlo> {
    let mut slos = Vec::new();
    for path in paths {
        let report = load_path(path);
        let compiled = compile(&report);
        for refused in report.refused.iter().chain(&compiled.refused) {
            tracing::error!(%refused, "an SLO is left out");
        }
        slos.extend(compiled.slos);
    }
    slos
}

/// A factory of operators that follow the configured files. Call within a tokio runtime.
pub fn slo_operators(config: &SloConfig, stop: CancellationToken) -> OperatorFactory {
    let paths = config.paths.clone();
    let load = move || Ok::<_, std::convert::Infallible>(load_slos(&paths));
    let first = load_slos(&config.paths);
    let definitions: Definitions<Vec<CompiledSlo>> =
        watch_files(first, config.paths.clone(), config.reload_interval, stop, load);
    Arc::new(move |_| {
        let mut definitions = definitions.clone();
        let operator = SloOperator::new(definitions.borrow_and_update().clone());
        Ok(Box::new(Reloading::new(operator, definitions, |operator: &mut SloOperator, latest| {
            operator.set_definitions(latest);
            Ok(())
        })))
    })
}
