//! What `companyos slo check` says: everything found at a path, and what keeps it from running.

use std::path::Path;

use comfy_table::{ContentArrangement, Table, presets::UTF8_BORDERS_ONLY};
use serde::Serialize;

use crate::{compile::compile, error::Refused, load::load_path, tables::WINDOWS};

/// The result of a check.
#[derive(Debug, Clone, Serialize)]
pub struct CheckReport {
    /// Objects that are valid OpenSLO.
    pub loaded: Vec<CheckedObject>,
    /// Objectives that run here.
    pub runnable: Vec<CheckedSlo>,
    /// What is not valid, or valid but cannot run here.
    pub refused: Vec<Refused>,
}

/// A valid object.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedObject {
    /// File.
    pub file: String,
    /// Document in it.
    pub document: usize,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// An objective that runs.
#[derive(Debug, Clone, Serialize)]
pub struct CheckedSlo {
    /// Name.
    pub slo: String,
    /// Service.
    pub service: String,
    /// Target.
    pub objective: f64,
    /// Stream it is measured on.
    pub stream: String,
    /// Alert conditions.
    pub conditions: Vec<String>,
}

/// Loads and compiles what is at a path.
pub fn check_path(path: &Path) -> CheckReport {
    let report = load_path(path);
    let compiled = compile(&report);
    let loaded = report.loaded.iter().map(|l| CheckedObject {
        file: l.origin.file.display().to_string(),
        document: l.origin.document,
        kind: l.object.kind().to_owned(),
        name: l.object.metadata().name.clone(),
    });
    let runnable = compiled.slos.iter().map(|s| CheckedSlo {
        slo: s.slo.clone(),
        service: s.service.clone(),
        objective: s.objective,
        stream: s.stream.to_string(),
        conditions: s.rules.iter().map(|r| format!("{}/{}", r.policy, r.condition)).collect(),
    });
    CheckReport {
        loaded: loaded.collect(),
        runnable: runnable.collect(),
        refused: report.refused.into_iter().chain(compiled.refused).collect(),
    }
}

impl CheckReport {
    /// Whether there is something and nothing of it was refused: what the exit code tells.
    pub fn is_ok(&self) -> bool {
        self.refused.is_empty() && !self.loaded.is_empty()
    }

    /// As a table for people.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["file", "kind", "name", "result", "field", "reason"]);
        for object in &self.loaded {
            let refused = self.refused.iter().any(|r| {
                r.kind.as_deref() == Some(&object.kind)
                    && r.name.as_deref() == Some(&object.name)
                    && r.origin.document == object.document
                    && r.origin.file.display().to_string() == object.file
            });
            if !refused {
                table.add_row([object.file.as_str(), &object.kind, &object.name, "loaded", "", ""]);
            }
        }
        for refused in &self.refused {
            let line = refused.origin.line.map(|l| format!(":{l}")).unwrap_or_default();
            table.add_row([
                format!("{}{line}", refused.origin.file.display()).as_str(),
                refused.kind.as_deref().unwrap_or("?"),
                refused.name.as_deref().unwrap_or("?"),
                "refused",
                &refused.field,
                &refused.reason,
            ]);
        }
        table.to_string()
    }
}

/// Names of the windows burn rates are given for.
pub fn window_names() -> impl Iterator<Item = &'static str> {
    WINDOWS.iter().map(|(name, _)| *name)
}
