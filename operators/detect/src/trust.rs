//! Source authenticity before anything else: forged and replayed signals are counted and passed
//! over, and times are corrected for sources whose clock is known to be off.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray},
    compute::filter_record_batch,
};
use companyos_ocsf::{Authenticator, SignalColumns, SourceMemory, TrustConfig, TrustError, TrustStats};
use companyos_stream::{KeyedState, StreamError};

/// Checks signals by what their sources promised.
#[derive(Debug)]
pub(crate) struct Trust {
    authenticator: Authenticator,
    pub memory: KeyedState<SourceMemory>,
    pub stats: TrustStats,
    idle: bool,
}

impl Trust {
    pub fn new(config: &TrustConfig) -> Result<Self, TrustError> {
        Ok(Self {
            authenticator: Authenticator::new(config)?,
            memory: KeyedState::new("sources"),
            stats: TrustStats::default(),
            idle: config.sources.is_empty(),
        })
    }

    /// The rows that are accepted, at their corrected times.
    pub fn admit(&mut self, batch: &RecordBatch, now: i64) -> Result<RecordBatch, StreamError> {
        if self.idle {
            return Ok(batch.clone());
        }
        let columns = SignalColumns::new(batch).map_err(|e| StreamError::Operator(e.to_string()))?;
        let mut accepted = Vec::with_capacity(columns.len());
        let mut times = Vec::with_capacity(columns.len());
        for index in 0..columns.len() {
            let row = columns.row(index);
            let expires = self.authenticator.expires_at(&row, row.ingested_at.unwrap_or(now));
            let (authenticator, stats) = (&self.authenticator, &mut self.stats);
            let mut verdict = None;
            self.memory.update(&Authenticator::state_key(&row), expires, |memory| {
                verdict = Some(authenticator.check(&row, None, now, memory, stats));
            });
            accepted.push(verdict.as_ref().is_some_and(|v| v.accepted));
            times.push(verdict.map_or(row.occurred_at, |v| v.corrected_at));
        }
        let mut arrays: Vec<ArrayRef> = batch.columns().to_vec();
        if let Ok(index) = batch.schema().index_of("occurred_at")
            && let Some(column) = arrays.get_mut(index)
        {
            *column = Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"));
        }
        let corrected = RecordBatch::try_new(batch.schema(), arrays)?;
        Ok(filter_record_batch(&corrected, &BooleanArray::from(accepted))?)
    }
}
