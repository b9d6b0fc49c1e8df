//! Rows of the stream tables as what rules and detectors read.
//!
//! Ops and audit events become security signals of the platform (`product: companyos`, `service:
//! ops` or `audit`), so that the same rules grammar covers them: `signal_type` is the kind or the
//! action, and every other field stands in the evidence under its own name.

use std::{net::IpAddr, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray},
    compute::cast,
    datatypes::{DataType, Field, Int32Type, Int64Type, Schema, TimestampMicrosecondType},
};
use companyos_ocsf::Extracted;
use companyos_schemas::{Stream, arrow_schema as columns};
use companyos_stream::StreamError;
use serde_json::{Map, Value};

use crate::{Action, Build, Event, EvidenceRef, Facts, geo::Place, rule_book::RuleBook};

/// What detectors need to know of an event.
pub(crate) const FIELDS: &[&str] = &[
    "class_uid",
    "activity_id",
    "status_id",
    "user.name",
    "actor.user.name",
    "actor.session.uid",
    "actor.user.credential_uid",
    "api.operation",
    "metadata.event_code",
    "src_endpoint.ip",
    "src_endpoint.autonomous_system.number",
    "src_endpoint.location.lat",
    "src_endpoint.location.long",
    "is_mfa",
    "outcome",
    "user_id",
    "resource",
    "service",
    "setting",
    "artifact",
    "digest",
    "attested_digest",
    "branch",
    "branch_protected",
    "registries",
];

/// A batch in the form of security signals.
pub(crate) fn as_signals(stream: Stream, batch: &RecordBatch) -> Result<RecordBatch, StreamError> {
    if stream == Stream::SecuritySignals {
        return Ok(batch.clone());
    }
    let rows = batch.num_rows();
    let (name, actor, source) = match stream {
        Stream::AuditEvents => ("action", "actor", "companyos.audit"),
        _ => ("kind", "user_id", "companyos.ops"),
    };
    let text = |name: &str| batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
    let evidence = (0..rows).map(|row| {
        let mut fields = Map::new();
        for field in stream.fields() {
            let Some(value) = text(field.name).filter(|c| !c.is_null(row)).map(|c| c.value(row)) else { continue };
            if field.name == "payload" {
                if let Ok(Value::Object(payload)) = serde_json::from_str(value) {
                    // The contract's own fields win over those of the payload.
                    for (key, value) in payload {
                        fields.entry(key).or_insert(value);
                    }
                }
            } else {
                fields.insert(field.name.to_owned(), Value::String(value.to_owned()));
            }
        }
        Some(Value::Object(fields).to_string())
    });
    let evidence: StringArray = evidence.collect();
    let constant = |value: &str| -> ArrayRef { Arc::new(StringArray::from(vec![value; rows])) };
    let or_unknown = |name: &str| -> ArrayRef {
        let column = text(name);
        let value = |row| column.filter(|c| !c.is_null(row)).map_or("unknown", |c| c.value(row));
        Arc::new((0..rows).map(|row| Some(value(row))).collect::<StringArray>())
    };
    let mut fields: Vec<(String, ArrayRef)> = vec![
        ("actor".into(), or_unknown(actor)),
        ("signal_type".into(), or_unknown(name)),
        ("severity".into(), constant("info")),
        ("evidence".into(), Arc::new(evidence)),
        ("source".into(), constant(source)),
    ];
    for name in ["event_id", "occurred_at", "tenant", "region", "env"].into_iter().chain(LINEAGE) {
        if let Some(column) = batch.column_by_name(name) {
            fields.push((name.to_owned(), Arc::clone(column)));
        }
    }
    let schema = fields.iter().map(|(name, column)| Field::new(name, column.data_type().clone(), true));
    let schema = Arc::new(Schema::new(schema.collect::<Vec<_>>()));
    Ok(RecordBatch::try_new(schema, fields.into_iter().map(|(_, column)| column).collect())?)
}

const LINEAGE: [&str; 6] =
    [columns::TOPIC, columns::PARTITION, columns::OFFSET, columns::INDEX, columns::INGESTED_AT, columns::TRACE_ID];

/// Scope, time and place of the rows of a batch.
pub(crate) struct Rows<'a> {
    event_id: &'a StringArray,
    tenant: &'a StringArray,
    env: &'a StringArray,
    region: &'a StringArray,
    actor: &'a StringArray,
    signal_type: &'a StringArray,
    occurred_at: &'a arrow::array::PrimitiveArray<TimestampMicrosecondType>,
    topic: &'a StringArray,
    partition: &'a Int32Array,
    offset: &'a Int64Array,
    index: &'a Int32Array,
    trace: Option<&'a StringArray>,
}

impl<'a> Rows<'a> {
    pub fn new(batch: &'a RecordBatch) -> Result<Self, StreamError> {
        let lacks = |name: &str| StreamError::Operator(format!("rows lack the column {name}, or it has another type"));
        let text =
            |name: &str| batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>()).ok_or_else(|| lacks(name));
        let int32 = |name: &str| {
            batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int32Type>()).ok_or_else(|| lacks(name))
        };
        Ok(Self {
            event_id: text("event_id")?,
            tenant: text("tenant")?,
            env: text("env")?,
            region: text("region")?,
            actor: text("actor")?,
            signal_type: text("signal_type")?,
            occurred_at: batch
                .column_by_name("occurred_at")
                .and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>())
                .ok_or_else(|| lacks("occurred_at"))?,
            topic: text(columns::TOPIC)?,
            partition: int32(columns::PARTITION)?,
            offset: batch
                .column_by_name(columns::OFFSET)
                .and_then(|c| c.as_primitive_opt::<Int64Type>())
                .ok_or_else(|| lacks(columns::OFFSET))?,
            index: int32(columns::INDEX)?,
            trace: text(columns::TRACE_ID).ok(),
        })
    }

    pub fn at(&self, row: usize) -> i64 {
        self.occurred_at.value(row)
    }

    /// Tenant, environment, region.
    pub fn scope(&self, row: usize) -> [&'a str; 3] {
        [self.tenant.value(row), self.env.value(row), self.region.value(row)]
    }

    pub fn actor(&self, row: usize) -> &'a str {
        self.actor.value(row)
    }

    pub fn partition(&self, row: usize) -> (&'a str, i32) {
        (self.topic.value(row), self.partition.value(row))
    }

    pub fn evidence(&self, row: usize) -> EvidenceRef {
        EvidenceRef {
            topic: self.topic.value(row).to_owned(),
            partition: self.partition.value(row),
            offset: self.offset.value(row),
            index: self.index.value(row),
            event_id: self.event_id.value(row).to_owned(),
        }
    }

    pub fn trace_id(&self, row: usize) -> Option<String> {
        self.trace.filter(|t| !t.is_null(row)).map(|t| t.value(row).to_owned())
    }
}

/// The extracted fields of a batch, read as text.
pub(crate) struct Cells<'a>(pub &'a Extracted);

impl Cells<'_> {
    pub fn get(&self, field: &str, row: usize) -> Option<String> {
        text(self.0.columns.get(field)?, row)
    }

    fn all(&self, field: &str, row: usize) -> Vec<String> {
        match self.0.columns.get(field) {
            Some(column) => match column.as_list_opt::<i32>() {
                Some(list) if !list.is_null(row) => {
                    let values = list.value(row);
                    (0..values.len()).filter_map(|i| text(&values, i)).collect()
                }
                Some(_) => Vec::new(),
                None => text(column, row).into_iter().collect(),
            },
            None => Vec::new(),
        }
    }
}

fn text(column: &ArrayRef, row: usize) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    if let Some(column) = column.as_string_opt::<i32>() {
        return Some(column.value(row).to_owned());
    }
    if let Some(column) = column.as_primitive_opt::<Int64Type>() {
        return Some(column.value(row).to_string());
    }
    if let Some(list) = column.as_list_opt::<i32>() {
        return Some(list.value(row)).filter(|v| !v.is_empty()).and_then(|v| text(&v, 0));
    }
    let one = cast(&column.slice(row, 1), &DataType::Utf8).ok()?;
    one.as_string_opt::<i32>().map(|c| c.value(0).to_owned())
}

/// The event for the detectors, if it is one that any of them looks at.
pub(crate) fn event(book: &RuleBook, stream: Stream, rows: &Rows<'_>, cells: &Cells<'_>, row: usize) -> Option<Event> {
    let number = |field: &str| cells.get(field, row).and_then(|v| v.parse::<i64>().ok());
    let operation = cells.get("metadata.event_code", row).or_else(|| cells.get("api.operation", row));
    let outcome = cells.get("outcome", row);
    let facts = Facts {
        name: rows.signal_type.value(row),
        operation: operation.as_deref(),
        class_uid: number("class_uid"),
        activity_id: number("activity_id"),
        status_id: number("status_id"),
        outcome: outcome.as_deref(),
    };
    let action = match stream {
        Stream::OpsEvents => facts.of_ops(),
        Stream::AuditEvents => facts.of_audit(),
        _ => facts.of_signal(),
    };
    let session = cells
        .get("actor.session.uid", row)
        // Temporary credentials are a session; long-lived keys are used from anywhere.
        .or_else(|| cells.get("actor.user.credential_uid", row).filter(|key| key.starts_with("ASIA")));
    if action == Action::Other && session.is_none() {
        return None;
    }
    let [tenant, env, region] = rows.scope(row);
    let ip: Option<IpAddr> = cells.get("src_endpoint.ip", row).and_then(|ip| ip.parse().ok());
    let float = |field: &str| cells.get(field, row).and_then(|v| v.parse::<f64>().ok());
    let said = match (float("src_endpoint.location.lat"), float("src_endpoint.location.long")) {
        (Some(latitude), Some(longitude)) => Place::new(latitude, longitude),
        _ => None,
    };
    let located = || book.places.as_ref().zip(ip).and_then(|(places, ip)| places.place(ip));
    let asn = cells.get("src_endpoint.autonomous_system.number", row).and_then(|v| v.parse().ok());
    let builds = matches!(action, Action::Build | Action::Deploy | Action::Attestation);
    Some(Event {
        tenant: tenant.to_owned(),
        env: env.to_owned(),
        region: region.to_owned(),
        at: rows.at(row),
        user: entity(rows, cells, row),
        name: facts.name.to_owned(),
        resource: ["setting", "resource", "service"].into_iter().find_map(|f| cells.get(f, row)),
        action,
        mfa: cells.get("is_mfa", row).and_then(|v| v.parse().ok()),
        ip,
        asn: asn.or_else(|| book.networks.as_ref().zip(ip).and_then(|(networks, ip)| networks.asn(ip))),
        place: said.or_else(located),
        session,
        build: builds.then(|| Build {
            artifact: cells.get("artifact", row).or_else(|| cells.get("service", row)),
            digest: cells.get("digest", row),
            attested_digest: cells.get("attested_digest", row),
            branch: cells.get("branch", row),
            branch_protected: cells.get("branch_protected", row).and_then(|v| v.parse().ok()),
            registries: cells.all("registries", row),
        }),
        evidence: rows.evidence(row),
        trace_id: rows.trace_id(row),
    })
}

/// Who acted, or whose account it is about.
pub(crate) fn entity(rows: &Rows<'_>, cells: &Cells<'_>, row: usize) -> String {
    let named = cells.get("actor.user.name", row).or_else(|| cells.get("user.name", row));
    named.unwrap_or_else(|| rows.actor(row).to_owned())
}
