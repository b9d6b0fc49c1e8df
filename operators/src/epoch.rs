//! The rows between two flushes on their way through the operators.

use arrow::array::{RecordBatch, StringArray, TimestampMicrosecondArray};
use companyos_schemas::Stream;

use crate::{
    error::OperatorError,
    record_log::{Logged, RecordLog},
    refusal::{Claim, Identity, Refusal, Reject, RowSource},
    stats::ChainStats,
};

/// A step of the chain: reads the columns, may replace some, decides about rows.
pub(crate) trait Operator {
    fn apply(&mut self, epoch: &mut Epoch) -> Result<(), OperatorError>;
}

/// What has been decided about a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Goes on, to the place residency found for it.
    Kept { place: u32 },
    /// Its id has been seen.
    Duplicate,
    /// It is among the refusals.
    Refused,
}

/// One batch and what is decided about it.
pub(crate) struct Epoch {
    pub stream: Stream,
    pub batch: RecordBatch,
    pub fates: Vec<Fate>,
    pub sources: Vec<RowSource>,
    pub refusals: Vec<Refusal>,
    pub log: RecordLog,
    pub stats: ChainStats,
}

impl Epoch {
    /// A text column of the stream, by name.
    pub fn text(&self, name: &'static str) -> Result<&StringArray, OperatorError> {
        column(&self.batch, name)
    }

    /// The record a row came from.
    pub fn record(&self, row: usize) -> Option<Logged<'_>> {
        self.sources.get(row).and_then(|source| self.log.get(source.record))
    }

    /// Takes a row out of the flow and into quarantine.
    pub fn refuse(&mut self, row: usize, reject: Reject) -> Result<(), OperatorError> {
        let name = |name| Ok::<_, OperatorError>(self.text(name)?.value(row).to_owned());
        let times: &TimestampMicrosecondArray = column(&self.batch, "occurred_at")?;
        let event_id = name("event_id")?;
        let identity = Identity {
            tenant: Claim::Named(name("tenant")?),
            env: Claim::Named(name("env")?),
            region: Claim::Named(name("region")?),
            event_id: event_id.get(..event_id.floor_char_boundary(256)).map(str::to_owned),
            occurred_at: Some(times.value(row)),
        };
        self.fates[row] = Fate::Refused;
        self.refusals.push(Refusal { source: self.sources[row], reject, identity });
        Ok(())
    }
}

/// A column by name and type.
pub(crate) fn column<'b, T: 'static>(batch: &'b RecordBatch, name: &'static str) -> Result<&'b T, OperatorError> {
    batch
        .column_by_name(name)
        .and_then(|column| column.as_any().downcast_ref())
        .ok_or_else(|| arrow::error::ArrowError::SchemaError(format!("no such column: {name}")).into())
}
