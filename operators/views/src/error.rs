//! Why a view cannot be made or read.

use datafusion::{error::DataFusionError, sql::sqlparser::tokenizer::Location};

/// A statement or a view that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The text is not SQL.
    #[error("{0}")]
    Syntax(String),
    /// SQL that a view cannot be, with the place in the statement.
    #[error("{}{reason}", place(*.line, *.column))]
    Refused {
        /// Line, from 1; 0 if the place is not known.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// Why, and what to write instead where there is something.
        reason: String,
    },
    /// The planner's objection: a column that does not exist, types that do not fit.
    #[error("{}", .0.strip_backtrace())]
    Plan(#[source] Box<DataFusionError>),
    /// State that is not of this view.
    #[error("view {view}: state has no column {column}")]
    State {
        /// View.
        view: String,
        /// Missing column.
        column: String,
    },
}

impl ViewError {
    pub(crate) fn refused(at: Location, reason: impl Into<String>) -> Self {
        Self::Refused { line: at.line, column: at.column, reason: reason.into() }
    }
}

impl From<DataFusionError> for ViewError {
    fn from(error: DataFusionError) -> Self {
        Self::Plan(Box::new(error))
    }
}

fn place(line: u64, column: u64) -> String {
    match line {
        0 => String::new(),
        _ => format!("line {line}, column {column}: "),
    }
}
