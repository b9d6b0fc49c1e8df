//! The operator: rows in, findings out.
//!
//! Rows go through Sigma rules (one event), Sigma correlations and stateful detectors (several), and
//! what is found goes through trust, exceptions and repeats. Findings depend on the rows and the
//! order of commits only, so a replay finds the same under the same ids.

use std::{collections::HashMap, sync::Arc};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use chrono::{DateTime, Utc};
use companyos_ocsf::{Extracted, Logsource};
use companyos_schemas::Stream;
use companyos_sigma::{
    BatchSource, CorrelationHit, CorrelationSet, Correlator, CorrelatorConfig, EventBatch, KEYWORDS, LogSource,
};
use companyos_stream::{
    Columns, Input, KeyedState, OperatorStats, Output, ShardOperator, SnapshotKind, StateBatch, StreamError, TailRows,
    WatermarkTracker,
};
use serde::{Deserialize, Serialize};

use crate::{
    Event, EvidenceRef, Feedback, Finding, MAX_EVIDENCE, Mode, RuleMeta, correlation_state,
    detectors::{Detector, Hit},
    finding,
    rule_book::{Compiled, RuleBook},
    signals::{self, Cells, Rows},
    trust::Trust,
};

/// Finds attacks in the events of one shard of tenants.
pub struct DetectOperator {
    book: Arc<RuleBook>,
    live: Correlator,
    /// Of newer versions; empty without any.
    candidates: Correlator,
    detectors: Vec<Box<dyn Detector>>,
    detector_rules: HashMap<String, RuleMeta>,
    trust: Trust,
    marks: WatermarkTracker,
    /// Event time of the last finding sent, by rule, version and entity.
    sent: KeyedState<i64>,
    feedback: Feedback,
    /// The correlators' heads and the watermark, which have one value each.
    singles: KeyedState<Vec<u8>>,
    /// Detectors' state was rebuilt, so what changed in it is not known.
    rebuilt: bool,
    found: Vec<Finding>,
    counts: DetectStats,
    now: DateTime<Utc>,
}

/// What has been counted since the operator was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DetectStats {
    /// Rows taken in.
    pub rows: u64,
    /// Rows whose JSON could not be read; their fields are null to rules.
    pub malformed: u64,
    /// Rows behind the watermark: seen by rules over one event, not by windows.
    pub late: u64,
    /// Findings.
    pub findings: u64,
    /// Of them, not sent because of exceptions or repeats.
    pub suppressed: u64,
    /// Versions taken back on feedback.
    pub rollbacks: u64,
    /// Feedback that names no rule or no verdict.
    pub bad_feedback: u64,
}

/// What a correlator keeps of an event.
#[derive(Debug, Serialize, Deserialize)]
struct EventNote {
    evidence: EvidenceRef,
    trace: Option<String>,
}

/// Separates the parts of a scope.
const UNIT: char = '\u{1f}';
const LIVE: &str = "correlations_live";
const CANDIDATES: &str = "correlations_candidates";
const WATERMARK: &str = "watermark";
/// What an event of a correlation takes, about: its time, its note and its fields.
const EVENT_BYTES: u64 = 256;

impl DetectOperator {
    /// With nothing seen yet.
    pub fn new(book: Arc<RuleBook>) -> Result<Self, StreamError> {
        let detectors = detectors(&book)?;
        Ok(Self {
            live: Correlator::new(Arc::clone(&book.live.correlations), config(&book)),
            candidates: Correlator::new(candidates(&book), config(&book)),
            detector_rules: by_id(&detectors),
            detectors,
            trust: trust(&book)?,
            marks: WatermarkTracker::new(book.config.lateness, book.config.idle_after),
            sent: KeyedState::new("sent"),
            feedback: Feedback::default(),
            singles: KeyedState::new("singles"),
            rebuilt: false,
            found: Vec::new(),
            counts: DetectStats::default(),
            now: DateTime::UNIX_EPOCH,
            book,
        })
    }

    /// Takes a new rule set. What is unchanged keeps its state: correlations by key and definition,
    /// detectors by their kind, repeats and feedback by rule and version.
    pub fn set_rules(&mut self, book: Arc<RuleBook>) -> Result<(), StreamError> {
        let mut fresh = detectors(&book)?;
        let mut state = Vec::new();
        for detector in &mut self.detectors {
            state.extend(detector.snapshot(SnapshotKind::Full)?);
        }
        for detector in &mut fresh {
            detector.restore(&state)?;
        }
        self.live.reload(Arc::clone(&book.live.correlations), config(&book));
        self.candidates.reload(candidates(&book), config(&book));
        let mut fresh_trust = trust(&book)?;
        fresh_trust.memory.restore(&[self.trust.memory.snapshot(SnapshotKind::Full)?])?;
        fresh_trust.stats = self.trust.stats;
        self.trust = fresh_trust;
        let watermark = self.marks.current();
        self.marks = WatermarkTracker::new(book.config.lateness, book.config.idle_after);
        self.marks.restore(watermark);
        self.detector_rules = by_id(&fresh);
        self.detectors = fresh;
        self.rebuilt = true;
        self.book = book;
        Ok(())
    }

    /// What was counted.
    pub fn counts(&self) -> &DetectStats {
        &self.counts
    }

    /// What sources' signatures, nonces and clocks were found to be.
    pub fn trust(&self) -> &companyos_ocsf::TrustStats {
        &self.trust.stats
    }

    /// What people said about a version of a rule.
    pub fn tally(&self, rule: &str, version: &str) -> crate::Tally {
        self.feedback.tally(rule, version)
    }

    /// Findings since the last call, for tests and back tests that want them typed; they are then
    /// not in the output.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.found)
    }

    fn rules(
        &mut self,
        rows: &Rows<'_>,
        extracted: &Extracted,
        source: BatchSource,
        words: Option<ArrayRef>,
        order: &[usize],
    ) {
        let book = Arc::clone(&self.book);
        let cells = Cells(extracted);
        let mut batch = EventBatch { rows: order.len(), columns: extracted.columns.clone(), source };
        if let Some(words) = words {
            batch.columns.insert(KEYWORDS.to_owned(), words);
        }
        for (candidate, compiled) in [(false, Some(&book.live)), (true, book.candidates.as_ref())] {
            let Some(compiled) = compiled else { continue };
            let mut matched: Vec<(usize, u32)> = Vec::new();
            for hit in compiled.rules.evaluate(&batch).hits {
                let Some((info, meta)) =
                    compiled.rules.rules().get(hit.rule as usize).zip(compiled.metas.get(hit.rule as usize))
                else {
                    continue;
                };
                for &row in &hit.rows {
                    let row = row as usize;
                    if info.standalone {
                        self.found_one(meta, candidate, rows, &cells, row);
                    }
                    if compiled.correlations.uses(hit.rule) {
                        matched.push((row, hit.rule));
                    }
                }
            }
            matched.sort_by_key(|&(row, rule)| (rows.at(row), row, rule));
            for (row, rule) in matched {
                if self.is_late(rows.at(row)) {
                    continue;
                }
                let scope = rows.scope(row).join(&UNIT.to_string());
                let note = EventNote { evidence: rows.evidence(row), trace: rows.trace_id(row) };
                let note = serde_json::to_string(&note).unwrap_or_default();
                let lookup = |field: &str| cells.get(field, row);
                let correlator = if candidate { &mut self.candidates } else { &mut self.live };
                let hits = correlator.on_match(&scope, rule, rows.at(row), &note, &lookup);
                self.correlated(compiled, candidate, hits);
            }
        }
    }

    fn found_one(&mut self, meta: &RuleMeta, candidate: bool, rows: &Rows<'_>, cells: &Cells<'_>, row: usize) {
        let evidence = rows.evidence(row);
        let at = rows.at(row);
        let anchor = anchor(std::slice::from_ref(&evidence));
        let found = Found {
            scope: rows.scope(row),
            entity_type: "user",
            entity: signals::entity(rows, cells, row),
            window: (at, at),
            summary: meta.title.clone(),
            evidence: vec![evidence],
            trace_id: rows.trace_id(row),
            anchor,
        };
        self.emit(meta, candidate, found);
    }

    fn correlated(&mut self, compiled: &Compiled, candidate: bool, hits: Vec<CorrelationHit>) {
        for hit in hits {
            let index = hit.correlation as usize;
            let Some(meta) = compiled.correlation_metas.get(index) else { continue };
            if !compiled.correlations.correlations().get(index).is_some_and(|c| c.standalone) {
                continue;
            }
            let mut scope = hit.scope.splitn(3, UNIT);
            let (Some(tenant), Some(env), Some(region)) = (scope.next(), scope.next(), scope.next()) else { continue };
            let mut notes: Vec<EventNote> =
                hit.events.iter().filter_map(|note| serde_json::from_str(note).ok()).collect();
            let trace_id = notes.iter_mut().rev().find_map(|n| n.trace.take());
            let (types, values): (Vec<_>, Vec<_>) = hit.group.iter().cloned().unzip();
            let found = Found {
                scope: [tenant, env, region],
                entity_type: &types.join(","),
                entity: values.join(","),
                window: (hit.window_start_us, hit.window_end_us),
                summary: format!("{}: {} events", meta.title, hit.total_events),
                evidence: distinct(notes.into_iter().map(|n| n.evidence)),
                trace_id,
                anchor: hit.id.clone(),
            };
            self.emit(meta, candidate, found);
        }
    }

    fn detect(&mut self, event: &Event) {
        let mut hits = Vec::new();
        for detector in &mut self.detectors {
            detector.on_event(event, &mut hits);
        }
        for Hit { rule, entity_type, entity, window, summary, evidence } in hits {
            let Some(meta) = self.detector_rules.get(rule).cloned() else { continue };
            let found = Found {
                scope: [&event.tenant, &event.env, &event.region],
                entity_type,
                entity,
                window,
                summary,
                anchor: anchor(&evidence),
                evidence,
                trace_id: event.trace_id.clone(),
            };
            self.emit(&meta, false, found);
        }
    }

    fn emit(&mut self, meta: &RuleMeta, candidate: bool, found: Found<'_>) {
        let [tenant, env, region] = found.scope;
        let Some(mode) = self.book.mode(&meta.id, candidate, tenant) else { return };
        let mode = if self.feedback.rolled_back(&meta.id, &meta.version) { Mode::Shadow } else { mode };
        let mut evidence = found.evidence;
        evidence.truncate(MAX_EVIDENCE);
        let mut finding = Finding {
            finding_id: finding::finding_id(meta, found.scope, &found.entity, &found.anchor),
            tenant: tenant.to_owned(),
            env: env.to_owned(),
            region: region.to_owned(),
            occurred_at: found.window.1,
            detected_at: self.now.timestamp_micros(),
            rule_id: meta.id.clone(),
            rule_title: meta.title.clone(),
            rule_version: meta.version.clone(),
            kind: meta.kind,
            severity: meta.severity,
            tactics: meta.tactics(),
            techniques: meta.techniques(),
            entity_type: found.entity_type.to_owned(),
            entity: found.entity,
            window_start: found.window.0,
            window_end: found.window.1,
            summary: found.summary,
            evidence,
            trace_id: found.trace_id,
            mode,
            suppressed_by: None,
        };
        finding.suppressed_by = self.book.config.exceptions.reason(&finding).or_else(|| self.repeat(&finding));
        self.counts.findings += 1;
        self.counts.suppressed += u64::from(finding.suppressed_by.is_some());
        self.found.push(finding);
    }

    /// Whether the like was sent not long ago; if not, this one is.
    fn repeat(&mut self, finding: &Finding) -> Option<String> {
        let within = i64::try_from(self.book.config.exceptions.dedup.as_micros()).unwrap_or(i64::MAX / 4);
        let parts =
            [&*finding.rule_id, &finding.rule_version, &finding.tenant, &finding.env, &finding.region, &finding.entity];
        let key = parts.join(&UNIT.to_string());
        let at = finding.occurred_at;
        match self.sent.get(&key) {
            Some(&last) if (at - last).abs() < within => Some("dedup".to_owned()),
            _ => {
                self.sent.insert(&key, at.saturating_add(within), at);
                None
            }
        }
    }

    fn is_late(&self, at: i64) -> bool {
        self.marks.current().is_some_and(|mark| at < mark.timestamp_micros())
    }

    fn watermark(&mut self, now: DateTime<Utc>) {
        let Some(mark) = self.marks.advance(now).map(|m| m.timestamp_micros()) else { return };
        let book = Arc::clone(&self.book);
        let hits = self.live.advance(mark);
        self.correlated(&book.live, false, hits);
        let hits = self.candidates.advance(mark);
        if let Some(compiled) = &book.candidates {
            self.correlated(compiled, true, hits);
        }
        for detector in &mut self.detectors {
            detector.expire(mark);
        }
        self.sent.expire(mark);
        self.trust.memory.expire(now.timestamp_micros());
    }

    /// Verdicts on findings: audit events `finding_feedback`, whose payload names `rule_id`,
    /// `rule_version` and `verdict` (`false_positive` or `true_positive`).
    fn learn(&mut self, signals: &RecordBatch) {
        let text = |name: &str| signals.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
        let (Some(actions), Some(evidence)) = (text("signal_type"), text("evidence")) else { return };
        for row in (0..signals.num_rows()).filter(|&row| actions.value(row) == "finding_feedback") {
            let said: serde_json::Value = serde_json::from_str(evidence.value(row)).unwrap_or_default();
            let part = |name: &str| said.get(name).and_then(serde_json::Value::as_str);
            let (Some(rule), Some(version), Some(verdict)) = (part("rule_id"), part("rule_version"), part("verdict"))
            else {
                self.counts.bad_feedback += 1;
                continue;
            };
            let false_positive = match verdict {
                "false_positive" => true,
                "true_positive" => false,
                _ => {
                    self.counts.bad_feedback += 1;
                    continue;
                }
            };
            let live = self.book.live_version(rule);
            let config = &self.book.config.rollback;
            self.counts.rollbacks += u64::from(self.feedback.note(rule, version, false_positive, live, config));
        }
    }
}

impl ShardOperator for DetectOperator {
    fn name(&self) -> &'static str {
        "detect"
    }

    fn inputs(&self) -> Vec<Input> {
        [Stream::SecuritySignals, Stream::OpsEvents, Stream::AuditEvents]
            .map(|stream| Input { stream, columns: Columns::All })
            .to_vec()
    }

    fn on_rows(&mut self, tail: &TailRows<'_>) -> Result<(), StreamError> {
        self.now = tail.committed_at;
        let mut signals = signals::as_signals(tail.stream, tail.batch)?;
        if tail.stream == Stream::SecuritySignals {
            signals = self.trust.admit(&signals, tail.committed_at.timestamp_micros())?;
        }
        if tail.stream == Stream::AuditEvents {
            self.learn(&signals);
        }
        let book = Arc::clone(&self.book);
        let extracted = book.extractor.extract(&signals).map_err(|e| StreamError::Operator(e.to_string()))?;
        let rows = Rows::new(&signals)?;
        let mut order: Vec<usize> = (0..signals.num_rows()).collect();
        order.sort_by_key(|&row| rows.at(row));
        self.counts.rows += order.len() as u64;
        self.counts.malformed += extracted.malformed;
        self.counts.late += order.iter().filter(|&&row| self.is_late(rows.at(row))).count() as u64;
        let source = source(tail.stream, &extracted.logsource);
        let words = book.keywords.then(|| keywords(&signals));
        self.rules(&rows, &extracted, source, words, &order);
        let cells = Cells(&extracted);
        for &row in order.iter().filter(|&&row| !self.is_late(rows.at(row))).collect::<Vec<_>>() {
            if let Some(event) = signals::event(&book, tail.stream, &rows, &cells, row) {
                self.detect(&event);
            }
        }
        let mut latest: HashMap<(&str, i32), i64> = HashMap::new();
        for row in order {
            let at = latest.entry(rows.partition(row)).or_insert(i64::MIN);
            *at = (*at).max(rows.at(row));
        }
        for ((topic, partition), at) in latest {
            if let Some(at) = DateTime::from_timestamp_micros(at) {
                self.marks.observe(topic, partition, at, tail.committed_at);
            }
        }
        Ok(())
    }

    fn on_time(&mut self, now: DateTime<Utc>) -> Result<(), StreamError> {
        self.watermark(now);
        Ok(())
    }

    fn take_output(&mut self) -> Output {
        let found = self.take_findings();
        if found.is_empty() {
            return Output::default();
        }
        let sent = found.iter().filter(|f| f.mode == Mode::Live && f.suppressed_by.is_none());
        let notices = sent.map(Finding::notice).collect();
        // Building the batch cannot fail on columns of equal length made from the same findings.
        let rows = finding::rows(&found).map(|batch| vec![(finding::table(), batch)]).unwrap_or_default();
        Output { rows, notices }
    }

    fn snapshot(&mut self, kind: SnapshotKind) -> Result<Vec<StateBatch>, StreamError> {
        let mut put = |name: &str, value: Vec<u8>| {
            if self.singles.get(name) != Some(&value) {
                self.singles.insert(name, i64::MAX, value);
            }
        };
        put(LIVE, correlation_state::encode(&self.live.head())?);
        put(CANDIDATES, correlation_state::encode(&self.candidates.head())?);
        if let Some(mark) = self.marks.current() {
            put(WATERMARK, mark.timestamp_micros().to_le_bytes().to_vec());
        }
        let mut state =
            vec![self.singles.snapshot(kind)?, self.sent.snapshot(kind)?, self.feedback.state().snapshot(kind)?];
        for (name, correlator) in [(LIVE, &mut self.live), (CANDIDATES, &mut self.candidates)] {
            state.push(correlation_state::save(name, correlator, kind)?);
        }
        let kind = if std::mem::take(&mut self.rebuilt) { SnapshotKind::Full } else { kind };
        state.push(self.trust.memory.snapshot(kind)?);
        for detector in &mut self.detectors {
            state.extend(detector.snapshot(kind)?);
        }
        Ok(state)
    }

    fn restore(&mut self, state: &[StateBatch]) -> Result<(), StreamError> {
        self.singles.restore(state)?;
        self.sent.restore(state)?;
        self.feedback.state().restore(state)?;
        self.trust.memory.restore(state)?;
        for detector in &mut self.detectors {
            detector.restore(state)?;
        }
        for (name, correlator) in [(LIVE, &mut self.live), (CANDIDATES, &mut self.candidates)] {
            if let Some(bytes) = self.singles.get(name)
                && correlator.restore_head(correlation_state::decode(bytes)?)
            {
                correlation_state::load(name, correlator, state)?;
            }
        }
        if let Some(bytes) = self.singles.get(WATERMARK).and_then(|b| <[u8; 8]>::try_from(b.as_slice()).ok()) {
            self.marks.restore(DateTime::from_timestamp_micros(i64::from_le_bytes(bytes)));
        }
        Ok(())
    }

    fn stats(&self) -> OperatorStats {
        let sizes = self.detectors.iter().map(|d| d.size());
        let correlated = [&self.live, &self.candidates].map(|c| c.stats()).map(|s| (s.groups, s.events * EVENT_BYTES));
        let own = [(self.sent.len() as u64, self.sent.bytes()), (self.singles.len() as u64, self.singles.bytes())];
        let (keys, bytes) =
            sizes.chain(own).chain(correlated).fold((0, 0), |(keys, bytes), (k, b)| (keys + k, bytes + b));
        OperatorStats {
            watermark: self.marks.current(),
            state_keys: keys,
            state_bytes: bytes,
            late_rows: self.counts.late,
        }
    }
}

struct Found<'a> {
    scope: [&'a str; 3],
    entity_type: &'a str,
    entity: String,
    window: (i64, i64),
    summary: String,
    evidence: Vec<EvidenceRef>,
    trace_id: Option<String>,
    anchor: String,
}

fn config(book: &RuleBook) -> CorrelatorConfig {
    let lateness = i64::try_from(book.config.lateness.as_micros()).unwrap_or(i64::MAX / 4);
    // Nothing is held back: a finding is due within seconds, and windows take late events.
    CorrelatorConfig {
        hold_us: 0,
        allowed_lateness_us: lateness,
        max_refs: MAX_EVIDENCE,
        ..CorrelatorConfig::default()
    }
}

fn candidates(book: &RuleBook) -> Arc<CorrelationSet> {
    book.candidates.as_ref().map(|c| Arc::clone(&c.correlations)).unwrap_or_default()
}

fn detectors(book: &RuleBook) -> Result<Vec<Box<dyn Detector>>, StreamError> {
    book.config.detectors.build().map_err(|e| StreamError::Operator(e.to_string()))
}

fn trust(book: &RuleBook) -> Result<Trust, StreamError> {
    Trust::new(&book.config.trust).map_err(|e| StreamError::Operator(e.to_string()))
}

fn by_id(detectors: &[Box<dyn Detector>]) -> HashMap<String, RuleMeta> {
    detectors.iter().flat_map(|d| d.rules()).map(|meta| (meta.id.clone(), meta)).collect()
}

fn source(stream: Stream, found: &Logsource) -> BatchSource {
    let platform = |service: &str| {
        BatchSource::Fixed(LogSource {
            product: Some("companyos".to_owned()),
            category: None,
            service: Some(service.to_owned()),
        })
    };
    match stream {
        Stream::OpsEvents => platform("ops"),
        Stream::AuditEvents => platform("audit"),
        _ => BatchSource::PerRow {
            product: Some(Arc::new(found.product.clone())),
            category: Some(Arc::new(found.category.clone())),
            service: Some(Arc::new(found.service.clone())),
        },
    }
}

/// The whole event as one text, for rules that search for words anywhere.
fn keywords(signals: &RecordBatch) -> ArrayRef {
    let texts = ["payload", "evidence"].map(|n| signals.column_by_name(n).and_then(|c| c.as_string_opt::<i32>()));
    let words = (0..signals.num_rows()).map(|row| {
        let parts = texts.iter().flatten().filter(|t| !t.is_null(row)).map(|t| t.value(row));
        Some(parts.collect::<Vec<_>>().join("\n"))
    });
    Arc::new(words.collect::<StringArray>())
}

fn anchor(evidence: &[EvidenceRef]) -> String {
    let positions = evidence.iter().map(|e| format!("{}/{}/{}/{}", e.topic, e.partition, e.offset, e.index));
    positions.collect::<Vec<_>>().join(",")
}

fn distinct(all: impl Iterator<Item = EvidenceRef>) -> Vec<EvidenceRef> {
    let mut seen = std::collections::HashSet::new();
    all.filter(|e| seen.insert(e.clone())).collect()
}
