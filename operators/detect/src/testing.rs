//! Trying rules on events, through the operator that runs in production: what `companyos detect
//! check`, `test` and `backtest` do.

use std::{path::Path, sync::Arc};

use chrono::DateTime;
use companyos_schemas::Stream;
use companyos_sigma::{CheckEntry, Refused};
use companyos_stream::{ShardOperator, StreamError, TailRows};
use serde_json::Value;

use crate::{
    DetectOperator, Finding, RuleBook, RuleBookError, RuleMeta,
    events::{self, Defaults, EventError},
};

/// Why a try failed.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// An event is not one.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The operator failed.
    #[error(transparent)]
    Operator(#[from] StreamError),
}

/// What a rule set holds.
#[derive(Debug)]
pub struct Report {
    /// What can find something.
    pub rules: Vec<RuleMeta>,
    /// What was left out, and why.
    pub refused: Vec<Refused>,
    /// Every document: where it stands, whether it loads, and the fields it needs.
    pub checked: Vec<CheckEntry>,
}

impl Report {
    /// What is in a rule set.
    pub fn of(book: &RuleBook) -> Self {
        Self { rules: book.rules(), refused: book.refused().to_vec(), checked: book.checked().to_vec() }
    }
}

/// Loads a rule, a folder of rules or a rule set and says what is in it.
pub fn check(path: &Path) -> Result<Report, RuleBookError> {
    Ok(Report::of(&RuleBook::load(path)?))
}

/// Runs events through a fresh operator, in their order, and returns its findings, those suppressed
/// included. Events are as [`events::complete`] takes them.
pub fn test_rules(
    book: Arc<RuleBook>,
    events: impl IntoIterator<Item = Value>,
    defaults: &Defaults,
) -> Result<Vec<Finding>, TestError> {
    let mut operator = DetectOperator::new(book)?;
    let mut findings = Vec::new();
    let mut pending: Vec<Value> = Vec::new();
    let mut stream = Stream::SecuritySignals;
    let mut offset = 0;
    for (number, event) in events.into_iter().enumerate() {
        let (of, event) = events::complete(&event, number, defaults)?;
        if of != stream || pending.len() == BATCH {
            feed(&mut operator, stream, &mut pending, &mut offset)?;
            findings.append(&mut operator.take_findings());
        }
        stream = of;
        pending.push(event);
    }
    feed(&mut operator, stream, &mut pending, &mut offset)?;
    findings.append(&mut operator.take_findings());
    Ok(findings)
}

/// Rows a batch of a test has at most.
const BATCH: usize = 8192;

fn feed(
    operator: &mut DetectOperator,
    stream: Stream,
    pending: &mut Vec<Value>,
    offset: &mut usize,
) -> Result<(), TestError> {
    if pending.is_empty() {
        return Ok(());
    }
    let batch = events::batch(stream, pending, *offset)?;
    *offset += pending.len();
    // Processing time is the events' own, so that a test of old events is a test of live ones.
    let now = pending.iter().filter_map(|e| events::micros(e.get("occurred_at")?)).max();
    let now = now.and_then(DateTime::from_timestamp_micros).unwrap_or_default();
    operator.on_rows(&TailRows { stream, version: 0, committed_at: now, batch: &batch })?;
    operator.on_time(now)?;
    pending.clear();
    Ok(())
}
