//! What can go wrong in a chain that is not an event's fault.

/// The chain cannot go on; its caller throws it away and starts again from the tables.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Columns that do not fit together: a defect here.
    #[error("building columns: {0}")]
    Columns(#[from] arrow::error::ArrowError),
    /// More was pushed without a flush than one batch can hold.
    #[error("more than {limit} bytes were pushed without a flush")]
    EpochTooLarge {
        /// The bound.
        limit: usize,
    },
    /// The local files of the duplicate filter failed.
    #[error("duplicate filter's spill file: {0}")]
    DedupSpill(#[source] std::io::Error),
    /// An event could not be sealed.
    #[error("sealing a quarantined event: {0}")]
    Seal(#[from] crate::seal::SealError),
}
