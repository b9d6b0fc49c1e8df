//! The bare limit: decode to Arrow and write Parquet, on one thread, with nothing else around it.
//!
//! No engine that reads JSON and writes these files can spend less than this; how close ours comes is
//! what the ratio says. Making the events is not part of the figures.

use std::{
    io::{self, Write},
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Result};
use arrow::{
    array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use companyos_schemas::{
    Stream,
    arrow_schema::{self, PARTITION_COLUMNS},
};
use nix::sys::resource::{UsageWho, getrusage};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
    schema::types::ColumnPath,
};
use serde::{Deserialize, Serialize};

use crate::{
    decode::{self, Block, Decoder},
    generator::{Generator, GeneratorConfig},
};

/// Columns whose values hardly repeat, so that a dictionary would only cost.
const WITHOUT_DICTIONARY: [&str; 3] = ["event_id", "payload", "payload_hash"];

/// What to measure.
#[derive(Debug, Clone)]
pub struct BareConfig {
    /// Number of events, the same ones for every decoder.
    pub events: u64,
    /// Events decoded into one batch.
    pub block_rows: usize,
    /// Rows in a Parquet row group.
    pub row_group_rows: usize,
    /// Shape of the events.
    pub generator: GeneratorConfig,
}

/// What one decoder and the writer behind it cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BareResult {
    /// The decoder.
    pub decoder: String,
    /// Events decoded and written.
    pub events: u64,
    /// Their JSON text, in bytes.
    pub input_bytes: u64,
    /// The Parquet file, in bytes.
    pub output_bytes: u64,
    /// CPU seconds (user and system) spent decoding.
    pub decode_cpu_s: f64,
    /// CPU seconds spent writing.
    pub write_cpu_s: f64,
}

impl BareResult {
    /// CPU seconds to decode and write a million events.
    pub fn cpu_s_per_million(&self) -> f64 {
        (self.decode_cpu_s + self.write_cpu_s) / self.millions()
    }

    /// CPU seconds to decode a million events.
    pub fn decode_cpu_s_per_million(&self) -> f64 {
        self.decode_cpu_s / self.millions()
    }

    /// CPU seconds to write a million events.
    pub fn write_cpu_s_per_million(&self) -> f64 {
        self.write_cpu_s / self.millions()
    }

    /// Megabytes (10⁶) of JSON that one core decodes in a second.
    pub fn decode_mb_per_s(&self) -> f64 {
        self.input_bytes as f64 / 1e6 / self.decode_cpu_s
    }

    fn millions(&self) -> f64 {
        self.events as f64 / 1e6
    }
}

/// Measures every decoder, each with a writer of its own.
pub fn run(config: &BareConfig) -> Result<Vec<BareResult>> {
    decode::all(config.block_rows)?
        .iter_mut()
        .map(|decoder| measure(config, decoder.as_mut()).with_context(|| decoder.name()))
        .collect()
}

fn measure(config: &BareConfig, decoder: &mut dyn Decoder) -> Result<BareResult> {
    let mut generator = Generator::new(config.generator.clone());
    let mut output = TableWriter::new(CountingSink::default(), config.row_group_rows)?;
    let mut block = Block::default();
    let mut result = BareResult {
        decoder: decoder.name().to_owned(),
        events: config.events,
        input_bytes: 0,
        output_bytes: 0,
        decode_cpu_s: 0.0,
        write_cpu_s: 0.0,
    };
    let mut next = 0;
    while next < config.events {
        block.clear();
        let end = config.events.min(next + config.block_rows as u64);
        for index in next..end {
            generator.write_event(index, &mut block.bytes);
            block.end_event();
        }
        result.input_bytes += (block.bytes.len() - block.len()) as u64;
        let before = cpu_seconds()?;
        let batch = decoder.decode(&block)?;
        let decoded = cpu_seconds()?;
        output.write(&batch, next)?;
        result.decode_cpu_s += decoded - before;
        result.write_cpu_s += cpu_seconds()? - decoded;
        next = end;
    }
    let before = cpu_seconds()?;
    result.output_bytes = output.finish()?.0;
    result.write_cpu_s += cpu_seconds()? - before;
    Ok(result)
}

/// CPU time of this process so far.
fn cpu_seconds() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Writes the columns that the product events' table keeps in its files.
struct TableWriter<W: Write + Send> {
    schema: SchemaRef,
    writer: ArrowWriter<W>,
}

impl<W: Write + Send> TableWriter<W> {
    fn new(sink: W, row_group_rows: usize) -> Result<Self> {
        let schema = file_schema();
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_max_row_group_row_count(Some(row_group_rows));
        for column in WITHOUT_DICTIONARY {
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), false);
        }
        let writer = ArrowWriter::try_new(sink, schema.clone(), Some(properties.build()))?;
        Ok(Self { schema, writer })
    }

    /// Writes contract columns with the lineage that the engine would add to them.
    fn write(&mut self, contract: &RecordBatch, first_offset: u64) -> Result<()> {
        let rows = contract.num_rows();
        let first_offset = i64::try_from(first_offset)?;
        let columns: Result<Vec<ArrayRef>> = self
            .schema
            .fields()
            .iter()
            .map(|field| match contract.column_by_name(field.name()) {
                Some(column) => Ok(column.clone()),
                None => lineage_column(field, rows, first_offset),
            })
            .collect();
        self.writer.write(&RecordBatch::try_new(self.schema.clone(), columns?)?)?;
        Ok(())
    }

    fn finish(self) -> Result<W> {
        Ok(self.writer.into_inner()?)
    }
}

fn lineage_column(field: &Field, rows: usize, first_offset: i64) -> Result<ArrayRef> {
    Ok(match field.data_type() {
        data_type if field.is_nullable() => new_null_array(data_type, rows),
        DataType::Int64 => Arc::new(Int64Array::from_iter_values((first_offset..).take(rows))),
        DataType::Int32 => Arc::new(Int32Array::from_value(0, rows)),
        DataType::Utf8 => Arc::new(StringArray::from_iter_values(std::iter::repeat_n("product_events", rows))),
        DataType::Timestamp(_, _) => {
            Arc::new(TimestampMicrosecondArray::from_value(1_767_225_600_000_000, rows).with_timezone("UTC"))
        }
        other => anyhow::bail!("no value for column {} of type {other}", field.name()),
    })
}

/// The table's columns without those that only name its folders.
fn file_schema() -> SchemaRef {
    let table = arrow_schema::table_schema(Stream::ProductEvents);
    let kept: Vec<_> =
        table.fields().iter().filter(|f| !PARTITION_COLUMNS.contains(&f.name().as_str())).cloned().collect();
    Arc::new(Schema::new(kept))
}

/// Takes the file's bytes and keeps only their number.
#[derive(Default)]
struct CountingSink(u64);

impl Write for CountingSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes `events` generated events to a file as NDJSON; returns its size in bytes.
pub fn write_ndjson(config: GeneratorConfig, events: u64, path: &Path) -> Result<u64> {
    let file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
    let mut out = io::BufWriter::with_capacity(1 << 20, file);
    let mut generator = Generator::new(config);
    let mut line = Vec::with_capacity(1024);
    let mut total = 0;
    for index in 0..events {
        line.clear();
        generator.write_event(index, &mut line);
        line.push(b'\n');
        out.write_all(&line)?;
        total += line.len() as u64;
    }
    out.flush()?;
    Ok(total)
}

#[cfg(test)]
mod tests {
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    #[test]
    fn the_files_hold_every_event_in_the_tables_columns() {
        let mut block = Block::default();
        let mut generator = Generator::new(GeneratorConfig::new(1, 1_767_225_600_000));
        for index in 0..300 {
            generator.write_event(index, &mut block.bytes);
            block.end_event();
        }
        let batch = decode::all(300).unwrap()[0].decode(&block).unwrap();
        let mut writer = TableWriter::new(Vec::new(), 200).unwrap();
        writer.write(&batch, 1_000).unwrap();
        let file = parquet_bytes(writer.finish().unwrap());
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().with_batch_size(300).build().unwrap();
        let read: Vec<RecordBatch> = reader.map(Result::unwrap).collect();
        let read = arrow::compute::concat_batches(&read[0].schema(), &read).unwrap();
        assert_eq!(read.column_by_name("payload"), batch.column_by_name("payload"));
        assert_eq!(read.column_by_name("event_id"), batch.column_by_name("event_id"));
        let offsets = read.column_by_name("_offset").unwrap();
        assert_eq!(offsets.as_ref(), &Int64Array::from_iter_values(1_000..1_300) as &dyn arrow::array::Array);
        assert!(PARTITION_COLUMNS.iter().all(|name| read.column_by_name(name).is_none()));
    }

    #[test]
    fn every_decoder_is_charged_for_all_events() {
        let config = BareConfig {
            events: 1_000,
            block_rows: 256,
            row_group_rows: 512,
            generator: GeneratorConfig::new(1, 1_767_225_600_000),
        };
        let results = run(&config).unwrap();
        assert!(results.len() >= 3);
        for result in &results {
            assert_eq!((result.events, result.input_bytes), (1_000, results[0].input_bytes));
            assert!(result.decode_cpu_s > 0.0 && result.write_cpu_s > 0.0 && result.output_bytes > 0);
        }
    }

    fn parquet_bytes(bytes: Vec<u8>) -> impl parquet::file::reader::ChunkReader + 'static {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }
}
