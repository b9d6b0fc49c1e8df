//! Rows that are lines: NDJSON, and text read by a pattern with named groups.

use std::io::{self, BufRead, ErrorKind};

use regex::Regex;
use serde_json::{Map, Value};

use super::{Content, Row, RowError, RowErrorKind, RowSource};

/// Lines of a text. A line is a row, blank ones included, so that row and line numbers agree.
pub(super) struct Lines {
    reader: Box<dyn BufRead + Send>,
    pattern: Option<Regex>,
    limit: usize,
    number: u64,
}

enum Line {
    Read,
    TooLarge(u64),
    End,
}

impl Lines {
    /// Reads NDJSON, or by a pattern. Lines longer than `limit` bytes are measured, not kept.
    pub(super) fn new(reader: Box<dyn BufRead + Send>, limit: usize, pattern: Option<Regex>) -> Self {
        Self { reader, pattern, limit, number: 0 }
    }

    fn read_line(&mut self, line: &mut Vec<u8>) -> Result<Line, RowError> {
        match read_line(self.reader.as_mut(), line, self.limit) {
            Ok(Line::End) => Ok(Line::End),
            Ok(read) => {
                self.number += 1;
                Ok(read)
            }
            Err(e) => {
                let row = self.number + 1;
                Err(RowError { row, line: row, kind: RowErrorKind::Io(e) })
            }
        }
    }
}

impl RowSource for Lines {
    fn next_row(&mut self) -> Result<Option<Row>, RowError> {
        let mut raw = Vec::new();
        let content = match self.read_line(&mut raw)? {
            Line::End => return Ok(None),
            Line::TooLarge(bytes) => Content::TooLarge(bytes),
            Line::Read if raw.trim_ascii().is_empty() => Content::Blank,
            Line::Read => match &self.pattern {
                None => Content::Json,
                Some(pattern) => by_pattern(&raw, pattern),
            },
        };
        Ok(Some(Row { number: self.number, line: self.number, raw, content }))
    }

    fn skip(&mut self, rows: u64) -> Result<(), RowError> {
        let mut line = Vec::new();
        for _ in 0..rows {
            line.clear();
            if matches!(self.read_line(&mut line)?, Line::End) {
                break;
            }
        }
        Ok(())
    }
}

fn by_pattern(raw: &[u8], pattern: &Regex) -> Content {
    let text = match std::str::from_utf8(raw) {
        Ok(text) => text,
        Err(e) => return Content::Unreadable(format!("not UTF-8 at byte {}", e.valid_up_to() + 1)),
    };
    let Some(found) = pattern.captures(text) else {
        return Content::Unreadable("does not match lines.pattern".to_owned());
    };
    let fields = pattern.capture_names().flatten().map(|name| {
        let value = found.name(name).map_or(Value::Null, |group| Value::from(group.as_str()));
        (name.to_owned(), value)
    });
    Content::Fields(fields.collect::<Map<_, _>>())
}

fn read_line(reader: &mut dyn BufRead, line: &mut Vec<u8>, limit: usize) -> io::Result<Line> {
    let mut size = 0u64;
    loop {
        let chunk = match reader.fill_buf() {
            Ok(chunk) => chunk,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if chunk.is_empty() && size == 0 {
            return Ok(Line::End);
        }
        let newline = memchr::memchr(b'\n', chunk);
        let end = chunk.is_empty() || newline.is_some();
        let text = &chunk[..newline.unwrap_or(chunk.len())];
        size += text.len() as u64;
        if size <= limit as u64 {
            line.extend_from_slice(text);
        }
        // A newline by itself is a line, though its text has no bytes.
        let consumed = text.len() + usize::from(newline.is_some());
        reader.consume(consumed);
        if end {
            if size > limit as u64 {
                line.clear();
                return Ok(Line::TooLarge(size));
            }
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(Line::Read);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor};

    use super::*;

    fn lines(text: &[u8], limit: usize) -> Lines {
        // A buffer smaller than the lines, so that they are put together from pieces.
        Lines::new(Box::new(BufReader::with_capacity(3, Cursor::new(text.to_vec()))), limit, None)
    }

    fn all(mut source: impl RowSource) -> Vec<(u64, String, Content)> {
        std::iter::from_fn(|| source.next_row().unwrap())
            .map(|row| (row.line, String::from_utf8(row.raw).unwrap(), row.content))
            .collect()
    }

    #[test]
    fn lines_end_with_or_without_carriage_return_or_newline() {
        let rows = all(lines(b"{\"a\":1}\r\n\n  \n{\"b\":2}", 100));
        let expected = [
            (1, "{\"a\":1}".to_owned(), Content::Json),
            (2, String::new(), Content::Blank),
            (3, "  ".to_owned(), Content::Blank),
            (4, "{\"b\":2}".to_owned(), Content::Json),
        ];
        assert_eq!(rows, expected);
        assert_eq!(all(lines(b"", 100)), []);
    }

    #[test]
    fn long_lines_are_measured_and_passed_over() {
        let rows = all(lines(b"123456789\n12345\n1234567", 5));
        let expected = [
            (1, String::new(), Content::TooLarge(9)),
            (2, "12345".to_owned(), Content::Json),
            (3, String::new(), Content::TooLarge(7)),
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn skipping_counts_what_reading_counts() {
        let mut source = lines(b"1\n\n3333333\n4\n", 5);
        source.skip(3).unwrap();
        let row = source.next_row().unwrap().unwrap();
        assert_eq!((row.number, row.raw), (4, b"4".to_vec()));
        source = lines(b"1\n", 5);
        source.skip(7).unwrap();
        assert!(source.next_row().unwrap().is_none());
    }

    #[test]
    fn patterns_give_named_groups_and_null_for_those_not_there() {
        let pattern = Regex::new(r"^(?P<ip>\S+) (?:(?P<n>\d+)|-)$").unwrap();
        let Content::Fields(fields) = by_pattern(b"::1 -", &pattern) else { panic!("no fields") };
        assert_eq!(Value::Object(fields), serde_json::json!({"ip": "::1", "n": null}));
        assert!(matches!(by_pattern(b"::1 x", &pattern), Content::Unreadable(_)));
        let Content::Unreadable(reason) = by_pattern(b"a\xff", &pattern) else { panic!("read") };
        assert_eq!(reason, "not UTF-8 at byte 2");
    }
}
