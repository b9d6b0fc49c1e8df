//! What a replay did.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::RowProblem;

/// Unmapped rows described one by one; the rest are only counted.
pub(crate) const DESCRIBED: usize = 20;

/// Rows by what became of them. All of them are acknowledged by Kafka, or need no acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Sent as events.
    pub mapped: u64,
    /// Sent as they stand in the file, because the map does not fit them.
    pub unmapped: u64,
    /// Blank lines: nothing to send.
    pub blank: u64,
    /// Larger than the limit, and not sent.
    pub oversized: u64,
}

impl Counts {
    /// Rows of the file these are, blank lines included.
    pub fn rows(&self) -> u64 {
        self.mapped + self.unmapped + self.blank + self.oversized
    }
}

/// How a replay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The whole file has been replayed.
    Complete,
    /// The row limit was reached.
    LimitReached,
    /// A shutdown came first.
    Interrupted,
    /// An error stopped it.
    Failed,
}

/// A row that was sent as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnmappedRow {
    /// Line it starts on, from 1.
    pub line: u64,
    /// Why.
    #[serde(flatten)]
    pub problem: RowProblem,
}

/// Result of a replay. `Display` is for people, `Serialize` for programs.
#[derive(Debug, Clone, Serialize)]
pub struct ReplaySummary {
    /// How it ended.
    pub outcome: Outcome,
    /// Topic the events went to.
    pub topic: String,
    /// Rows handled by earlier runs, which this one passed over.
    pub resumed_after: u64,
    /// Rows of this run.
    pub counts: Counts,
    /// Rows of this run and the ones it resumed.
    pub total: Counts,
    /// Bytes of keys and values acknowledged in this run.
    pub bytes: u64,
    /// Unmapped and oversized rows of this run by field (or `row`).
    pub unmapped_by_field: BTreeMap<&'static str, u64>,
    /// The first of them.
    pub first_unmapped: Vec<UnmappedRow>,
    /// How long it took.
    pub elapsed: Duration,
    /// Where progress is kept; none if no place could be written to.
    pub checkpoint: Option<PathBuf>,
}

impl ReplaySummary {
    pub(crate) fn new(topic: String, resumed_after: u64, before: Counts) -> Self {
        Self {
            outcome: Outcome::Failed,
            topic,
            resumed_after,
            counts: Counts::default(),
            total: before,
            bytes: 0,
            unmapped_by_field: BTreeMap::new(),
            first_unmapped: Vec::new(),
            elapsed: Duration::ZERO,
            checkpoint: None,
        }
    }

    pub(crate) fn describe(&mut self, line: u64, problem: RowProblem) {
        *self.unmapped_by_field.entry(problem.field.unwrap_or("row")).or_default() += 1;
        if self.first_unmapped.len() < DESCRIBED {
            self.first_unmapped.push(UnmappedRow { line, problem });
        }
    }
}

impl fmt::Display for ReplaySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { mapped, unmapped, blank, oversized } = self.counts;
        let sent = mapped + unmapped;
        let seconds = self.elapsed.as_secs_f64();
        let rate = sent as f64 / seconds.max(1e-9);
        let outcome = match self.outcome {
            Outcome::Complete => "complete",
            Outcome::LimitReached => "limit reached",
            Outcome::Interrupted => "interrupted",
            Outcome::Failed => "failed",
        };
        writeln!(f, "{outcome}: {sent} rows to {:?} in {seconds:.1} s, {rate:.0} rows/s", self.topic)?;
        if self.resumed_after > 0 {
            writeln!(f, "  resumed after row {}", self.resumed_after)?;
        }
        write!(f, "  {mapped} mapped, {unmapped} sent as they are, {blank} blank, {oversized} too large")?;
        for UnmappedRow { line, problem } in &self.first_unmapped {
            write!(f, "\n  line {line}: {problem}")?;
        }
        let described = self.first_unmapped.len() as u64;
        match unmapped + oversized {
            more if more > described => write!(f, "\n  … and {} more", more - described),
            _ => Ok(()),
        }
    }
}
