//! Rows of a Parquet file, as JSON objects: nested values nested, timestamps RFC 3339 (those
//! without a zone taken as UTC), binary as hex, nulls left out.

use std::{
    collections::VecDeque,
    fs::File,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow::{
    array::RecordBatch,
    error::ArrowError,
    json::{WriterBuilder, writer::LineDelimited},
};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::{Content, Row, RowError, RowErrorKind, RowSource};

/// Rows turned into JSON at a time; bounds memory for wide rows.
const BATCH_ROWS: usize = 256;

/// Rows of a Parquet file.
pub(super) struct ParquetRows {
    unopened: Option<ParquetRecordBatchReaderBuilder<File>>,
    reader: Option<ParquetRecordBatchReader>,
    ready: VecDeque<Vec<u8>>,
    number: u64,
    total: u64,
    position: Arc<AtomicU64>,
}

impl ParquetRows {
    /// Reads the file's footer; `position` will follow the rows read.
    pub(super) fn new(file: File, position: Arc<AtomicU64>) -> Result<Self, String> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| e.to_string())?;
        let rows = builder.metadata().file_metadata().num_rows();
        let total = u64::try_from(rows).map_err(|_| format!("claims to have {rows} rows"))?;
        let unopened = Some(builder.with_batch_size(BATCH_ROWS));
        Ok(Self { unopened, reader: None, ready: VecDeque::new(), number: 0, total, position })
    }

    /// Rows in the file.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    fn error(&self, reason: impl std::fmt::Display) -> RowError {
        let row = self.number + 1;
        RowError { row, line: row, kind: RowErrorKind::Io(std::io::Error::other(reason.to_string())) }
    }
}

impl RowSource for ParquetRows {
    fn next_row(&mut self) -> Result<Option<Row>, RowError> {
        if let Some(builder) = self.unopened.take() {
            self.reader = Some(builder.build().map_err(|e| self.error(e))?);
        }
        while self.ready.is_empty() {
            match self.reader.as_mut().and_then(Iterator::next) {
                None => return Ok(None),
                Some(batch) => self.ready = batch.and_then(|b| json_rows(&b)).map_err(|e| self.error(e))?,
            }
        }
        let Some(raw) = self.ready.pop_front() else { return Ok(None) };
        self.number += 1;
        self.position.store(self.number, Ordering::Relaxed);
        Ok(Some(Row { number: self.number, line: self.number, raw, content: Content::Json }))
    }

    fn skip(&mut self, rows: u64) -> Result<(), RowError> {
        let rows = rows.min(self.total);
        let offset = usize::try_from(rows).map_err(|e| self.error(e))?;
        self.unopened = self.unopened.take().map(|builder| builder.with_offset(offset));
        self.number = rows;
        self.position.store(rows, Ordering::Relaxed);
        Ok(())
    }
}

fn json_rows(batch: &RecordBatch) -> Result<VecDeque<Vec<u8>>, ArrowError> {
    let mut writer = WriterBuilder::new()
        .with_timestamp_format("%Y-%m-%dT%H:%M:%S%.fZ".to_owned())
        .build::<_, LineDelimited>(Vec::new());
    writer.write(batch)?;
    writer.finish()?;
    let text = writer.into_inner();
    let rows = text.split(|b| *b == b'\n').filter(|row| !row.is_empty()).map(<[u8]>::to_vec);
    Ok(rows.collect())
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{
            BinaryArray, Decimal128Array, Float64Array, Int64Array, ListArray, StringArray, StructArray,
            TimestampMicrosecondArray, TimestampMillisecondArray,
        },
        datatypes::{DataType, Field, Int32Type},
    };
    use parquet::arrow::ArrowWriter;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn every_type_comes_out_as_json_and_skips_by_row() {
        let city = StringArray::from(vec![Some("Köln"), None, Some("Bonn\n2")]);
        let place = StructArray::from(vec![(
            Arc::new(Field::new("city", DataType::Utf8, true)),
            Arc::new(city) as arrow::array::ArrayRef,
        )]);
        let list =
            ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), Some(2)]), None, Some(vec![])]);
        let batch = RecordBatch::try_from_iter([
            ("big", Arc::new(Int64Array::from(vec![i64::MAX, i64::MIN, 0])) as arrow::array::ArrayRef),
            ("local", Arc::new(TimestampMillisecondArray::from(vec![1_700_000_000_123; 3]))),
            ("utc", Arc::new(TimestampMicrosecondArray::from(vec![1_700_000_000_000_001; 3]).with_timezone("UTC"))),
            ("berlin", Arc::new(TimestampMicrosecondArray::from(vec![0; 3]).with_timezone("Europe/Berlin"))),
            ("float", Arc::new(Float64Array::from(vec![1.5, f64::NAN, 2.0]))),
            ("price", Arc::new(Decimal128Array::from(vec![12345, 1, 0]).with_precision_and_scale(10, 2).unwrap())),
            ("bytes", Arc::new(BinaryArray::from(vec![b"\xff\x00".as_slice(), b"", b"a"]))),
            ("place", Arc::new(place)),
            ("list", Arc::new(list)),
        ])
        .unwrap();
        let file = tempfile::tempfile().unwrap();
        let mut writer = ArrowWriter::try_new(file.try_clone().unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();

        let position = Arc::new(AtomicU64::new(0));
        let mut rows = ParquetRows::new(file.try_clone().unwrap(), Arc::clone(&position)).unwrap();
        assert_eq!(rows.total(), 3);
        let first: Value = serde_json::from_slice(&rows.next_row().unwrap().unwrap().raw).unwrap();
        let expected = json!({
            "big": i64::MAX, "local": "2023-11-14T22:13:20.123Z", "utc": "2023-11-14T22:13:20.000001Z",
            "berlin": "1970-01-01T01:00:00+01:00", "float": 1.5, "price": 123.45, "bytes": "ff00",
            "place": {"city": "Köln"}, "list": [1, 2],
        });
        assert_eq!(first, expected);
        let second: Value = serde_json::from_slice(&rows.next_row().unwrap().unwrap().raw).unwrap();
        assert_eq!(second["place"], json!({}));
        assert!(second.get("list").is_none() && second["float"].is_null());
        assert_eq!(second["big"], i64::MIN);

        let mut rest = ParquetRows::new(file, position).unwrap();
        rest.skip(2).unwrap();
        let third = rest.next_row().unwrap().unwrap();
        assert_eq!(third.number, 3);
        assert_eq!(serde_json::from_slice::<Value>(&third.raw).unwrap()["place"]["city"], "Bonn\n2");
        assert!(rest.next_row().unwrap().is_none());
    }
}
