//! Reads OpenSLO files and folders. Every document ends up either loaded or refused with the field
//! and the reason; nothing is passed over.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::de::DeserializeOwned;
use serde_yaml_ng::Value;

use crate::{
    error::{Fault, FieldFault, Origin, Refused},
    locate::Source,
    openslo::{Document, Object},
    validate::validate,
};

/// What was found at a path.
#[derive(Debug, Clone, Default)]
pub struct LoadReport {
    /// Valid OpenSLO objects.
    pub loaded: Vec<Loaded>,
    /// Everything else.
    pub refused: Vec<Refused>,
}

/// A valid object and where it stands.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Where.
    pub origin: Origin,
    /// What.
    pub object: Object,
    pub(crate) source: Source,
}

const KINDS: &str = "SLO, SLI, Service, AlertPolicy, AlertCondition, AlertNotificationTarget, DataSource";

/// Loads a file, or all `.yaml` and `.yml` files below a folder in order of their names.
pub fn load_path(path: &Path) -> LoadReport {
    let mut report = LoadReport::default();
    let mut files = Vec::new();
    collect(path, true, &mut files, &mut report);
    files.sort();
    for file in files {
        match std::fs::read_to_string(&file) {
            Ok(text) => load_text(&file, &text, &mut report),
            Err(e) => report.refused.push(unreadable(&file, &e)),
        }
    }
    refuse_duplicates(&mut report);
    report
}

/// Loads the documents of a file's text.
pub fn load_str(file: &Path, text: &str) -> LoadReport {
    let mut report = LoadReport::default();
    load_text(file, text, &mut report);
    refuse_duplicates(&mut report);
    report
}

fn collect(path: &Path, named: bool, files: &mut Vec<PathBuf>, report: &mut LoadReport) {
    if path.is_dir() {
        match std::fs::read_dir(path) {
            Ok(entries) => {
                for entry in entries {
                    match entry {
                        Ok(entry) => collect(&entry.path(), false, files, report),
                        Err(e) => report.refused.push(unreadable(path, &e)),
                    }
                }
            }
            Err(e) => report.refused.push(unreadable(path, &e)),
        }
    } else if named || path.extension().is_some_and(|e| e == "yaml" || e == "yml") {
        files.push(path.to_owned());
    }
}

fn unreadable(file: &Path, error: &std::io::Error) -> Refused {
    Refused {
        origin: Origin { file: file.to_owned(), document: 0, line: None },
        kind: None,
        name: None,
        field: ".".to_owned(),
        fault: Fault::Unreadable,
        reason: error.to_string(),
    }
}

fn load_text(file: &Path, text: &str, report: &mut LoadReport) {
    let mut document = 0;
    for (first_line, part) in split(text) {
        let mut origin = Origin { file: file.to_owned(), document, line: Some(first_line) };
        let value: Value = match serde_yaml_ng::from_str(&part) {
            Ok(Value::Null) => continue,
            Ok(value) => value,
            Err(e) => {
                document += 1;
                origin.line = e.location().map(|l| first_line + l.line() - 1).or(origin.line);
                let reason = without_place(&e.to_string(), ".");
                report.refused.push(Refused {
                    origin,
                    kind: None,
                    name: None,
                    field: ".".to_owned(),
                    fault: Fault::Malformed,
                    reason,
                });
                continue;
            }
        };
        let text: Arc<str> = part.into();
        let members: Vec<(Value, Option<usize>)> = match value {
            Value::Sequence(members) => members.into_iter().enumerate().map(|(at, m)| (m, Some(at))).collect(),
            value => vec![(value, None)],
        };
        for (value, member) in members {
            let source = Source { text: Arc::clone(&text), first_line, member };
            let mut origin = Origin { file: file.to_owned(), document, line: Some(source.line(".")) };
            document += 1;
            match object(&value, &source) {
                Ok(object) => report.loaded.push(Loaded { origin, object, source }),
                Err(fault) => {
                    origin.line = Some(source.line(&fault.field));
                    let text = |v: Option<&Value>| v.and_then(Value::as_str).map(str::to_owned);
                    report.refused.push(Refused {
                        origin,
                        kind: text(value.get("kind")),
                        name: text(value.get("metadata").and_then(|m| m.get("name"))),
                        field: fault.field,
                        fault: fault.fault,
                        reason: fault.reason,
                    });
                }
            }
        }
    }
}

/// Documents with the line each begins at. YAML does not allow `---` at the start of a line to mean
/// anything else, not even inside text.
fn split(text: &str) -> Vec<(usize, String)> {
    let mut parts = vec![(1, String::new())];
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end();
        if bare == "---" || bare.starts_with("--- ") {
            parts.push((index + 1, String::new()));
        }
        if let Some((_, part)) = parts.last_mut()
            && bare != "..."
        {
            part.push_str(line);
        }
    }
    parts
}

fn object(value: &Value, source: &Source) -> Result<Object, FieldFault> {
    if !value.is_mapping() {
        return Err(FieldFault::new(".", Fault::Malformed, "is not a mapping"));
    }
    match value.get("apiVersion") {
        Some(Value::String(version)) if version == "openslo/v1" => {}
        Some(Value::String(other)) => {
            let reason = match other.starts_with("openslo/") || other.starts_with("openslo.com/") {
                true => format!("{other:?} is another version of OpenSLO, with other fields; openslo/v1 is supported"),
                false => format!("{other:?} is not OpenSLO; openslo/v1 is supported"),
            };
            return Err(FieldFault::unsupported("apiVersion", reason));
        }
        Some(_) => return Err(FieldFault::new("apiVersion", Fault::Malformed, "is not text")),
        None => return Err(FieldFault::new("apiVersion", Fault::Malformed, "is missing")),
    }
    let kind = match value.get("kind") {
        Some(Value::String(kind)) => kind.as_str(),
        Some(_) => return Err(FieldFault::new("kind", Fault::Malformed, "is not text")),
        None => return Err(FieldFault::new("kind", Fault::Malformed, "is missing")),
    };
    let object = match kind {
        "SLO" => Object::Slo(document(value, source)?),
        "SLI" => Object::Sli(document(value, source)?),
        "Service" => Object::Service(document(value, source)?),
        "AlertPolicy" => Object::AlertPolicy(document(value, source)?),
        "AlertCondition" => Object::AlertCondition(document(value, source)?),
        "AlertNotificationTarget" => Object::AlertNotificationTarget(document(value, source)?),
        "DataSource" => Object::DataSource(document(value, source)?),
        other => {
            return Err(FieldFault::unsupported("kind", format!("{other:?} is not supported; one of {KINDS} is")));
        }
    };
    validate(&object)?;
    Ok(object)
}

fn document<S: DeserializeOwned>(value: &Value, source: &Source) -> Result<Document<S>, FieldFault> {
    // From the text where that can be: a value has lost what was written twice.
    let result = match source.member {
        None => serde_path_to_error::deserialize(serde_yaml_ng::Deserializer::from_str(&source.text)),
        Some(_) => serde_path_to_error::deserialize(value),
    };
    result.map_err(|e: serde_path_to_error::Error<serde_yaml_ng::Error>| {
        let path = e.path().to_string();
        let reason = without_place(&e.inner().to_string(), &path);
        // serde names the missing field in its words only; the path ends at its parent.
        let quoted = |start: &str| {
            reason.find(start).and_then(|at| reason[at + start.len()..].split('`').next().map(str::to_owned))
        };
        let join = |field: String| match path.as_str() {
            "." => field,
            path if path == field || path.ends_with(&format!(".{field}")) => path.to_owned(),
            path => format!("{path}.{field}"),
        };
        if let Some(field) = quoted("unknown field `") {
            FieldFault::unsupported(join(field), "is not a field of OpenSLO v1")
        } else if let Some(field) = quoted("missing field `") {
            let field = match path.as_str() {
                "." => field,
                path => format!("{path}.{field}"),
            };
            FieldFault::new(field, Fault::Malformed, "is missing")
        } else {
            FieldFault::new(path, Fault::Malformed, reason)
        }
    })
}

/// The parser's words without path and place, which the refusal tells itself: the place in them
/// counts lines from the beginning of the document.
fn without_place(reason: &str, path: &str) -> String {
    let reason = reason.strip_prefix(&format!("{path}: ")).unwrap_or(reason);
    match reason.rfind(" at line ") {
        Some(at) => reason[..at].to_owned(),
        None => reason.to_owned(),
    }
}

fn refuse_duplicates(report: &mut LoadReport) {
    let mut seen: BTreeMap<(&'static str, String), Origin> = BTreeMap::new();
    let mut kept = Vec::new();
    for loaded in std::mem::take(&mut report.loaded) {
        let (kind, name) = (loaded.object.kind(), loaded.object.metadata().name.clone());
        match seen.get(&(kind, name.clone())) {
            None => {
                seen.insert((kind, name), loaded.origin.clone());
                kept.push(loaded);
            }
            Some(first) => {
                let line = first.line.map(|l| format!(":{l}")).unwrap_or_default();
                let reason = format!("{} {name:?} is already in {}{line}", kind, first.file.display());
                report.refused.push(loaded.fault(FieldFault::new("metadata.name", Fault::Duplicate, reason)));
            }
        }
    }
    report.loaded = kept;
}

impl Loaded {
    /// A fault found in it.
    pub(crate) fn fault(&self, fault: FieldFault) -> Refused {
        let line = Some(self.source.line(&fault.field));
        fault.at(&Origin { line, ..self.origin.clone() }, self.object.kind(), &self.object.metadata().name)
    }
}
