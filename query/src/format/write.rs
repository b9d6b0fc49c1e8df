//! Results for people and files: what `companyos sql` prints or writes.

use std::io::{self, Write};

use arrow::{array::RecordBatch, error::ArrowError, util::pretty::pretty_format_batches};
use futures::StreamExt;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::WriterProperties,
};
use serde_json::json;

use super::{Encoder, Format};
use crate::{
    engine::QueryResult,
    error::{Cut, QueryError},
};

/// A format of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// Boxed table.
    Table,
    /// One JSON object, as the endpoint gives.
    Json,
    /// One JSON object a line.
    NdJson,
    /// CSV with a header line.
    Csv,
    /// Parquet, zstd.
    Parquet,
    /// Arrow IPC stream.
    Arrow,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Rows.
    pub rows: u64,
    /// Set if the result has more rows than these; say so to the user.
    pub cut: Option<Cut>,
}

/// Why a result could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The query failed; what was written before is not the whole result.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// A value has no form in the format.
    #[error("cannot encode the result: {0}")]
    Encode(#[from] ArrowError),
    /// The Parquet file cannot be written.
    #[error("cannot write Parquet: {0}")]
    Parquet(#[from] ParquetError),
    /// The output is closed or full.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
}

/// Rows as a boxed table; an empty result shows its columns.
pub fn write_table(batches: &[RecordBatch], out: &mut impl Write) -> Result<(), WriteError> {
    Ok(writeln!(out, "{}", pretty_format_batches(batches)?)?)
}

/// Writes a result to its end. A cut result is written as far as it goes and reported as cut.
pub async fn write_rows(
    mut result: QueryResult,
    format: OutputFormat,
    out: &mut (impl Write + Send),
) -> Result<Written, WriteError> {
    let mut sink = Sink::open(&result, format, out)?;
    let mut written = Written { rows: 0, cut: None };
    while let Some(batch) = result.rows.next().await {
        match batch {
            Ok(batch) => {
                written.rows += batch.num_rows() as u64;
                sink.batch(batch)?;
            }
            Err(QueryError::Truncated(cut)) => written.cut = Some(cut),
            Err(error) => return Err(error.into()),
        }
    }
    sink.close(written.cut)?;
    Ok(written)
}

enum Sink<'a, W: Write + Send> {
    Table { batches: Vec<RecordBatch>, out: &'a mut W },
    Encoded { encoder: Box<Encoder>, buffer: Vec<u8>, out: &'a mut W },
    Parquet(Box<ArrowWriter<&'a mut W>>),
}

impl<'a, W: Write + Send> Sink<'a, W> {
    fn open(result: &QueryResult, format: OutputFormat, out: &'a mut W) -> Result<Self, WriteError> {
        let wire = match format {
            OutputFormat::Table => {
                let batches = vec![RecordBatch::new_empty(result.schema.clone())];
                return Ok(Self::Table { batches, out });
            }
            OutputFormat::Parquet => {
                let level = ZstdLevel::try_new(3).unwrap_or_default();
                let props = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
                return Ok(Self::Parquet(Box::new(ArrowWriter::try_new(out, result.schema.clone(), Some(props))?)));
            }
            OutputFormat::Json => Format::Json,
            OutputFormat::NdJson => Format::NdJson,
            OutputFormat::Csv => Format::Csv,
            OutputFormat::Arrow => Format::Arrow,
        };
        let (mut encoder, mut buffer) = (Box::new(Encoder::new(wire, &result.schema)?), Vec::new());
        encoder.begin(&result.versions, &mut buffer)?;
        Ok(Self::Encoded { encoder, buffer, out })
    }

    fn batch(&mut self, batch: RecordBatch) -> Result<(), WriteError> {
        match self {
            Self::Table { batches, .. } => batches.push(batch),
            Self::Parquet(writer) => writer.write(&batch)?,
            Self::Encoded { encoder, buffer, out } => {
                encoder.batch(&batch, buffer)?;
                out.write_all(buffer)?;
                buffer.clear();
            }
        }
        Ok(())
    }

    fn close(self, cut: Option<Cut>) -> Result<(), WriteError> {
        match self {
            Self::Table { batches, out } => write_table(&batches, out)?,
            Self::Parquet(writer) => {
                writer.close()?;
            }
            Self::Encoded { mut encoder, mut buffer, out } => {
                let error = cut.map(QueryError::Truncated);
                let problem = error.as_ref().map(|e| json!({ "title": e.to_string() }));
                encoder.end(error.as_ref(), problem.as_ref(), &mut buffer)?;
                out.write_all(&buffer)?;
                out.flush()?;
            }
        }
        Ok(())
    }
}
