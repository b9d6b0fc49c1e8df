//! The chain of one partition: decode, residency, DLP, duplicates, and quarantine beside them.

use std::sync::Arc;

use arrow::array::RecordBatch;

use companyos_schemas::tenancy::Tenancy;

use crate::{
    config::ChainConfig,
    decode::{Decoder, Intake},
    dedup::Dedup,
    epoch::{Epoch, Operator},
    error::OperatorError,
    quarantine::QuarantineLane,
    record::Record,
    redact::{Masker, Redaction, Redactor},
    residency::Residency,
    route::{Route, routes},
    seal::Sealer,
    stats::ChainStats,
};

/// Most that may be pushed between two flushes: a column's text must stay below 2 GiB.
const MAX_EPOCH_BYTES: usize = 1 << 30;

/// All operators of one input partition, with their state.
pub struct PartitionChain {
    config: ChainConfig,
    decoder: Decoder,
    intake: Intake,
    stats: ChainStats,
    overflowed: bool,
    residency: Residency,
    redaction: Option<Redaction>,
    dedup: Dedup,
    lane: QuarantineLane,
}

/// What came of the records pushed since the last flush.
#[derive(Debug)]
pub struct ChainOutput {
    /// The decoded rows, by the stream's table schema; none if there are none. Rows that no route
    /// names were dropped as duplicates or quarantined.
    pub rows: Option<RecordBatch>,
    /// Destinations and the rows that go there, in order.
    pub routes: Vec<(Route, Vec<u32>)>,
    /// Rows of the quarantine table, by region.
    pub quarantine: Vec<(Arc<str>, RecordBatch)>,
    /// Counts.
    pub stats: ChainStats,
}

impl PartitionChain {
    /// A chain without memory; [`PartitionChain::restore_dedup`] gives it one. Without a redactor no
    /// row is redacted (quarantined events still are); without a sealer quarantined events can only be
    /// released while Kafka has them.
    pub fn new(
        config: ChainConfig,
        tenancy: Arc<Tenancy>,
        redactor: Option<Arc<Redactor>>,
        sealer: Option<Arc<Sealer>>,
    ) -> Self {
        let intake = Intake::new(config.stream, config.topic.clone(), config.partition);
        Self {
            decoder: Decoder::new(config.stream, config.decode.clone()),
            intake,
            stats: ChainStats::default(),
            overflowed: false,
            residency: Residency::new(tenancy.clone()),
            dedup: Dedup::new(&config.dedup),
            lane: QuarantineLane {
                stream: config.stream,
                topic: config.topic.clone(),
                partition: config.partition,
                tenancy,
                sealer,
                masker: Masker::new(),
            },
            redaction: redactor.map(Redaction::new),
            config,
        }
    }

    /// Takes in a record that was received at `ingested_at_us` (microseconds since 1970). Never
    /// fails: what cannot be read is refused and comes out as quarantine.
    pub fn push(&mut self, record: &Record<'_>, ingested_at_us: i64) {
        self.stats.records += 1;
        let Some(value) = record.payload else {
            self.stats.tombstones += 1;
            return;
        };
        self.stats.bytes_in += value.len() as u64;
        if self.buffered_bytes().saturating_add(value.len()) > MAX_EPOCH_BYTES {
            self.overflowed = true;
            return;
        }
        self.decoder.push(record, value, ingested_at_us, &mut self.intake);
    }

    /// Rows and refusals since the last flush.
    pub fn buffered_rows(&self) -> usize {
        self.intake.columns.rows() + self.intake.refusals.len()
    }

    /// Bytes held since the last flush, about.
    pub fn buffered_bytes(&self) -> usize {
        self.intake.columns.bytes() + self.intake.log.bytes()
    }

    /// Runs the operators over what was pushed since the last flush. After an error the chain must be
    /// thrown away: it may remember ids that never reached a table.
    pub fn flush(&mut self) -> Result<ChainOutput, OperatorError> {
        if self.overflowed {
            return Err(OperatorError::EpochTooLarge { limit: MAX_EPOCH_BYTES });
        }
        let rows = self.intake.columns.rows();
        let mut epoch = Epoch {
            stream: self.config.stream,
            batch: self.intake.columns.finish()?,
            fates: Vec::new(),
            sources: std::mem::take(&mut self.intake.sources),
            refusals: std::mem::take(&mut self.intake.refusals),
            log: std::mem::take(&mut self.intake.log),
            stats: std::mem::take(&mut self.stats),
        };
        epoch.stats.decoded = rows as u64;
        if rows > 0 {
            self.residency.apply(&mut epoch)?;
            if let Some(redaction) = &mut self.redaction {
                redaction.apply(&mut epoch)?;
            }
            self.dedup.apply(&mut epoch)?;
        }
        let routes = if rows > 0 { routes(&mut epoch, &self.residency)? } else { Vec::new() };
        for refusal in &epoch.refusals {
            *epoch.stats.quarantined.entry(refusal.reject.reason).or_default() += 1;
        }
        let quarantine = self.lane.rows(&epoch.refusals, &epoch.log)?;
        self.reuse(epoch.sources, epoch.refusals, epoch.log);
        Ok(ChainOutput { rows: (rows > 0).then_some(epoch.batch), routes, quarantine, stats: epoch.stats })
    }

    /// Takes ids that the tables hold into the duplicate filter. Those out of the horizon are
    /// passed over.
    pub fn restore_dedup<'e>(
        &mut self,
        entries: impl Iterator<Item = (&'e str, &'e str, i64)>,
    ) -> Result<(), OperatorError> {
        if self.dedup.is_on() {
            for (tenant, event_id, ingested_at_us) in entries {
                self.dedup.insert(tenant, event_id, ingested_at_us)?;
            }
        }
        Ok(())
    }

    /// Hands the memory of a flushed epoch to the next one.
    fn reuse(
        &mut self,
        mut sources: Vec<crate::refusal::RowSource>,
        mut refusals: Vec<crate::refusal::Refusal>,
        mut log: crate::record_log::RecordLog,
    ) {
        sources.clear();
        refusals.clear();
        log.clear();
        self.intake.sources = sources;
        self.intake.refusals = refusals;
        self.intake.log = log;
    }
}
