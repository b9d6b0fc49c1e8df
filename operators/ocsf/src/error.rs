//! Why a batch or a row cannot be read as security events.

/// What is wrong, and where.
#[derive(Debug, thiserror::Error)]
pub enum OcsfError {
    /// A column of `security_signals` with another type than the contract's.
    #[error("column {column:?} is {found}, expected {expected}")]
    ColumnType {
        /// The column.
        column: &'static str,
        /// Its type in the batch.
        found: String,
        /// Its type in the contract.
        expected: &'static str,
    },
    /// A column of more than 2 GiB of text.
    #[error("field {0:?}: more than 2 GiB of text in one batch")]
    TooLarge(String),
    /// Columns that could not be put together.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
}
