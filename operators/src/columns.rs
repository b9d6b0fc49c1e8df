//! Rows to columns: one builder per field of the stream, and the lineage beside them.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, Date32Array, Float64Builder, Int32Array, Int64Array, Int64Builder, RecordBatch, StringArray,
        StringBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder, new_null_array,
    },
    buffer::{Buffer, OffsetBuffer},
    datatypes::{DataType, SchemaRef},
};
use companyos_schemas::{FieldType, Stream, arrow_schema::table_schema};

use crate::{error::OperatorError, json::Span, stage::MAX_FIELDS};

/// A value ready for its column; texts still lie where they were found.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) enum Value {
    #[default]
    Null,
    /// Text within the event.
    Event(Span),
    /// Text within the decoder's scratch space.
    Scratch(Span),
    /// Microseconds since 1970, or an integer.
    Integer(i64),
    Float(f64),
}

/// What a row's lineage columns hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lineage<'a> {
    pub offset: i64,
    pub index: i32,
    pub ingested_at: i64,
    pub trace_id: Option<&'a str>,
    pub origin: Option<&'a str>,
}

/// Columns under construction.
pub(crate) struct Columns {
    schema: SchemaRef,
    fields: Vec<Column>,
    days: Vec<i32>,
    offsets: Vec<i64>,
    indexes: Vec<i32>,
    ingested: Vec<i64>,
    traces: StringBuilder,
    origins: StringBuilder,
    text_bytes: usize,
    /// Bytes a row takes beside its texts, its share of the topic column included.
    row_bytes: usize,
    topic: Arc<str>,
    partition: i32,
}

enum Column {
    Text(StringBuilder),
    Time(TimestampMicrosecondBuilder),
    Float(Float64Builder),
    Integer(Int64Builder),
}

impl Columns {
    pub fn new(stream: Stream, topic: Arc<str>, partition: i32) -> Self {
        let fields = stream.fields().iter().map(|field| match field.ty {
            FieldType::Identifier | FieldType::Text | FieldType::Enum(_) | FieldType::Json => {
                Column::Text(StringBuilder::new())
            }
            FieldType::Timestamp => Column::Time(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            FieldType::Float => Column::Float(Float64Builder::new()),
            FieldType::Integer => Column::Integer(Int64Builder::new()),
        });
        Self {
            schema: table_schema(stream),
            fields: fields.collect(),
            days: Vec::new(),
            offsets: Vec::new(),
            indexes: Vec::new(),
            ingested: Vec::new(),
            traces: StringBuilder::new(),
            origins: StringBuilder::new(),
            text_bytes: 0,
            row_bytes: stream.fields().len() * 5 + 40 + topic.len(),
            topic,
            partition,
        }
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.offsets.len()
    }

    /// Bytes so far, close enough to bound memory by.
    pub fn bytes(&self) -> usize {
        self.text_bytes + self.rows() * self.row_bytes
    }

    /// Adds a row. `values` are in field order; `event` and `scratch` hold their texts.
    pub fn push(&mut self, values: &[Value; MAX_FIELDS], event: &str, scratch: &str, day: i32, lineage: Lineage<'_>) {
        for (column, value) in self.fields.iter_mut().zip(values) {
            match (column, *value) {
                (Column::Text(column), Value::Event(span)) => {
                    self.text_bytes += (span.end - span.start) as usize;
                    column.append_value(span.of(event));
                }
                (Column::Text(column), Value::Scratch(span)) => {
                    self.text_bytes += (span.end - span.start) as usize;
                    column.append_value(span.of(scratch));
                }
                (Column::Text(column), _) => column.append_null(),
                (Column::Time(column), Value::Integer(micros)) => column.append_value(micros),
                (Column::Time(column), _) => column.append_null(),
                (Column::Integer(column), Value::Integer(integer)) => column.append_value(integer),
                (Column::Integer(column), _) => column.append_null(),
                (Column::Float(column), Value::Float(float)) => column.append_value(float),
                (Column::Float(column), _) => column.append_null(),
            }
        }
        self.days.push(day);
        self.offsets.push(lineage.offset);
        self.indexes.push(lineage.index);
        self.ingested.push(lineage.ingested_at);
        self.traces.append_option(lineage.trace_id);
        self.origins.append_option(lineage.origin);
    }

    /// The rows as a batch of the stream's table schema; the builders are empty afterwards, with
    /// room for as many rows again.
    pub fn finish(&mut self) -> Result<RecordBatch, OperatorError> {
        let rows = self.rows();
        let mut columns: Vec<ArrayRef> = self.fields.iter_mut().map(|column| column.finish(rows)).collect();
        columns.push(Arc::new(Date32Array::from(self.take(|c| &mut c.days))));
        columns.push(Arc::new(repeated(&self.topic, rows)?));
        columns.push(Arc::new(Int32Array::from(vec![self.partition; rows])));
        columns.push(Arc::new(Int64Array::from(self.take(|c| &mut c.offsets))));
        columns.push(Arc::new(Int32Array::from(self.take(|c| &mut c.indexes))));
        let ingested = TimestampMicrosecondArray::from(self.take(|c| &mut c.ingested));
        columns.push(Arc::new(ingested.with_timezone("UTC")));
        columns.push(Arc::new(self.traces.finish()));
        columns.push(new_null_array(&DataType::Utf8, rows));
        columns.push(Arc::new(self.origins.finish()));
        self.text_bytes = 0;
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }

    fn take<T>(&mut self, of: impl Fn(&mut Self) -> &mut Vec<T>) -> Vec<T> {
        let column = of(self);
        let room = column.len();
        std::mem::replace(column, Vec::with_capacity(room))
    }
}

impl Column {
    fn finish(&mut self, rows: usize) -> ArrayRef {
        match self {
            Column::Text(column) => {
                let bytes = column.values_slice().len();
                let done = std::mem::replace(column, StringBuilder::with_capacity(rows, bytes)).finish();
                Arc::new(done)
            }
            Column::Time(column) => Arc::new(column.finish()),
            Column::Float(column) => Arc::new(column.finish()),
            Column::Integer(column) => Arc::new(column.finish()),
        }
    }
}

/// A column that says the same in every row.
pub(crate) fn repeated(text: &str, rows: usize) -> Result<StringArray, OperatorError> {
    let offsets = OffsetBuffer::from_repeated_length(text.len(), rows);
    Ok(StringArray::try_new(offsets, Buffer::from_vec(text.as_bytes().repeat(rows)), None)?)
}
