//! One encoder per wire format, fed batch by batch.
//!
//! Every format says when a result is not whole: JSON by `"truncated": true` or an `error`
//! member, NDJSON by a last line `{"$error": …}`, Arrow by a missing end-of-stream marker. CSV has
//! no place for it, so whoever sends CSV must break the transfer off.
//!
//! 64-bit integers are JSON numbers with all their digits; readers that hold numbers as doubles
//! lose those beyond 2^53 and should use Arrow or cast to text in SQL. NaN and infinities are null,
//! bytes are hex, timestamps RFC 3339.

use std::sync::Arc;

use arrow::{
    array::{RecordBatch, RecordBatchOptions},
    csv,
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
    ipc::writer::StreamWriter,
    json::{WriterBuilder, writer::LineDelimited},
};
use serde_json::{Value, json};

use crate::{error::QueryError, snapshots::TableVersion};

/// A format of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One object: `schema`, `versions`, `rows`, `row_count`, `truncated`.
    Json,
    /// One object a line.
    NdJson,
    /// RFC 4180 with a header line; null is an empty field.
    Csv,
    /// Arrow IPC stream.
    Arrow,
}

impl Format {
    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::NdJson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// Whether the bytes themselves can say that rows are missing.
    pub const fn marks_errors(self) -> bool {
        matches!(self, Self::Json | Self::NdJson)
    }
}

/// Encodes one result.
pub struct Encoder {
    format: Format,
    schema: SchemaRef,
    rows: u64,
    arrow: Option<StreamWriter<Vec<u8>>>,
}

impl Encoder {
    /// Fails if a column's type has no form in the format (nested types in CSV).
    pub fn new(format: Format, schema: &SchemaRef) -> Result<Self, ArrowError> {
        if format == Format::Csv
            && let Some(field) = schema.fields().iter().find(|f| f.data_type().is_nested())
        {
            let problem = format!("column {:?} is nested, which CSV has no form for", field.name());
            return Err(ArrowError::CsvError(problem));
        }
        let schema = match format {
            Format::Json | Format::NdJson => unique_names(schema),
            _ => schema.clone(),
        };
        let arrow = match format {
            Format::Arrow => Some(StreamWriter::try_new(Vec::new(), &schema)?),
            _ => None,
        };
        Ok(Self { format, schema, rows: 0, arrow })
    }

    /// What comes before the first row.
    pub fn begin(&mut self, versions: &[TableVersion], out: &mut Vec<u8>) -> Result<(), ArrowError> {
        match self.format {
            Format::Json => {
                let columns: Vec<Value> = self.schema.fields().iter().map(|f| describe(f)).collect();
                let head = json!({ "schema": columns, "versions": versions }).to_string();
                out.extend_from_slice(head.strip_suffix("}").unwrap_or(&head).as_bytes());
                out.extend_from_slice(b",\"rows\":[");
            }
            Format::Csv => {
                let header = RecordBatch::new_empty(self.schema.clone());
                csv::WriterBuilder::new().with_header(true).build(out).write(&header)?;
            }
            Format::NdJson => {}
            Format::Arrow => self.drain_arrow(out),
        }
        Ok(())
    }

    /// Some rows.
    pub fn batch(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        match self.format {
            Format::NdJson => self.lines(batch, out)?,
            Format::Json => {
                if self.rows > 0 {
                    out.push(b',');
                }
                let start = out.len();
                self.lines(batch, out)?;
                out.pop();
                // A line break inside a value is escaped, so every one left ends a row.
                out[start..].iter_mut().filter(|b| **b == b'\n').for_each(|b| *b = b',');
            }
            Format::Csv => csv::WriterBuilder::new().with_header(false).build(out).write(batch)?,
            Format::Arrow => {
                if let Some(writer) = &mut self.arrow {
                    writer.write(batch)?;
                }
                self.drain_arrow(out);
            }
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// What comes after the last row; `problem` is what ended the result early, if anything did.
    pub fn end(
        &mut self,
        error: Option<&QueryError>,
        problem: Option<&Value>,
        out: &mut Vec<u8>,
    ) -> Result<(), ArrowError> {
        match self.format {
            Format::Json => {
                let cut = match error {
                    Some(QueryError::Truncated(cut)) => format!(",\"truncated_because\":{}", json!(cut.to_string())),
                    Some(_) => format!(",\"error\":{}", problem.unwrap_or(&Value::Null)),
                    None => String::new(),
                };
                let truncated = error.is_some();
                out.extend_from_slice(
                    format!("],\"row_count\":{},\"truncated\":{truncated}{cut}}}\n", self.rows).as_bytes(),
                );
            }
            Format::NdJson => {
                if let Some(problem) = problem {
                    out.extend_from_slice(format!("{}\n", json!({ "$error": problem })).as_bytes());
                }
            }
            Format::Csv => {}
            Format::Arrow => {
                if error.is_none()
                    && let Some(writer) = &mut self.arrow
                {
                    writer.finish()?;
                }
                self.drain_arrow(out);
            }
        }
        Ok(())
    }

    fn lines(&self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let renamed = RecordBatch::try_new_with_options(self.schema.clone(), batch.columns().to_vec(), &options)?;
        let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(out);
        writer.write(&renamed)?;
        writer.finish()
    }

    fn drain_arrow(&mut self, out: &mut Vec<u8>) {
        if let Some(writer) = &mut self.arrow {
            out.append(writer.get_mut());
        }
    }
}

fn describe(field: &Field) -> Value {
    json!({ "name": field.name(), "type": type_name(field.data_type()), "nullable": field.is_nullable() })
}

fn type_name(data_type: &DataType) -> String {
    data_type.to_string()
}

/// Members of a JSON object need names of their own: the second `x` becomes `x:1`, as joins of two
/// tables give.
fn unique_names(schema: &SchemaRef) -> SchemaRef {
    let mut taken: Vec<String> = Vec::with_capacity(schema.fields().len());
    let mut fields: Vec<Field> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let mut name = field.name().clone();
        let mut n = 0;
        while taken.contains(&name) {
            n += 1;
            name = format!("{}:{n}", field.name());
        }
        taken.push(name.clone());
        fields.push(field.as_ref().clone().with_name(name));
    }
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;
    use crate::error::Cut;

    fn batch() -> RecordBatch {
        let fields = [("x", DataType::Int64), ("x", DataType::Utf8)];
        let schema = Schema::new(fields.map(|(n, t)| Field::new(n, t, true)).to_vec());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(i64::MAX), None])),
            Arc::new(StringArray::from(vec!["a\n\"b\"}", "c,d"])),
        ];
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    fn encode(format: Format, batches: &[RecordBatch], error: Option<&QueryError>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(format, &batch().schema()).unwrap();
        encoder.begin(&[], &mut out).unwrap();
        for batch in batches {
            encoder.batch(batch, &mut out).unwrap();
        }
        let problem = error.map(|e| json!({ "title": e.to_string() }));
        encoder.end(error, problem.as_ref(), &mut out).unwrap();
        out
    }

    #[test]
    fn json_is_one_object_with_every_digit_and_says_when_it_was_cut() {
        let whole: Value = serde_json::from_slice(&encode(Format::Json, &[batch(), batch()], None)).unwrap();
        assert_eq!(whole["rows"].as_array().unwrap().len(), 4);
        assert_eq!(whole["rows"][2]["x"], json!(i64::MAX));
        assert_eq!(whole["rows"][1], json!({ "x": null, "x:1": "c,d" }));
        assert_eq!((&whole["truncated"], &whole["row_count"]), (&json!(false), &json!(4)));
        let cut = QueryError::Truncated(Cut::Rows(2));
        let cut: Value = serde_json::from_slice(&encode(Format::Json, &[batch()], Some(&cut))).unwrap();
        assert_eq!(cut["truncated"], json!(true));
        let empty: Value = serde_json::from_slice(&encode(Format::Json, &[], None)).unwrap();
        assert_eq!((&empty["rows"], &empty["schema"][0]["name"]), (&json!([]), &json!("x")));
    }

    #[test]
    fn lines_end_with_an_error_line_and_csv_quotes() {
        let text = String::from_utf8(encode(Format::NdJson, &[batch()], Some(&QueryError::Memory))).unwrap();
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[2]["$error"].is_object());
        let text = String::from_utf8(encode(Format::Csv, &[batch()], None)).unwrap();
        assert_eq!(text, "x,x\n9223372036854775807,\"a\n\"\"b\"\"}\"\n,\"c,d\"\n");
    }

    #[test]
    fn an_arrow_stream_of_a_cut_result_has_no_end() {
        let end = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        assert!(encode(Format::Arrow, &[batch()], None).ends_with(&end));
        assert!(!encode(Format::Arrow, &[batch()], Some(&QueryError::Memory)).ends_with(&end));
    }
}
