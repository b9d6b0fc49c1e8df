//! Reads Sigma YAML: rules, correlations, filters and `action: global|reset|repeat` documents.
//!
//! The parser crate reports errors of a whole text without their place, so a text is cut into its documents first
//! and each is parsed alone: one bad document never hides another, and every error has a file and a line.

use std::fmt;
use std::path::{Path, PathBuf};

use regex::Regex;
use rsigma_parser::{CorrelationRule, FilterRule, SigmaCollection, SigmaRule, parse_sigma_yaml};
use serde::Serialize;

use crate::nested::nested_value;

/// A rule that was not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Refused {
    /// The file, as it was named to the loader.
    pub file: String,
    /// The line in the file, from 1, where known.
    pub line: Option<u32>,
    /// The rule's id.
    pub id: Option<String>,
    /// The rule's title.
    pub title: Option<String>,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(rule) = self.title.as_ref().or(self.id.as_ref()) {
            write!(f, ": rule \"{rule}\"")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// A file or folder could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct LoadError {
    /// What was being read.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}

/// Where a document stands.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub file: String,
    pub line: u32,
    pub text: String,
}

impl Place {
    /// The line that begins with `needle`, else one that has it anywhere, else the document's own.
    pub fn line_of(&self, needle: &str) -> u32 {
        let key = |line: &str| line.trim_start_matches([' ', '-', '"', '\'']).starts_with(needle);
        let begins = self.text.lines().position(key);
        let found = begins.or_else(|| self.text.lines().position(|line| line.contains(needle)));
        self.line + found.map_or(0, |n| n as u32)
    }

    pub fn refuse(&self, id: &Option<String>, title: &str, needle: &str, reason: impl Into<String>) -> Refused {
        Refused {
            file: self.file.clone(),
            line: Some(self.line_of(needle)),
            id: id.clone(),
            title: Some(title.to_owned()),
            reason: reason.into(),
        }
    }
}

/// A detection rule and where it came from.
#[derive(Debug, Clone)]
pub struct LoadedRule {
    /// The parsed rule.
    pub rule: SigmaRule,
    pub(crate) place: Place,
}

/// A correlation and where it came from.
#[derive(Debug, Clone)]
pub struct LoadedCorrelation {
    /// The parsed correlation.
    pub rule: CorrelationRule,
    pub(crate) place: Place,
}

/// A filter and where it came from.
#[derive(Debug, Clone)]
pub struct LoadedFilter {
    /// The parsed filter.
    pub rule: FilterRule,
    pub(crate) place: Place,
}

/// What was read from one or more texts.
#[derive(Debug, Clone, Default)]
pub struct Loaded {
    /// Detection rules, in reading order.
    pub rules: Vec<LoadedRule>,
    /// Correlations, in reading order.
    pub correlations: Vec<LoadedCorrelation>,
    /// Filters, in reading order.
    pub filters: Vec<LoadedFilter>,
    /// Documents that could not be parsed.
    pub refused: Vec<Refused>,
    /// Documents that were taken although something in them was ignored.
    pub warnings: Vec<Refused>,
}

impl Loaded {
    /// Reads the documents of one text; `file` names it in errors.
    pub fn from_text(file: &str, text: &str) -> Loaded {
        let mut loaded = Loaded::default();
        let mut global: Option<String> = None;
        let mut chain: Vec<String> = Vec::new();
        for (line, doc) in documents(text) {
            let place = Place { file: file.to_owned(), line, text: doc.to_owned() };
            match action(doc) {
                Some("global") => {
                    global = Some(doc.to_owned());
                    continue;
                }
                Some("reset") => {
                    global = None;
                    continue;
                }
                Some("repeat") if !chain.is_empty() => chain.push(doc.to_owned()),
                _ => chain = vec![doc.to_owned()],
            }
            let before: Vec<&str> = global.iter().chain(&chain[..chain.len() - 1]).map(String::as_str).collect();
            loaded.add(&before, doc, place);
        }
        loaded
    }

    /// Reads a file, or every `.yml` and `.yaml` file under a folder, in order of path.
    pub fn from_path(path: &Path) -> Result<Loaded, LoadError> {
        let mut files = Vec::new();
        collect(path, &mut files)?;
        files.sort();
        let mut loaded = Loaded::default();
        for file in files {
            let bytes = std::fs::read(&file).map_err(|source| LoadError { path: file.clone(), source })?;
            let name = file.display().to_string();
            match String::from_utf8(bytes) {
                Ok(text) => loaded.merge(Loaded::from_text(&name, &text)),
                Err(_) => loaded.refused.push(Refused {
                    file: name,
                    line: None,
                    id: None,
                    title: None,
                    reason: "the file is not UTF-8".to_owned(),
                }),
            }
        }
        Ok(loaded)
    }

    /// Adds what another load found.
    pub fn merge(&mut self, other: Loaded) {
        self.rules.extend(other.rules);
        self.correlations.extend(other.correlations);
        self.filters.extend(other.filters);
        self.refused.extend(other.refused);
        self.warnings.extend(other.warnings);
    }

    fn add(&mut self, before: &[&str], doc: &str, place: Place) {
        let refuse = |reason: String| Refused {
            file: place.file.clone(),
            line: Some(error_line(&place, &reason)),
            id: top_level(doc, "id"),
            // What the document does not say itself, the one it completes may.
            title: [doc].iter().chain(before.iter().rev()).find_map(|d| top_level(d, "title")),
            reason: explained(&reason),
        };
        if let Some(name) = nested_value(doc) {
            self.refused.push(Refused {
                line: Some(place.line_of(&name)),
                ..refuse(format!("'{name}' has a list or a map among its values"))
            });
            return;
        }
        // What the documents before this one yield on their own is subtracted; the last document's rule remains.
        let skip = if before.is_empty() { Ok(SigmaCollection::new()) } else { parse_sigma_yaml(&join(before)) };
        let mut all = before.to_vec();
        all.push(doc);
        let (skip, parsed) = match (skip, parse_sigma_yaml(&join(&all))) {
            (Ok(skip), Ok(parsed)) => (skip, parsed),
            (Err(error), _) | (_, Err(error)) => {
                self.refused.push(refuse(error.to_string()));
                return;
            }
        };
        let rules = parsed.rules.into_iter().skip(skip.rules.len());
        let correlations = parsed.correlations.into_iter().skip(skip.correlations.len());
        let filters = parsed.filters.into_iter().skip(skip.filters.len());
        let count = self.rules.len() + self.correlations.len() + self.filters.len();
        self.rules.extend(rules.map(|rule| LoadedRule { rule, place: place.clone() }));
        self.correlations.extend(correlations.map(|rule| LoadedCorrelation { rule, place: place.clone() }));
        self.filters.extend(filters.map(|rule| LoadedFilter { rule, place: place.clone() }));
        let taken = self.rules.len() + self.correlations.len() + self.filters.len() > count;
        let notes = parsed.errors.into_iter().skip(skip.errors.len()).map(refuse);
        if taken { self.warnings.extend(notes) } else { self.refused.extend(notes) }
    }
}

fn join(docs: &[&str]) -> String {
    docs.join("\n---\n")
}

/// The documents of a YAML stream with the line each begins at. `---` in the first column is always a separator.
fn documents(text: &str) -> Vec<(u32, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 1u32, 0);
    let mut push = |from: usize, to: usize, line: u32| {
        let doc = &text[from..to];
        let blank = |l: &str| l.trim().is_empty() || l.trim_start().starts_with('#');
        if !doc.lines().all(blank) {
            let skipped = doc.lines().take_while(|l| blank(l)).count();
            let offset: usize = doc.split_inclusive('\n').take(skipped).map(str::len).sum();
            found.push((line + skipped as u32, &doc[offset..]));
        }
    };
    for (n, line) in text.split_inclusive('\n').enumerate() {
        let body = line.trim_end();
        if body == "---" || body.starts_with("--- #") || body == "..." {
            push(start, at, start_line);
            start = at + line.len();
            start_line = n as u32 + 2;
        }
        at += line.len();
    }
    push(start, text.len(), start_line);
    found
}

fn top_level(doc: &str, key: &str) -> Option<String> {
    let value = doc.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let value = value.split(" #").next().unwrap_or("").trim().trim_matches(['\'', '"']);
    (!value.is_empty()).then(|| value.to_owned())
}

fn action(doc: &str) -> Option<&str> {
    let value = doc.lines().find_map(|line| line.strip_prefix("action:"))?;
    Some(value.split(" #").next().unwrap_or("").trim().trim_matches(['\'', '"']))
}

/// A parser's message in one line. For conditions it draws a picture; what people get wrong there is told in words.
fn explained(message: &str) -> String {
    let shown = |line: &'_ str| {
        let (number, text) = line.split_once(" | ")?;
        number.trim().parse::<u32>().is_ok().then(|| text.to_owned())
    };
    let Some(condition) = message.lines().find_map(shown).filter(|_| message.starts_with("Condition")) else {
        return message.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    };
    if let Some((_, aggregation)) = condition.split_once('|') {
        let aggregation = aggregation.trim();
        return format!("'| {aggregation}' is the old form of correlations: write a correlation instead");
    }
    let mut words = condition.split(|c: char| !c.is_alphanumeric() && c != '_');
    if let Some(word) = words.find(|w| ["AND", "OR", "NOT", "OF", "THEM", "ALL", "ANY"].contains(w)) {
        return format!("'{word}' in the condition has to be written in lower case");
    }
    let expected = message.lines().find_map(|line| line.trim().strip_prefix("= ")).unwrap_or("not a condition");
    let at = message.split("--> 1:").nth(1).and_then(|rest| rest.lines().next()).unwrap_or("1");
    format!("the condition '{condition}' cannot be read from column {at} on: {expected}")
}

/// The best line for a parser's message: the one it names, else that of the word it quotes, else the document's.
fn error_line(place: &Place, reason: &str) -> u32 {
    if reason.starts_with("Condition") {
        return place.line_of("condition:");
    }
    if let Ok(pattern) = Regex::new(r"at line (\d+)")
        && let Some(n) = pattern.captures(reason).and_then(|c| c[1].parse::<u32>().ok())
    {
        return place.line + n.saturating_sub(1);
    }
    match reason.split('\'').nth(1) {
        Some(quoted) => place.line_of(quoted),
        None => place.line,
    }
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), LoadError> {
    let fail = |source| LoadError { path: path.to_owned(), source };
    let meta = std::fs::metadata(path).map_err(fail)?;
    if !meta.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let (child, kind) = (entry.path(), entry.file_type().map_err(fail)?);
        let yaml = child.extension().is_some_and(|e| e == "yml" || e == "yaml");
        // Links are not followed: a loop of them would never end.
        if kind.is_dir() || (kind.is_file() && yaml) {
            collect(&child, files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "title: A\nid: a1\nlogsource: {product: x}\ndetection:\n  sel:\n    f: 1\n  condition: sel\n";

    #[test]
    fn one_bad_document_does_not_hide_another() {
        let text = format!("{RULE}---\ntitle: B\ndetection:\n  sel:\n    f|nosuch: 1\n  condition: sel\n---\n{RULE}");
        let loaded = Loaded::from_text("x.yml", &text);
        assert_eq!(loaded.rules.len(), 2);
        assert_eq!(loaded.refused.len(), 1);
        assert_eq!(loaded.refused[0].to_string(), "x.yml:12: rule \"B\": Unknown modifier 'nosuch'");
    }

    #[test]
    fn yaml_errors_name_the_line_in_the_file() {
        let text = format!("{RULE}---\ntitle: B\nlogsource: [\n");
        let loaded = Loaded::from_text("x.yml", &text);
        assert_eq!(loaded.rules.len(), 1);
        assert!(loaded.refused[0].line.is_some_and(|l| l >= 10), "{:?}", loaded.refused);
        let bad = RULE.replace("condition: sel", "condition: sel and (");
        assert_eq!(Loaded::from_text("x.yml", &bad).refused[0].line, Some(7));
    }

    #[test]
    fn what_is_wrong_with_a_condition_is_one_line_of_words() {
        let refused = |condition: &str| {
            let text = RULE.replace("condition: sel", &format!("condition: {condition}"));
            let loaded = Loaded::from_text("x.yml", &text);
            (loaded.refused[0].line, loaded.refused[0].reason.clone())
        };
        for (condition, reason) in [
            (
                "sel | count() by ip > 5",
                "'| count() by ip > 5' is the old form of correlations: write a correlation instead",
            ),
            ("sel |near sel", "'| near sel' is the old form of correlations: write a correlation instead"),
            ("sel AND sel", "'AND' in the condition has to be written in lower case"),
        ] {
            assert_eq!(refused(condition), (Some(7), reason.to_owned()));
        }
        let (line, reason) = refused("sel and (sel");
        assert_eq!(line, Some(7));
        assert!(
            reason.starts_with("the condition 'sel and (sel' cannot be read from column 1") && !reason.contains('\n'),
            "{reason}"
        );
        // A document that only completes another is called by that one's title.
        let text = "action: global\ntitle: G\nlogsource: {}\ndetection: {condition: a | near b}\n---\ndetection: {a: {f: 1}}\n";
        assert_eq!(Loaded::from_text("x.yml", text).refused[0].title.as_deref(), Some("G"));
    }

    #[test]
    fn global_and_repeat_documents_complete_the_others() {
        let text = "action: global\ntitle: G\nlogsource: {product: x}\n---\ndetection:\n  sel:\n    f: 1\n  condition: sel\n---\naction: repeat\ntitle: H\n";
        let loaded = Loaded::from_text("x.yml", text);
        assert!(loaded.refused.is_empty(), "{:?}", loaded.refused);
        let titles: Vec<&str> = loaded.rules.iter().map(|r| r.rule.title.as_str()).collect();
        assert_eq!(titles, ["G", "H"]);
        assert_eq!(loaded.rules[1].place.line, 10);
    }
}
