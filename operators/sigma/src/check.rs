//! Tells an author which rules of a file or folder load, which do not and why, and which fields they need.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;

use crate::batch::KEYWORDS;
use crate::correlation::CorrelationSet;
use crate::load::{LoadError, Loaded, Refused};
use crate::mapping::FieldMapping;
use crate::ruleset::RuleSet;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// One entry per document, in order of file and line.
    pub entries: Vec<CheckEntry>,
}

/// One document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckEntry {
    /// The file.
    pub file: String,
    /// The line: of the problem, if there is one, else where the document begins.
    pub line: Option<u32>,
    /// `rule`, `correlation`, `filter`, or `unknown` if it could not be parsed.
    pub kind: String,
    /// The id.
    pub id: Option<String>,
    /// The title.
    pub title: Option<String>,
    /// Why it is refused; absent if it loads.
    pub refused: Option<String>,
    /// What was ignored in a document that loads.
    pub warnings: Vec<String>,
    /// The columns it needs.
    pub fields: Vec<String>,
    /// Those that are not among the known ones.
    pub unknown_fields: Vec<String>,
}

impl CheckReport {
    /// How many load.
    pub fn loaded(&self) -> usize {
        self.entries.iter().filter(|e| e.refused.is_none()).count()
    }

    /// How many are refused.
    pub fn refused(&self) -> usize {
        self.entries.len() - self.loaded()
    }
}

/// Checks a file, or every `.yml` and `.yaml` file under a folder, as one set. Without `known_fields` no field is
/// unknown.
pub fn check_path(
    path: &Path,
    mapping: &FieldMapping,
    known_fields: Option<&BTreeSet<String>>,
) -> Result<CheckReport, LoadError> {
    Ok(check(&Loaded::from_path(path)?, mapping, known_fields))
}

/// Checks one text; `file` names it in the report.
pub fn check_text(
    file: &str,
    text: &str,
    mapping: &FieldMapping,
    known_fields: Option<&BTreeSet<String>>,
) -> CheckReport {
    check(&Loaded::from_text(file, text), mapping, known_fields)
}

fn check(loaded: &Loaded, mapping: &FieldMapping, known: Option<&BTreeSet<String>>) -> CheckReport {
    let (rules, refused_rules) = RuleSet::compile(loaded, mapping);
    let (correlations, refused_correlations) = CorrelationSet::compile(loaded, &rules, mapping);
    let entry = |kind: &str, file: &str, line: u32, id: &Option<String>, title: &str, fields: Vec<String>| {
        let unknown = |f: &&String| f.as_str() != KEYWORDS && known.is_some_and(|known| !known.contains(*f));
        let warnings = loaded.warnings.iter().filter(|w| w.file == file && w.title.as_deref() == Some(title));
        CheckEntry {
            file: file.to_owned(),
            line: Some(line),
            kind: kind.to_owned(),
            id: id.clone(),
            title: Some(title.to_owned()),
            refused: None,
            warnings: warnings.map(|w| w.reason.clone()).collect(),
            unknown_fields: fields.iter().filter(unknown).cloned().collect(),
            fields,
        }
    };
    let mut entries = Vec::new();
    for rule in rules.rules() {
        entries.push(entry("rule", &rule.file, rule.line, &rule.id, &rule.title, rule.fields.clone()));
    }
    for (at, c) in correlations.correlations().iter().enumerate() {
        entries.push(entry("correlation", &c.file, c.line, &c.id, &c.title, correlations.fields_of(at)));
    }
    for filter in &loaded.filters {
        let place = &filter.place;
        entries.push(entry("filter", &place.file, place.line, &filter.rule.id, &filter.rule.title, Vec::new()));
    }
    let refuse = |kind: &str, refused: &Refused| CheckEntry {
        file: refused.file.clone(),
        line: refused.line,
        kind: kind.to_owned(),
        id: refused.id.clone(),
        title: refused.title.clone(),
        refused: Some(refused.reason.clone()),
        warnings: Vec::new(),
        fields: Vec::new(),
        unknown_fields: Vec::new(),
    };
    entries.extend(loaded.refused.iter().map(|r| refuse("unknown", r)));
    entries.extend(refused_rules.iter().map(|r| refuse("rule", r)));
    entries.extend(refused_correlations.iter().map(|r| refuse("correlation", r)));
    entries.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    CheckReport { entries }
}
