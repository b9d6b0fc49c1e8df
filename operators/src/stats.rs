//! Counts of one flush, for metrics and for the books: what was pushed is what came out.

use std::{collections::BTreeMap, sync::Arc};

use companyos_schemas::quarantine::Reason;

/// What happened to the records and events since the last flush.
///
/// `decoded` + quarantined at decoding = events pushed, and every decoded event was routed, dropped
/// as a duplicate or quarantined later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainStats {
    /// Records pushed.
    pub records: u64,
    /// Bytes of their values.
    pub bytes_in: u64,
    /// Records without a value.
    pub tombstones: u64,
    /// Events that became rows.
    pub decoded: u64,
    /// Rows with a route.
    pub routed: u64,
    /// Rows dropped because their id had been seen.
    pub duplicates: u64,
    /// Events quarantined, by reason.
    pub quarantined: BTreeMap<Reason, u64>,
    /// What DLP did, by rule id and action.
    pub dlp: BTreeMap<(Arc<str>, &'static str), u64>,
}
