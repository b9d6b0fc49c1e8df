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
    /// Line it begins at.
    pub line: Option<usize>,
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
        line: l.origin.line,
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

    /// As a table for people: a line for each object, in the order of files. An SLO `runs`; what it
    /// is made of is `loaded`; what is `refused` has the line and the field at fault.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["file", "kind", "name", "result", "field", "reason"]);
        let mut lines = Vec::new();
        for object in self.loaded.iter().filter(|object| !self.refused.iter().any(|r| object.is(r))) {
            let result = if object.kind == "SLO" { "runs" } else { "loaded" };
            let cells = [object.kind.as_str(), &object.name, result, "", ""];
            lines.push((object.file.clone(), object.document, object.line, cells.map(str::to_owned)));
        }
        for refused in &self.refused {
            let (kind, name) = (refused.kind.as_deref().unwrap_or("?"), refused.name.as_deref().unwrap_or("?"));
            let cells = [kind, name, "refused", &refused.field, &refused.reason];
            let file = refused.origin.file.display().to_string();
            lines.push((file, refused.origin.document, refused.origin.line, cells.map(str::to_owned)));
        }
        lines.sort();
        for (file, _, line, cells) in lines {
            let line = line.map(|l| format!(":{l}")).unwrap_or_default();
            table.add_row(std::iter::once(format!("{file}{line}")).chain(cells));
        }
        let objects = self.loaded.iter().filter(|object| !self.refused.iter().any(|r| object.is(r))).count();
        format!("{table}\n{objects} loaded, {} objectives run, {} refused", self.runnable.len(), self.refused.len())
    }
}

impl CheckedObject {
    /// Whether something was refused in this object.
    fn is(&self, refused: &Refused) -> bool {
        refused.origin.document == self.document && refused.origin.file.display().to_string() == self.file
    }
}

/// Names of the windows burn rates are given for.
pub fn window_names() -> impl Iterator<Item = &'static str> {
    WINDOWS.iter().map(|(name, _)| *name)
}
