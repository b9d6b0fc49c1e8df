//! Tells an author which rules of a file or folder load, which do not and why, and which fields they need.

use std::path::Path;

use serde::Serialize;

use crate::batch::{KEYWORDS, LogSource};
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
    /// Those that no event of its log source is known to have.
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

impl CheckEntry {
    /// A document that could not be read as anything.
    pub fn refused(refused: &Refused) -> CheckEntry {
        CheckEntry {
            file: refused.file.clone(),
            line: refused.line,
            kind: "unknown".to_owned(),
            id: refused.id.clone(),
            title: refused.title.clone(),
            refused: Some(refused.reason.clone()),
            warnings: Vec::new(),
            fields: Vec::new(),
            unknown_fields: Vec::new(),
        }
    }
}

/// Whether events of a log source can have a column.
pub type KnownField<'a> = &'a dyn Fn(&LogSource, &str) -> bool;

/// Checks a file, or every `.yml` and `.yaml` file under a folder, as one set.
pub fn check_path(path: &Path, mapping: &FieldMapping, known: KnownField<'_>) -> Result<CheckReport, LoadError> {
    Ok(check(&Loaded::from_path(path)?, mapping, known))
}

/// Checks one text; `file` names it in the report.
pub fn check_text(file: &str, text: &str, mapping: &FieldMapping, known: KnownField<'_>) -> CheckReport {
    check(&Loaded::from_text(file, text), mapping, known)
}

fn check(loaded: &Loaded, mapping: &FieldMapping, known: KnownField<'_>) -> CheckReport {
    let (rules, refused_rules) = RuleSet::compile(loaded, mapping);
    let (correlations, refused_correlations) = CorrelationSet::compile(loaded, &rules, mapping);
    CheckReport::new(loaded, (&rules, &refused_rules), (&correlations, &refused_correlations), known)
}

impl CheckReport {
    /// The report on what was loaded and what compiling it gave.
    pub fn new(
        loaded: &Loaded,
        (rules, refused_rules): (&RuleSet, &[Refused]),
        (correlations, refused_correlations): (&CorrelationSet, &[Refused]),
        known: KnownField<'_>,
    ) -> CheckReport {
        let entry = |kind: &str, place: (&str, u32), id: &Option<String>, title: &str, fields: Vec<Needed>| {
            let warnings = loaded.warnings.iter().filter(|w| w.file == place.0 && w.title.as_deref() == Some(title));
            let (unknown, all): (Vec<Needed>, Vec<Needed>) = fields.into_iter().partition(|(_, known)| !known);
            let names = |fields: &[Needed]| fields.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
            let unknown_fields = names(&unknown);
            let mut fields = names(&[all, unknown].concat());
            fields.sort_unstable();
            CheckEntry {
                file: place.0.to_owned(),
                line: Some(place.1),
                kind: kind.to_owned(),
                id: id.clone(),
                title: Some(title.to_owned()),
                refused: None,
                warnings: warnings.map(|w| w.reason.clone()).collect(),
                fields,
                unknown_fields,
            }
        };
        let needed = |source: &LogSource, fields: &[String]| -> Vec<Needed> {
            fields.iter().map(|f| (f.clone(), f == KEYWORDS || known(source, f))).collect()
        };
        let mut entries = Vec::new();
        for rule in rules.rules() {
            let fields = needed(&rule.source, &rule.fields);
            entries.push(entry("rule", (rule.file.as_str(), rule.line), &rule.id, &rule.title, fields));
        }
        for (at, c) in correlations.correlations().iter().enumerate() {
            // Its columns are those of its rules' events, whatever their sources.
            let fields = needed(&LogSource::default(), &correlations.fields_of(at));
            entries.push(entry("correlation", (c.file.as_str(), c.line), &c.id, &c.title, fields));
        }
        for filter in &loaded.filters {
            let place = (filter.place.file.as_str(), filter.place.line);
            entries.push(entry("filter", place, &filter.rule.id, &filter.rule.title, Vec::new()));
        }
        let refuse =
            |kind: &str, refused: &Refused| CheckEntry { kind: kind.to_owned(), ..CheckEntry::refused(refused) };
        entries.extend(loaded.refused.iter().map(CheckEntry::refused));
        entries.extend(refused_rules.iter().map(|r| refuse("rule", r)));
        entries.extend(refused_correlations.iter().map(|r| refuse("correlation", r)));
        entries.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        CheckReport { entries }
    }
}

/// A column and whether events can have it.
type Needed = (String, bool);
