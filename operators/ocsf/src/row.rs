//! Rows of `security_signals`, read from a batch without copying.

use arrow::{
    array::{Array, AsArray, Int64Array, PrimitiveArray, RecordBatch, StringArray},
    datatypes::{DataType, Int64Type, TimestampMicrosecondType},
};
use companyos_schemas::arrow_schema;

use crate::OcsfError;

/// The columns of a batch, looked up once. A column the batch lacks reads as null, so that an
/// operator may leave out what it does not need.
#[derive(Debug, Clone)]
pub struct SignalColumns<'a> {
    rows: usize,
    text: [Option<&'a StringArray>; TEXT.len()],
    occurred_at: Option<&'a PrimitiveArray<TimestampMicrosecondType>>,
    ingested_at: Option<&'a PrimitiveArray<TimestampMicrosecondType>>,
    class_uid: Option<&'a Int64Array>,
}

/// One event of `security_signals`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SignalRow<'a> {
    /// Unique id of the event within its tenant.
    pub event_id: &'a str,
    /// When it happened by the producer's clock, in microseconds of Unix time.
    pub occurred_at: i64,
    /// Tenant.
    pub tenant: &'a str,
    /// Region.
    pub region: &'a str,
    /// Environment.
    pub env: &'a str,
    /// Who acted.
    pub actor: &'a str,
    /// What was seen.
    pub signal_type: &'a str,
    /// How bad it is.
    pub severity: &'a str,
    /// What supports the signal, as JSON text.
    pub evidence: Option<&'a str>,
    /// Where the signal came from, as JSON text.
    pub lineage: Option<&'a str>,
    /// OCSF class, if the producer named one.
    pub class_uid: Option<i64>,
    /// Replay protection.
    pub nonce: Option<&'a str>,
    /// System that sent it.
    pub source: Option<&'a str>,
    /// Signature by the source.
    pub signature: Option<&'a str>,
    /// SHA-256 of the payload, as the producer sent it and ingestion verified it.
    pub payload_hash: Option<&'a str>,
    /// The event's own data, as JSON text.
    pub payload: Option<&'a str>,
    /// When the worker decoded the row, in microseconds of Unix time.
    pub ingested_at: Option<i64>,
    /// DLP rules that changed the row.
    pub dlp_rules: Option<&'a str>,
}

const TEXT: [&str; 15] = [
    "event_id",
    "tenant",
    "region",
    "env",
    "actor",
    "signal_type",
    "severity",
    "evidence",
    "lineage",
    "nonce",
    "source",
    "signature",
    "payload_hash",
    "payload",
    arrow_schema::DLP_RULES,
];

impl<'a> SignalColumns<'a> {
    /// Finds the columns; one of another type than the contract's is an error.
    pub fn new(batch: &'a RecordBatch) -> Result<Self, OcsfError> {
        let mut text = [None; TEXT.len()];
        for (slot, name) in text.iter_mut().zip(TEXT) {
            *slot = match batch.column_by_name(name) {
                Some(column) => Some(column.as_string_opt::<i32>().ok_or_else(|| wrong(name, column, "Utf8"))?),
                None => None,
            };
        }
        let time = |name: &'static str| match batch.column_by_name(name) {
            Some(column) => column
                .as_primitive_opt::<TimestampMicrosecondType>()
                .map(Some)
                .ok_or_else(|| wrong(name, column, "Timestamp(Microsecond)")),
            None => Ok(None),
        };
        let class_uid = match batch.column_by_name("class_uid") {
            Some(column) => {
                Some(column.as_primitive_opt::<Int64Type>().ok_or_else(|| wrong("class_uid", column, "Int64"))?)
            }
            None => None,
        };
        Ok(Self {
            rows: batch.num_rows(),
            text,
            occurred_at: time("occurred_at")?,
            ingested_at: time(arrow_schema::INGESTED_AT)?,
            class_uid,
        })
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// A row; an index past the end reads as an empty row.
    pub fn row(&self, index: usize) -> SignalRow<'a> {
        if index >= self.rows {
            return SignalRow::default();
        }
        let text = |column: usize| self.text[column].filter(|c| c.is_valid(index)).map(|c| c.value(index));
        let must = |column: usize| text(column).unwrap_or_default();
        SignalRow {
            event_id: must(0),
            occurred_at: self.occurred_at.map_or(0, |c| c.value(index)),
            tenant: must(1),
            region: must(2),
            env: must(3),
            actor: must(4),
            signal_type: must(5),
            severity: must(6),
            evidence: text(7),
            lineage: text(8),
            class_uid: self.class_uid.filter(|c| c.is_valid(index)).map(|c| c.value(index)),
            nonce: text(9),
            source: text(10),
            signature: text(11),
            payload_hash: text(12),
            payload: text(13),
            ingested_at: self.ingested_at.filter(|c| c.is_valid(index)).map(|c| c.value(index)),
            dlp_rules: text(14),
        }
    }
}

fn wrong(column: &'static str, found: &dyn Array, expected: &'static str) -> OcsfError {
    let found: &DataType = found.data_type();
    OcsfError::ColumnType { column, found: found.to_string(), expected }
}
