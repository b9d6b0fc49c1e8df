//! Why an OpenSLO document, or a part of one, is not taken: always with where, what and why.

use std::path::PathBuf;

use serde::Serialize;

/// Where a document stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// File.
    pub file: PathBuf,
    /// Position of the document in its file, from 0; members of a top-level list count as documents.
    pub document: usize,
    /// Line, from 1: of the fault where the parser tells it, else where the document begins.
    pub line: Option<usize>,
}

/// What kind of fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The file cannot be read.
    Unreadable,
    /// Not YAML, or a field of the wrong type or missing.
    Malformed,
    /// A field, kind, version or data source that is not supported.
    Unsupported,
    /// A field whose value is not allowed.
    Invalid,
    /// A reference to an object that is not there.
    Unresolved,
    /// A second object of the same kind and name.
    Duplicate,
}

/// A document, or an objective of one, that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error(
    "{}{}: document {}: {} {}: {field}: {reason}",
    origin.file.display(),
    origin.line.map(|l| format!(":{l}")).unwrap_or_default(),
    origin.document,
    kind.as_deref().unwrap_or("unknown kind"),
    name.as_deref().unwrap_or("without name")
)]
pub struct Refused {
    /// Where.
    pub origin: Origin,
    /// `kind` of the object, if it could be read.
    pub kind: Option<String>,
    /// `metadata.name` of the object, if it could be read.
    pub name: Option<String>,
    /// Path of the field at fault, such as `spec.objectives[0].target`; `.` for the whole document.
    pub field: String,
    /// Sort of fault.
    pub fault: Fault,
    /// Why, in words.
    pub reason: String,
}

/// A fault found in an object whose place the caller knows.
#[derive(Debug, Clone)]
pub(crate) struct FieldFault {
    pub field: String,
    pub fault: Fault,
    pub reason: String,
}

impl FieldFault {
    pub(crate) fn new(field: impl Into<String>, fault: Fault, reason: impl Into<String>) -> Self {
        Self { field: field.into(), fault, reason: reason.into() }
    }

    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(field, Fault::Invalid, reason)
    }

    pub(crate) fn unsupported(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(field, Fault::Unsupported, reason)
    }

    pub(crate) fn at(self, origin: &Origin, kind: &str, name: &str) -> Refused {
        Refused {
            origin: origin.clone(),
            kind: Some(kind.to_owned()),
            name: Some(name.to_owned()),
            field: self.field,
            fault: self.fault,
            reason: self.reason,
        }
    }
}
