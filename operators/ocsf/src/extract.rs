//! The hot road: from a batch of security signals to the columns that rules ask for.
//!
//! A name is, in this order, a column of the table, an OCSF attribute by the row's source, or a
//! field of the vendor's record, looked up in `payload` and then in `evidence`. Each event's text
//! is scanned once for all names together. Memory is that of the result plus one event's values.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, StringBuilder},
    compute::cast,
    datatypes::{DataType, TimestampMicrosecondType},
};
use companyos_schemas::{Stream, arrow_schema};

use crate::{
    OcsfError, SignalColumns, SignalRow, SourceKind,
    columns::{ColumnBuilder, Plan, Resolved, resolve},
    mapping::{self, Fields, class, computed, is_integer},
    scan::Slots,
};

/// Gives rules the columns they ask for; made once for a set of names.
#[derive(Debug)]
pub struct Extractor {
    /// Names that are columns of the table.
    table: Vec<String>,
    names: Vec<String>,
    /// By [`SourceKind::index`].
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    kind: SourceKind,
    plan: Plan,
    resolved: Vec<Resolved>,
}

/// What was asked for, row by row of the batch.
#[derive(Debug, Clone)]
pub struct Extracted {
    /// A column for each wanted name: `Int64` for OCSF's integers and the table's integers and
    /// times (in microseconds), otherwise `Utf8`, or `List<Utf8>` if some row has several values.
    pub columns: HashMap<String, ArrayRef>,
    /// What Sigma's `logsource` is compared with.
    pub logsource: Logsource,
    /// Rows with a payload, evidence or lineage that is not JSON; its fields are null.
    pub malformed: u64,
}

/// Where each row comes from, in the words of Sigma.
#[derive(Debug, Clone)]
pub struct Logsource {
    /// `aws`, `linux`, `okta`, `github`, `kubernetes` or `companyos`.
    pub product: StringArray,
    /// `cloudtrail`, `sshd`, `okta`, `audit`, or the type of an own signal.
    pub service: StringArray,
    /// `application` for Kubernetes, the kind of OCSF class for own signals.
    pub category: StringArray,
}

impl Extractor {
    /// Prepares for the names; any name is allowed, and one that no event has gives nulls.
    pub fn new<S: AsRef<str>>(wanted: &[S]) -> Self {
        let mut table = Vec::new();
        let mut names: Vec<String> = Vec::new();
        for name in wanted.iter().map(AsRef::as_ref) {
            let list = if is_table_column(name) { &mut table } else { &mut names };
            if !list.iter().any(|n| n == name) {
                list.push(name.to_owned());
            }
        }
        let sources = SourceKind::ALL
            .into_iter()
            .map(|kind| {
                let mut plan = Plan::new(kind);
                let resolved = names.iter().map(|name| resolve(name, kind, &mut plan)).collect();
                Source { kind, plan, resolved }
            })
            .collect();
        Self { table, names, sources }
    }

    /// The columns for a batch of security signals.
    pub fn extract(&self, batch: &RecordBatch) -> Result<Extracted, OcsfError> {
        let signals = SignalColumns::new(batch)?;
        let mut builders: Vec<ColumnBuilder> = self.names.iter().map(|_| ColumnBuilder::default()).collect();
        let mut logsource = LogsourceBuilder::default();
        let (mut payload, mut evidence) = (Slots::new(0), Slots::new(0));
        let mut malformed = 0;
        for index in 0..signals.len() {
            let row = signals.row(index);
            let source = &self.sources[SourceKind::of(row.source).index()];
            malformed += u64::from(!scan(&row, &source.plan, &mut payload, &mut evidence));
            let fields = Fields::new(source.kind, &row, &source.plan, &payload, &evidence);
            let class_uid = (mapping::mapper(source.kind).classify)(&fields).0;
            for ((builder, resolved), name) in builders.iter_mut().zip(&source.resolved).zip(&self.names) {
                match resolved {
                    Resolved::Computed(name) => {
                        if let Some(value) = computed(name, source.kind, &fields) {
                            builder.push(&value);
                        }
                    }
                    Resolved::Field(attrs, slot) => {
                        match attrs.iter().find_map(|attr| mapping::value(attr, class_uid, &fields)) {
                            Some((value, _)) => builder.push(&value),
                            None if name.starts_with("sshd.") => {
                                fields.get(name).into_iter().for_each(|v| builder.push(v));
                            }
                            None if payload.has(*slot) => payload.values(*slot).for_each(|v| builder.push(v)),
                            None => evidence.values(*slot).for_each(|v| builder.push(v)),
                        }
                    }
                }
                builder.end_row();
            }
            logsource.push(source.kind, &row, class_uid);
        }
        let mut columns = HashMap::with_capacity(self.names.len() + self.table.len());
        for (name, builder) in self.names.iter().zip(builders) {
            columns.insert(name.clone(), builder.finish(name, is_ocsf_integer(name))?);
        }
        for name in &self.table {
            columns.insert(name.clone(), table_column(batch, name)?);
        }
        Ok(Extracted { columns, logsource: logsource.finish(), malformed })
    }
}

/// Scans an event for what the plan wants; false if some of it is not JSON. Evidence is looked at
/// only if the payload left something open.
pub(crate) fn scan(row: &SignalRow<'_>, plan: &Plan, payload: &mut Slots, evidence: &mut Slots) -> bool {
    payload.clear(plan.len());
    evidence.clear(plan.len());
    let mut well = true;
    let mut look = |trie: &crate::scan::Trie, text: Option<&str>, out: &mut Slots, alone: bool| {
        if let Some(text) = text
            && !trie.is_empty()
            && !trie.scan(text, out)
        {
            well = false;
            if alone {
                out.clear(plan.len());
            }
        }
    };
    look(&plan.payload, row.payload, payload, true);
    if (0..plan.len()).any(|slot| !payload.has(slot)) {
        look(&plan.evidence, row.evidence, evidence, true);
    }
    // These share the payload's slots, which a broken lineage must not empty.
    look(&plan.lineage, row.lineage, payload, false);
    well
}

#[derive(Debug, Default)]
struct LogsourceBuilder {
    product: StringBuilder,
    service: StringBuilder,
    category: StringBuilder,
}

impl LogsourceBuilder {
    fn push(&mut self, kind: SourceKind, row: &SignalRow<'_>, class_uid: i64) {
        self.product.append_value(kind.product());
        self.service.append_value(kind.service().unwrap_or(row.signal_type));
        self.category.append_option(match kind {
            SourceKind::Kubernetes => Some("application"),
            SourceKind::Own => Some(category(class_uid)),
            _ => None,
        });
    }

    fn finish(mut self) -> Logsource {
        Logsource { product: self.product.finish(), service: self.service.finish(), category: self.category.finish() }
    }
}

fn category(class_uid: i64) -> &'static str {
    match class_uid {
        class::AUTHENTICATION => "authentication",
        class::ACCOUNT_CHANGE => "account_change",
        class::USER_ACCESS => "user_access",
        class::GROUP_MANAGEMENT => "group_management",
        class::API_ACTIVITY => "api_activity",
        _ => "finding",
    }
}

/// `class_uid` and `severity_id` and the like are OCSF's; a vendor's own field of such a name in
/// another place stays text, because its values need not be numbers.
fn is_ocsf_integer(name: &str) -> bool {
    let known = mapping::COMPUTED.contains(&name)
        || SourceKind::ALL.iter().any(|k| mapping::mapper(*k).attrs.iter().any(|a| a.name.replace("[]", "") == name));
    known && is_integer(name)
}

pub(crate) fn is_table_column(name: &str) -> bool {
    // The class that events are exported with is the mapper's, so rules see that one too.
    name != "class_uid"
        && (Stream::SecuritySignals.field_index(name).is_some()
            || name == arrow_schema::DAY
            || arrow_schema::lineage_fields().iter().any(|f| f.name() == name))
}

fn table_column(batch: &RecordBatch, name: &str) -> Result<ArrayRef, OcsfError> {
    let Some(column) = batch.column_by_name(name) else {
        return Ok(Arc::new(StringArray::new_null(batch.num_rows())));
    };
    Ok(match column.data_type() {
        DataType::Utf8 | DataType::Int64 => Arc::clone(column),
        DataType::Timestamp(..) => match column.as_primitive_opt::<TimestampMicrosecondType>() {
            Some(times) => Arc::new(Int64Array::new(times.values().clone(), times.nulls().cloned())),
            None => cast(column, &DataType::Int64)?,
        },
        DataType::Int32 => cast(column, &DataType::Int64)?,
        _ => cast(column, &DataType::Utf8)?,
    })
}
