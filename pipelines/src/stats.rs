//! What the operators did, as counters.

use std::time::Duration;

use companyos_operators::ChainStats;

/// Counters of one pipeline.
pub(crate) struct Counters {
    pipeline: String,
}

impl Counters {
    pub(crate) fn new(pipeline: &str) -> Self {
        Self { pipeline: pipeline.to_owned() }
    }

    /// Adds one batch.
    pub(crate) fn record(&mut self, stats: &ChainStats, operators: Duration) {
        let pipeline = || self.pipeline.clone();
        metrics::counter!("companyos_events_in_total", "pipeline" => pipeline()).increment(stats.decoded);
        metrics::counter!("companyos_bytes_in_total", "pipeline" => pipeline()).increment(stats.bytes_in);
        metrics::counter!("companyos_duplicates_total", "pipeline" => pipeline()).increment(stats.duplicates);
        metrics::counter!("companyos_tombstones_total", "pipeline" => pipeline()).increment(stats.tombstones);
        metrics::histogram!("companyos_decode_seconds", "pipeline" => pipeline()).record(operators.as_secs_f64());
        for (reason, count) in &stats.quarantined {
            metrics::counter!("companyos_quarantined_total", "pipeline" => pipeline(), "reason" => reason.as_str())
                .increment(*count);
        }
    }
}
