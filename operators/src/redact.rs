//! DLP over the columns of an epoch: what the policy says is masked, tokenized, dropped or refused
//! before anything is stored.
//!
//! Most values hold nothing to find, so a value is first scanned for anything at all; only a row with
//! something to decide costs more. A column is rebuilt only if one of its values changed.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    hash::BuildHasher,
    sync::Arc,
};

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, StringBuilder};
pub use companyos_dlp::Redactor;
use companyos_dlp::{Action, Finding, Fired, Shape, Verdict, is_clean, redact_masked};
use companyos_schemas::{FieldType, Stream, arrow_schema::DLP_RULES, quarantine::Reason};

use crate::{
    epoch::{Epoch, Fate, Operator},
    error::OperatorError,
    refusal::Reject,
};

/// Columns that rows are routed, joined or verified by; no rule changes them.
const UNTOUCHED: [&str; 7] = ["event_id", "tenant", "env", "region", "payload_hash", "signature", "nonce"];
/// Values remembered as clean, per column.
const REMEMBERED: usize = 256;
/// Longest value remembered, in bytes.
const LONGEST_REMEMBERED: usize = 64;
/// What stands in a column that may not be null when its value was dropped.
const DROPPED: &str = "[dropped]";
const ACTIONS_TOTAL: &str = "companyos_dlp_actions_total";

/// The DLP operator of one partition.
pub(crate) struct Redaction {
    redactor: Arc<Redactor>,
    /// Columns looked at, once the stream is known.
    columns: Option<(Stream, Vec<Watched>)>,
    findings: Vec<Finding>,
}

/// A column that is looked at.
struct Watched {
    name: &'static str,
    shape: Shape,
    required: bool,
    clean: CleanValues,
}

/// What happened to a row.
#[derive(Default)]
struct Changes<'r> {
    /// New values by column and row; none where the value was dropped.
    values: BTreeMap<usize, BTreeMap<usize, Option<String>>>,
    /// Rules that changed each row.
    rules: BTreeMap<usize, BTreeSet<&'r str>>,
    /// Rows to refuse: the rule and the column.
    refused: BTreeMap<usize, (String, &'static str)>,
    counts: BTreeMap<(String, &'r str, Action), u64>,
}

impl Redaction {
    pub fn new(redactor: Arc<Redactor>) -> Self {
        Self { redactor, columns: None, findings: Vec::new() }
    }
}

impl Operator for Redaction {
    fn apply(&mut self, epoch: &mut Epoch) -> Result<(), OperatorError> {
        if !self.redactor.is_enabled() {
            return Ok(());
        }
        let watched = match &mut self.columns {
            Some((stream, watched)) if *stream == epoch.stream => watched,
            columns => &mut columns.insert((epoch.stream, watched_columns(epoch.stream))).1,
        };
        let redactor = self.redactor.clone();
        let mut changes = Changes::default();
        for (index, column) in watched.iter_mut().enumerate() {
            inspect(&redactor, epoch, index, column, &mut self.findings, &mut changes)?;
        }
        let columns: Vec<(&'static str, Shape, bool)> = watched.iter().map(|c| (c.name, c.shape, c.required)).collect();
        let Changes { values, rules, refused, counts } = changes;
        if !values.is_empty() {
            epoch.batch = rebuilt(&epoch.batch, &columns, &values, &rules)?;
        }
        for ((tenant, rule, action), count) in counts {
            *epoch.stats.dlp.entry((Arc::from(rule), action.name())).or_default() += count;
            metrics::counter!(ACTIONS_TOTAL, "tenant" => tenant, "rule" => rule.to_owned(), "action" => action.name())
                .increment(count);
        }
        for (row, (rule, column)) in refused {
            let detail = format!("DLP rule {rule} quarantines rows with such a value in {column}");
            epoch.refuse(row, Reject::of_field(Reason::DlpPolicy, column, detail).by_rule(rule))?;
        }
        Ok(())
    }
}

fn watched_columns(stream: Stream) -> Vec<Watched> {
    let fields = stream.fields().iter().filter(|field| !UNTOUCHED.contains(&field.name));
    let shaped = fields.filter_map(|field| match field.ty {
        FieldType::Json => Some((field, Shape::Json)),
        FieldType::Text | FieldType::Identifier => Some((field, Shape::Text)),
        FieldType::Timestamp | FieldType::Float | FieldType::Integer | FieldType::Enum(_) => None,
    });
    shaped
        .map(|(field, shape)| Watched {
            name: field.name,
            shape,
            required: field.required,
            clean: CleanValues::default(),
        })
        .collect()
}

/// Puts one column's values through the policy.
fn inspect<'r>(
    redactor: &'r Redactor,
    epoch: &Epoch,
    index: usize,
    column: &mut Watched,
    findings: &mut Vec<Finding>,
    changes: &mut Changes<'r>,
) -> Result<(), OperatorError> {
    let texts = epoch.text(column.name)?;
    let tenants = epoch.text("tenant")?;
    let classes = epoch.text("pii_classification").ok();
    let by_name = redactor.has_field_rules();
    for row in 0..texts.len() {
        if texts.is_null(row) || !matches!(epoch.fates.get(row), Some(Fate::Kept { .. })) {
            continue;
        }
        let text = texts.value(row);
        if !by_name {
            if column.clean.holds(text) {
                continue;
            }
            if is_clean(column.shape, text, findings) {
                column.clean.remember(text);
                continue;
            }
        }
        if changes.refused.contains_key(&row) {
            continue;
        }
        let tenant = tenants.value(row);
        let class = classes.filter(|classes| classes.is_valid(row)).map(|classes| classes.value(row));
        let waived = epoch.record(row).and_then(|record| record.waive);
        let mut fired: Vec<Fired<'_>> = Vec::new();
        let verdict = redactor.row(tenant, class, waived).field(column.name, column.shape, text, &mut fired);
        let new = match verdict {
            Verdict::Keep => None,
            Verdict::Replace(text) => Some(Some(text)),
            Verdict::Drop => Some(None),
            Verdict::Quarantine { rule } => {
                changes.refused.insert(row, (rule.to_owned(), column.name));
                None
            }
        };
        for fired in fired {
            *changes.counts.entry((tenant.to_owned(), fired.rule, fired.action)).or_default() += 1;
            if fired.action != Action::Allow {
                changes.rules.entry(row).or_default().insert(fired.rule);
            }
        }
        if let Some(new) = new {
            changes.values.entry(index).or_default().insert(row, new);
        }
    }
    Ok(())
}

/// The batch with new values in the columns that have some, and the rules that did it.
fn rebuilt(
    batch: &RecordBatch,
    watched: &[(&'static str, Shape, bool)],
    values: &BTreeMap<usize, BTreeMap<usize, Option<String>>>,
    rules: &BTreeMap<usize, BTreeSet<&str>>,
) -> Result<RecordBatch, OperatorError> {
    let schema = batch.schema();
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    for (index, changed) in values {
        let (name, shape, required) = watched[*index];
        let old: &StringArray = crate::epoch::column(batch, name)?;
        let mut new = StringBuilder::with_capacity(old.len(), old.values().len());
        for row in 0..old.len() {
            match changed.get(&row) {
                Some(Some(text)) => new.append_value(text),
                Some(None) if !required => new.append_null(),
                Some(None) if shape == Shape::Json => new.append_value("null"),
                Some(None) => new.append_value(DROPPED),
                None if old.is_null(row) => new.append_null(),
                None => new.append_value(old.value(row)),
            }
        }
        columns[schema.index_of(name)?] = Arc::new(new.finish());
    }
    let mut ids = StringBuilder::new();
    for row in 0..batch.num_rows() {
        ids.append_option(rules.get(&row).map(|ids| ids.iter().copied().collect::<Vec<_>>().join(",")));
    }
    columns[schema.index_of(DLP_RULES)?] = Arc::new(ids.finish());
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// Short values found clean lately: roles, clients and features say the same again and again.
#[derive(Default)]
struct CleanValues {
    slots: Vec<Box<str>>,
    hasher: hashbrown::DefaultHashBuilder,
}

impl CleanValues {
    fn slot(&self, text: &str) -> usize {
        self.hasher.hash_one(text) as usize % REMEMBERED
    }

    fn holds(&self, text: &str) -> bool {
        text.len() <= LONGEST_REMEMBERED && self.slots.get(self.slot(text)).is_some_and(|known| **known == *text)
    }

    fn remember(&mut self, text: &str) {
        if text.len() > LONGEST_REMEMBERED {
            return;
        }
        if self.slots.is_empty() {
            self.slots.resize(REMEMBERED, Box::default());
        }
        let slot = self.slot(text);
        self.slots[slot] = text.into();
    }
}

/// Masks whatever is found, for text that goes to quarantine.
pub(crate) struct Masker;

impl Masker {
    pub fn new() -> Self {
        Self
    }

    /// The text with everything found in it masked.
    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        redact_masked(text)
    }
}

#[cfg(test)]
mod tests {
    use companyos_dlp::DlpConfig;

    use super::*;
    use crate::{ChainConfig, ChainOutput, DecodeConfig, DedupConfig, PartitionChain, Record, Route};

    const POLICY: &str = r#"
        [classifications.sensitive]
        us_ssn = "quarantine"
        [tenants.alpha.actions]
        iban = "drop"
        [tenants.alpha]
        fields = [{ path = "payload.name", action = "mask" }]
        [keys]
        active = 3
        ring = [{ version = 3, secret = "a-key-for-tests-that-is-long-enough-0001" }]
    "#;

    fn event(id: &str, class: &str, user: &str, payload: &str) -> String {
        format!(
            r#"{{"event_id":"{id}","occurred_at":"2026-03-04T10:11:12Z","tenant":"alpha","env":"prod","region":"eu-west-1","user_id":"{user}","kind":"incident","service":"ann@example.com","pii_classification":"{class}","payload":{payload}}}"#
        )
    }

    /// The events through a whole chain; ops events, for they need no payload hash.
    fn run(policy: &str, events: &[(String, Option<&str>)]) -> ChainOutput {
        let tenancy = toml::from_str(
            r#"
            home_region = "eu-west-1"
            [regions.eu-west-1]
            storage = "memory:///eu"
            [tenants.alpha]
            environments = ["prod"]
            regions = ["eu-west-1"]
            "#,
        )
        .unwrap();
        let config: DlpConfig = toml::from_str(policy).unwrap();
        let chain = ChainConfig {
            stream: Stream::OpsEvents,
            topic: "ops".into(),
            partition: 0,
            decode: DecodeConfig::default(),
            dedup: DedupConfig::default(),
        };
        let redactor = Arc::new(Redactor::new(&config).unwrap());
        let mut chain = PartitionChain::new(chain, Arc::new(tenancy), Some(redactor), None);
        for (offset, (event, waive)) in events.iter().enumerate() {
            let mut record = Record { offset: offset as i64, payload: Some(event.as_bytes()), ..Record::default() };
            record.headers.waive = *waive;
            chain.push(&record, 1_772_619_072_000_000);
        }
        chain.flush().unwrap()
    }

    fn column<'o>(output: &'o ChainOutput, name: &'static str) -> &'o StringArray {
        crate::epoch::column(output.rows.as_ref().unwrap(), name).unwrap()
    }

    fn kept(output: &ChainOutput) -> Vec<u32> {
        output.routes.iter().flat_map(|(_, rows): &(Route, Vec<u32>)| rows.clone()).collect()
    }

    #[test]
    fn rewrites_columns_names_the_rules_and_refuses_rows() {
        let output = run(
            POLICY,
            &[
                (event("ann@example.com", "none", "u-1", r#"{"n":1}"#), None),
                (event("e1", "none", "Ann@Example.com", r#"{"name":"Ann","b":"DE89370400440532013000","n":1}"#), None),
                (event("e2", "sensitive", "u-1", r#"{"t":"it is 536-90-4399"}"#), None),
                (event("e3", "sensitive", "u-1", r#"{"t":"it is 536-90-4399"}"#), Some("us_ssn.format")),
            ],
        );
        assert_eq!(kept(&output), [0, 1, 3]);
        // The id is what rows are joined and deduplicated by; nothing may change it.
        assert_eq!(column(&output, "event_id").value(0), "ann@example.com");
        let service = column(&output, "service");
        assert!(service.value(0).starts_with("tok_email_3_"), "{}", service.value(0));
        assert_eq!(column(&output, "user_id").value(0), "u-1");
        assert_eq!(column(&output, "user_id").value(1), service.value(0), "one address has one token in all columns");
        assert_eq!(column(&output, "payload").value(1), r#"{"name":"[masked:value]","n":1}"#);
        assert_eq!(column(&output, "payload").value(3), r#"{"t":"it is 536-90-4399"}"#, "the rule was waived");
        let rules = column(&output, DLP_RULES);
        assert_eq!(rules.value(0), "email.address");
        assert_eq!(rules.value(1), "email.address,field:payload.name,iban.mod97");
        assert_eq!(output.stats.quarantined.get(&Reason::DlpPolicy), Some(&1));
        assert_eq!(output.stats.dlp.get(&(Arc::from("iban.mod97"), "drop")), Some(&1));
        let (_, quarantine) = &output.quarantine[0];
        let text = |name| crate::epoch::column::<StringArray>(quarantine, name).unwrap().value(0).to_owned();
        assert_eq!(
            (text("reason"), text("rule"), text("field")),
            ("dlp_policy".into(), "us_ssn.format".into(), "payload".into())
        );
        assert!(text("payload").contains(r#"{"t":"it is [masked:us_ssn]"}"#), "{}", text("payload"));
        assert!(!text("detail").contains("536"));
    }

    #[test]
    fn leaves_clean_rows_and_a_disabled_policy_alone() {
        let clean = event("e1", "none", "u-1", r#"{"n":1}"#).replace("ann@example.com", "web");
        let output = run("", &[(clean, None)]);
        assert!(column(&output, DLP_RULES).is_null(0));
        let output = run("enabled = false", &[(event("e1", "none", "a@b.co", "{}"), None)]);
        assert_eq!(column(&output, "user_id").value(0), "a@b.co");
        assert!(output.stats.dlp.is_empty());
    }
}
