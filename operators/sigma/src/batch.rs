//! What a rule set is evaluated over: columns of one batch of events and where those events came from.

use std::collections::HashMap;

use arrow::array::ArrayRef;
use serde::{Deserialize, Serialize};

/// The column that keyword searches look into: one text with the whole event.
pub const KEYWORDS: &str = "_keywords";

/// Where events come from, or what a rule asks for. A part a rule leaves out fits everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogSource {
    /// For example `aws`.
    pub product: Option<String>,
    /// For example `process_creation`.
    pub category: Option<String>,
    /// For example `cloudtrail`.
    pub service: Option<String>,
}

impl LogSource {
    /// Whether events of `events` are what a rule with this log source asks for.
    pub fn fits(&self, events: &LogSource) -> bool {
        let part = |asked: &Option<String>, given: &Option<String>| match (asked, given) {
            (None, _) => true,
            (Some(asked), Some(given)) => asked.eq_ignore_ascii_case(given),
            (Some(_), None) => false,
        };
        part(&self.product, &events.product)
            && part(&self.category, &events.category)
            && part(&self.service, &events.service)
    }
}

/// The log source of a batch's rows.
#[derive(Debug, Clone, Default)]
pub enum BatchSource {
    /// Every rule applies to every row.
    #[default]
    Any,
    /// All rows come from one source.
    Fixed(LogSource),
    /// Text columns say it row by row; a null or a missing column is a part that is not known.
    PerRow {
        /// Product of each row.
        product: Option<ArrayRef>,
        /// Category of each row.
        category: Option<ArrayRef>,
        /// Service of each row.
        service: Option<ArrayRef>,
    },
}

/// Events as columns: text, numbers, booleans, or lists of text for fields with several values.
///
/// A column that is missing, or a null in one, is a field the event does not have.
#[derive(Debug, Clone, Default)]
pub struct EventBatch {
    /// How many events.
    pub rows: usize,
    /// Columns by mapped field name, each `rows` long.
    pub columns: HashMap<String, ArrayRef>,
    /// Where the events came from.
    pub source: BatchSource,
}

impl EventBatch {
    /// A batch without columns.
    pub fn new(rows: usize) -> Self {
        Self { rows, ..Self::default() }
    }

    /// Adds a column.
    #[must_use]
    pub fn with(mut self, name: &str, array: ArrayRef) -> Self {
        self.columns.insert(name.to_owned(), array);
        self
    }

    /// Says where the events came from.
    #[must_use]
    pub fn from_source(mut self, source: BatchSource) -> Self {
        self.source = source;
        self
    }
}
