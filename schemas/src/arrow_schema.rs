//! Arrow schemas of the stream tables: the contract's fields, the partition day and the lineage.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef, TimeUnit};

use crate::{FieldType, Stream};

/// Kafka topic the row came from.
pub const TOPIC: &str = "_topic";
/// Kafka partition the row came from.
pub const PARTITION: &str = "_partition";
/// Offset of the record the row came from.
pub const OFFSET: &str = "_offset";
/// Position of the event inside its record, for records that hold JSON arrays.
pub const INDEX: &str = "_index";
/// When the worker decoded the row.
pub const INGESTED_AT: &str = "_ingested_at";
/// W3C trace id from the record's `traceparent` header.
pub const TRACE_ID: &str = "_trace_id";
/// Comma-separated ids of the DLP rules that changed the row.
pub const DLP_RULES: &str = "_dlp_rules";
/// For a row released from quarantine: `topic/partition/offset/index` it first came from.
pub const ORIGIN: &str = "_origin";
/// UTC day of `occurred_at`, a partition column of every stream table.
pub const DAY: &str = "day";

/// Columns that partition every stream table, outermost first.
pub const PARTITION_COLUMNS: [&str; 3] = ["tenant", "region", DAY];

/// The type of every timestamp column.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from("UTC")))
}

/// Schema of a stream's table: its fields in contract order, then `day`, then the lineage.
pub fn table_schema(stream: Stream) -> SchemaRef {
    let mut fields: Vec<ArrowField> =
        stream.fields().iter().map(|f| ArrowField::new(f.name, column_type(f.ty), !f.required)).collect();
    fields.push(ArrowField::new(DAY, DataType::Date32, false));
    fields.extend(lineage_fields());
    Arc::new(Schema::new(fields))
}

/// The lineage columns that end every stream table and the quarantine table.
pub fn lineage_fields() -> Vec<ArrowField> {
    vec![
        ArrowField::new(TOPIC, DataType::Utf8, false),
        ArrowField::new(PARTITION, DataType::Int32, false),
        ArrowField::new(OFFSET, DataType::Int64, false),
        ArrowField::new(INDEX, DataType::Int32, false),
        ArrowField::new(INGESTED_AT, timestamp_type(), false),
        ArrowField::new(TRACE_ID, DataType::Utf8, true),
        ArrowField::new(DLP_RULES, DataType::Utf8, true),
        ArrowField::new(ORIGIN, DataType::Utf8, true),
    ]
}

/// Arrow type that holds a field of the contract.
pub fn column_type(ty: FieldType) -> DataType {
    match ty {
        FieldType::Identifier | FieldType::Text | FieldType::Enum(_) | FieldType::Json => DataType::Utf8,
        FieldType::Timestamp => timestamp_type(),
        FieldType::Float => DataType::Float64,
        FieldType::Integer => DataType::Int64,
    }
}
