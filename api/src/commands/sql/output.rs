//! Writing an answer: as a table, JSON, CSV or Parquet, to a file or standard output.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};
use arrow::{array::RecordBatch, csv, json, util::pretty::pretty_format_batches_with_schema};
use futures::StreamExt;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

use super::{Format, source::Answer};

/// Rows a table shows; its column widths need all of them at once.
const TABLE_ROWS: usize = 10_000;

/// Where an answer goes.
pub struct Output {
    format: Format,
    to: Box<dyn Write + Send>,
}

impl Output {
    /// Opens the file before the query runs, so that a wrong path costs nothing.
    pub fn new(format: Format, file: Option<&Path>) -> Result<Self> {
        let to: Box<dyn Write + Send> = match file {
            Some(path) => Box::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?),
            None if format == Format::Parquet && io::stdout().is_terminal() => {
                bail!("Parquet is not for terminals: give --output FILE or redirect")
            }
            None => Box::new(io::stdout()),
        };
        Ok(Self { format, to })
    }

    /// Writes all of it. Rows that came before an error are written.
    pub async fn write(self, answer: Answer) -> Result<()> {
        match self.format {
            Format::Table => table(self.to, answer).await,
            Format::Json => {
                let mut writer = json::ArrayWriter::new(self.to);
                let ended = each(answer, |batch| Ok(writer.write(batch)?)).await;
                writer.finish()?;
                let mut to = writer.into_inner();
                writeln!(to)?;
                to.flush()?;
                ended
            }
            Format::Csv => {
                let mut writer = csv::WriterBuilder::new().with_header(true).build(self.to);
                // The header stands above an empty result too.
                writer.write(&RecordBatch::new_empty(answer.schema.clone()))?;
                each(answer, |batch| Ok(writer.write(batch)?)).await
            }
            Format::Parquet => {
                let compression = Compression::ZSTD(ZstdLevel::default());
                let properties = WriterProperties::builder().set_compression(compression).build();
                let mut writer = ArrowWriter::try_new(self.to, answer.schema.clone(), Some(properties))?;
                let ended = each(answer, |batch| Ok(writer.write(batch)?)).await;
                writer.close()?;
                ended
            }
        }
    }
}

async fn each(mut answer: Answer, mut write: impl FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
    while let Some(batch) = answer.batches.next().await {
        write(&batch?)?;
    }
    Ok(())
}

async fn table(mut to: Box<dyn Write + Send>, mut answer: Answer) -> Result<()> {
    let (mut batches, mut rows, mut more, mut ended) = (Vec::new(), 0, false, Ok(()));
    while let Some(batch) = answer.batches.next().await {
        match batch {
            Ok(batch) if rows < TABLE_ROWS => {
                let shown = batch.slice(0, batch.num_rows().min(TABLE_ROWS - rows));
                more |= shown.num_rows() < batch.num_rows();
                rows += shown.num_rows();
                batches.push(shown);
            }
            Ok(_) => {
                more = true;
                break;
            }
            Err(error) => {
                ended = Err(error);
                break;
            }
        }
    }
    if ended.is_ok() || rows > 0 {
        writeln!(to, "{}", pretty_format_batches_with_schema(answer.schema, &batches)?)?;
        let note = if more { ", more are not shown (another --format writes all)" } else { "" };
        writeln!(to, "{rows} row{}{note}", if rows == 1 { "" } else { "s" })?;
    }
    to.flush()?;
    ended
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    fn answer(empty: bool) -> Answer {
        let columns: [(&str, ArrayRef); 2] =
            [("n", Arc::new(Int64Array::from(vec![1, 2]))), ("s", Arc::new(StringArray::from(vec![Some("a"), None])))];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).unwrap();
        let schema = batch.schema();
        let batches = if empty { vec![] } else { vec![Ok(batch)] };
        Answer { schema, batches: futures::stream::iter(batches).boxed() }
    }

    async fn written(format: Format, empty: bool) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        Output::new(format, Some(&path)).unwrap().write(answer(empty)).await.unwrap();
        std::fs::read(path).unwrap()
    }

    #[tokio::test]
    async fn every_format_holds_the_rows_and_an_empty_answer_is_still_one() {
        assert_eq!(written(Format::Json, false).await, b"[{\"n\":1,\"s\":\"a\"},{\"n\":2}]\n");
        assert_eq!(written(Format::Json, true).await, b"[]\n");
        assert_eq!(written(Format::Csv, false).await, b"n,s\n1,a\n2,\n");
        assert_eq!(written(Format::Csv, true).await, b"n,s\n");
        let table = String::from_utf8(written(Format::Table, false).await).unwrap();
        assert!(table.contains("| 1 | a |") && table.ends_with("2 rows\n"), "{table}");
        let parquet = axum::body::Bytes::from(written(Format::Parquet, false).await);
        let rows: usize = ParquetRecordBatchReaderBuilder::try_new(parquet)
            .unwrap()
            .build()
            .unwrap()
            .map(|batch| batch.unwrap().num_rows())
            .sum();
        assert_eq!(rows, 2);
    }
}
