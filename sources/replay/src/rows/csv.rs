//! Rows of separated values, with the exact bytes each came from.

use std::io::{self, BufRead, Read};

use serde::Deserialize;
use serde_json::Map;

use super::{Content, Row, RowError, RowErrorKind, RowSource};

/// The map's `csv:` section.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CsvOptions {
    /// One ASCII character, or "tab"; a comma, and a tab for .tsv, unless given.
    delimiter: Option<String>,
    /// One ASCII character; a double quote unless given. Doubled inside a quoted value.
    quote: Option<String>,
    /// Names of the columns, for files without a header.
    columns: Option<Vec<String>>,
}

impl CsvOptions {
    /// Checks the options; the error names the one that is wrong.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.bytes(false)?;
        self.columns.as_deref().map_or(Ok(()), check_columns)
    }

    fn bytes(&self, tabs: bool) -> Result<(u8, u8), String> {
        let one = |name: &str, text: &Option<String>, default: u8| match text.as_deref() {
            None => Ok(default),
            Some("tab" | "\\t") => Ok(b'\t'),
            Some(text) => match text.as_bytes() {
                [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r') => Ok(*byte),
                _ => Err(format!("{name} {text:?}: expected one ASCII character")),
            },
        };
        let default = if tabs { b'\t' } else { b',' };
        Ok((one("delimiter", &self.delimiter, default)?, one("quote", &self.quote, b'"')?))
    }
}

fn check_columns(columns: &[String]) -> Result<(), String> {
    match columns.iter().enumerate().find(|(i, name)| columns[..*i].contains(name)) {
        Some((_, name)) => Err(format!("column {name:?} stands twice")),
        None => Ok(()),
    }
}

/// Rows of a CSV file. Every value is text.
pub(super) struct CsvRows {
    reader: csv::Reader<Kept>,
    record: csv::ByteRecord,
    columns: Vec<String>,
    number: u64,
}

impl CsvRows {
    /// Reads the header; rows longer than `limit` bytes are an error, as one open quote could
    /// otherwise swallow the file.
    pub(super) fn new(
        reader: Box<dyn BufRead + Send>,
        options: &CsvOptions,
        tabs: bool,
        limit: usize,
    ) -> Result<Self, String> {
        let (delimiter, quote) = options.bytes(tabs)?;
        let reader = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .quote(quote)
            .has_headers(false)
            .flexible(true)
            .buffer_capacity(CSV_BUFFER)
            .from_reader(Kept { reader, text: Vec::new(), start: 0, limit, exceeded: false });
        let mut rows = Self { reader, record: csv::ByteRecord::new(), columns: Vec::new(), number: 0 };
        rows.columns = match &options.columns {
            Some(columns) => columns.clone(),
            None => {
                rows.read().map_err(|e| match e.kind {
                    RowErrorKind::Io(e) => format!("header: {e}"),
                    RowErrorKind::TooLarge => format!("header: more than {limit} bytes"),
                })?;
                let names = rows.record.iter().map(|name| std::str::from_utf8(name).map(|name| name.trim().to_owned()));
                names.collect::<Result<Vec<_>, _>>().map_err(|e| format!("header: {e}"))?
            }
        };
        check_columns(&rows.columns).map_err(|reason| format!("header: {reason}"))?;
        Ok(rows)
    }

    /// Reads a record; gives its line and its bytes, or none at the end.
    fn read(&mut self) -> Result<Option<(u64, Vec<u8>)>, RowError> {
        let (begin, line) = (self.reader.position().byte(), self.reader.position().line());
        match self.reader.read_byte_record(&mut self.record) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(e) => {
                let kind = match self.reader.get_ref().exceeded {
                    true => RowErrorKind::TooLarge,
                    false => RowErrorKind::Io(e.into()),
                };
                return Err(RowError { row: self.number + 1, line, kind });
            }
        }
        let end = self.reader.position().byte();
        let (line_ends, raw) = self.reader.get_mut().take(begin, end);
        Ok(Some((line + line_ends, raw)))
    }

    fn content(&self) -> Content {
        if self.record.len() != self.columns.len() {
            let (has, wants) = (self.record.len(), self.columns.len());
            return Content::Unreadable(format!("has {has} values, the header has {wants} columns"));
        }
        let mut fields = Map::new();
        for (name, value) in self.columns.iter().zip(&self.record) {
            match std::str::from_utf8(value) {
                Ok(text) => fields.insert(name.clone(), text.into()),
                Err(e) => {
                    let at = e.valid_up_to() + 1;
                    return Content::Unreadable(format!("column {name:?} is not UTF-8 at its byte {at}"));
                }
            };
        }
        Content::Fields(fields)
    }
}

impl RowSource for CsvRows {
    fn next_row(&mut self) -> Result<Option<Row>, RowError> {
        let Some((line, raw)) = self.read()? else { return Ok(None) };
        self.number += 1;
        Ok(Some(Row { number: self.number, line, raw, content: self.content() }))
    }

    fn skip(&mut self, rows: u64) -> Result<(), RowError> {
        for _ in 0..rows {
            if self.read()?.is_none() {
                break;
            }
            self.number += 1;
        }
        Ok(())
    }
}

const CSV_BUFFER: usize = 8 << 10;

/// Keeps what the parser has read since the last record, and refuses to keep more than the limit.
struct Kept {
    reader: Box<dyn BufRead + Send>,
    text: Vec<u8>,
    /// Position of `text` in the stream.
    start: u64,
    limit: usize,
    exceeded: bool,
}

impl Kept {
    /// The bytes of a record that begins and ends there, without line ends around it, and how many
    /// line ends stood before it; forgets them.
    fn take(&mut self, begin: u64, end: u64) -> (u64, Vec<u8>) {
        let at = |position: u64| usize::try_from(position.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let end_at = at(end).min(self.text.len());
        let record = &self.text[at(begin).min(end_at)..end_at];
        let first = record.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(record.len());
        let last = record.iter().rposition(|b| !matches!(b, b'\r' | b'\n')).map_or(first, |last| last + 1);
        let line_ends = record[..first].iter().filter(|b| **b == b'\n').count() as u64;
        let record = record[first..last].to_vec();
        self.text.drain(..end_at);
        self.start += end_at as u64;
        (line_ends, record)
    }
}

impl Read for Kept {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.text.len() > self.limit.saturating_add(CSV_BUFFER) {
            self.exceeded = true;
            return Err(io::Error::other("row too large"));
        }
        let n = self.reader.read(buf)?;
        self.text.extend_from_slice(&buf[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use serde_json::{Value, json};

    use super::*;

    fn open(text: &[u8], options: &str, limit: usize) -> Result<CsvRows, String> {
        CsvRows::new(Box::new(Cursor::new(text.to_vec())), &serde_json::from_str(options).unwrap(), false, limit)
    }

    fn all(rows: &mut CsvRows) -> Vec<Row> {
        std::iter::from_fn(|| rows.next_row().unwrap()).collect()
    }

    fn fields(row: &Row) -> Value {
        match &row.content {
            Content::Fields(fields) => Value::Object(fields.clone()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn quotes_line_ends_and_exact_bytes() {
        let text = "a,b\r\n1,\"x, \"\"y\"\"\nz\"\r\n\r\n2,é\n";
        let rows = all(&mut open(text.as_bytes(), "{}", 1000).unwrap());
        assert_eq!(rows.len(), 2);
        assert_eq!(fields(&rows[0]), json!({"a": "1", "b": "x, \"y\"\nz"}));
        assert_eq!(rows[0].raw, b"1,\"x, \"\"y\"\"\nz\"");
        assert_eq!(fields(&rows[1]), json!({"a": "2", "b": "é"}));
        assert_eq!(rows[1].raw, "2,é".as_bytes());
        assert_eq!((rows[0].line, rows[1].line), (2, 5));
    }

    #[test]
    fn ragged_and_undecodable_rows_do_not_hide_the_others() {
        let rows = all(&mut open(b"a;b\n1\n1;2;3\n1;\xff\n4;5\n", r#"{"delimiter": ";"}"#, 1000).unwrap());
        let reasons: Vec<_> = rows
            .iter()
            .map(|row| match &row.content {
                Content::Unreadable(reason) => reason.as_str(),
                _ => "",
            })
            .collect();
        assert!(reasons[0].contains("has 1 values") && reasons[1].contains("has 3 values"), "{reasons:?}");
        assert!(reasons[2].contains("\"b\" is not UTF-8"), "{reasons:?}");
        assert_eq!(rows[2].raw, b"1;\xff");
        assert_eq!(fields(&rows[3]), json!({"a": "4", "b": "5"}));
    }

    #[test]
    fn many_rows_keep_their_own_bytes_across_buffers_and_skips() {
        let line = |i: usize| format!("{i},{}", "v".repeat(i % 97));
        let text: String = std::iter::once("n,v\n".to_owned()).chain((0..5000).map(|i| line(i) + "\n")).collect();
        let mut rows = open(text.as_bytes(), "{}", 1000).unwrap();
        for (i, row) in all(&mut rows).into_iter().enumerate() {
            assert_eq!((row.number, row.line), (i as u64 + 1, i as u64 + 2));
            assert_eq!(row.raw, line(i).into_bytes());
        }
        let mut rows = open(text.as_bytes(), "{}", 1000).unwrap();
        rows.skip(4000).unwrap();
        let row = rows.next_row().unwrap().unwrap();
        assert_eq!((row.number, row.raw), (4001, line(4000).into_bytes()));
    }

    #[test]
    fn an_open_quote_is_bounded() {
        let text = format!("a,b\n1,2\n3,\"{}", "x,\n".repeat(100_000));
        let mut rows = open(text.as_bytes(), "{}", 1000).unwrap();
        assert!(rows.next_row().unwrap().is_some());
        let error = rows.next_row().unwrap_err();
        assert!(matches!(error.kind, RowErrorKind::TooLarge), "{error:?}");
        assert_eq!(error.row, 2);
    }

    #[test]
    fn columns_may_be_given_and_must_differ() {
        let rows = all(&mut open(b"1\t2\n", r#"{"delimiter": "tab", "columns": ["x", "y"]}"#, 100).unwrap());
        assert_eq!(fields(&rows[0]), json!({"x": "1", "y": "2"}));
        assert!(open(b"a,a\n", "{}", 100).err().unwrap().contains("stands twice"));
        assert!(serde_json::from_str::<CsvOptions>(r#"{"delimiter": "ab"}"#).unwrap().check().is_err());
        assert!(serde_json::from_str::<CsvOptions>(r#"{"separator": ","}"#).is_err());
    }
}
