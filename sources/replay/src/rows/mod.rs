//! Rows of a file, one at a time, whatever its format and compression.

mod csv;
mod input;
mod lines;
mod parquet;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

use serde::Deserialize;
use serde_json::{Map, Value};

pub(crate) use self::csv::CsvOptions;
use self::{csv::CsvRows, input::Input, lines::Lines, parquet::ParquetRows};
use crate::map::ReplayMap;

/// Format of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object a line.
    Ndjson,
    /// Comma (or otherwise) separated values with a header.
    Csv,
    /// Apache Parquet.
    Parquet,
    /// Text lines, read by the map's pattern.
    Lines,
}

/// One row as it stands in the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// Number of the row, from 1, the CSV header not counted.
    pub number: u64,
    /// Line it starts on, from 1; the row's number where a format has no lines.
    pub line: u64,
    /// Its bytes without the line end; JSON text for formats that are not text.
    pub raw: Vec<u8>,
    /// What is known of its fields.
    pub content: Content,
}

/// A row's fields.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// `raw` should be a JSON object.
    Json,
    /// These.
    Fields(Map<String, Value>),
    /// Unknown, because of this.
    Unreadable(String),
    /// Nothing but white space: no row at all.
    Blank,
    /// More than the limit; holds the size in bytes, `raw` is empty.
    TooLarge(u64),
}

/// Reads rows in order. After an error there are no more.
pub(crate) trait RowSource: Send {
    /// The next row, or none at the end.
    fn next_row(&mut self) -> Result<Option<Row>, RowError>;

    /// Passes over the first `rows` rows; call before the first `next_row`.
    fn skip(&mut self, rows: u64) -> Result<(), RowError>;
}

/// Why a file cannot be read any further.
#[derive(Debug)]
pub(crate) struct RowError {
    /// Number of the row that could not be read.
    pub row: u64,
    /// Line it starts on.
    pub line: u64,
    /// What happened.
    pub kind: RowErrorKind,
}

#[derive(Debug)]
pub(crate) enum RowErrorKind {
    /// The file is damaged or the disk failed.
    Io(io::Error),
    /// The row has no end within the limit, so that what follows cannot be found.
    TooLarge,
}

/// Why a file cannot be opened for replay.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Neither name nor map tell the format.
    #[error("{}: cannot tell the format by the name; say format: ndjson, csv, parquet or lines in the map", .0.display())]
    UnknownFormat(PathBuf),
    /// A name that promises a compression the content does not have.
    #[error("{}: the name says {expected} but the content is not", path.display())]
    NotCompressed {
        /// The file.
        path: PathBuf,
        /// gzip or zstd.
        expected: &'static str,
    },
    /// Parquet is read from its end, so it cannot be compressed as a whole.
    #[error("{}: a Parquet file cannot be read through gzip or zstd; decompress it first", .0.display())]
    CompressedParquet(PathBuf),
    /// Lines without a pattern.
    #[error("{}: format lines needs lines.pattern in the map, a regular expression with named groups", .0.display())]
    NoPattern(PathBuf),
    /// The file's own header or footer is wrong.
    #[error("{}: {reason}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// A file opened for replay.
pub(crate) struct OpenFile {
    /// Its rows.
    pub rows: Box<dyn RowSource>,
    /// How far reading has come, out of `total`: bytes of the file, or rows for Parquet.
    pub position: Arc<AtomicU64>,
    /// Where `position` ends.
    pub total: u64,
    /// Whether `position` counts bytes.
    pub in_bytes: bool,
    /// Name without folders and compression suffix.
    pub name: String,
}

/// Opens a file as the map or its name says.
pub(crate) fn open(path: &Path, map: &ReplayMap, max_row_bytes: usize) -> Result<OpenFile, OpenError> {
    let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = input::strip_compression(&file_name).to_owned();
    let (by_name, tabs) = match name.rsplit_once('.').map(|(_, e)| e.to_ascii_lowercase()).as_deref() {
        Some("ndjson" | "jsonl" | "json") => (Some(Format::Ndjson), false),
        Some("csv") => (Some(Format::Csv), false),
        Some("tsv" | "tab") => (Some(Format::Csv), true),
        Some("parquet" | "pq") => (Some(Format::Parquet), false),
        Some("log" | "txt") => (Some(Format::Lines), false),
        _ => (None, false),
    };
    let position = Arc::new(AtomicU64::new(0));
    let input = Input::open(path, Arc::clone(&position))?;
    let by_content = input.is_parquet().then_some(Format::Parquet);
    let format = map.format.or(by_content).or(by_name).ok_or_else(|| OpenError::UnknownFormat(path.to_owned()))?;
    let mut total = input.size();
    let rows: Box<dyn RowSource> = match format {
        Format::Ndjson => Box::new(Lines::new(input.into_reader()?, max_row_bytes, None)),
        Format::Lines => {
            let pattern = map.lines.clone().ok_or_else(|| OpenError::NoPattern(path.to_owned()))?;
            Box::new(Lines::new(input.into_reader()?, max_row_bytes, Some(pattern)))
        }
        Format::Csv => {
            let rows = CsvRows::new(input.into_reader()?, &map.csv, tabs, max_row_bytes);
            Box::new(rows.map_err(|reason| OpenError::Header { path: path.to_owned(), reason })?)
        }
        Format::Parquet => {
            if input.is_compressed() {
                return Err(OpenError::CompressedParquet(path.to_owned()));
            }
            let rows = ParquetRows::new(input.into_file(), Arc::clone(&position));
            let rows = rows.map_err(|reason| OpenError::Header { path: path.to_owned(), reason })?;
            total = rows.total();
            Box::new(rows)
        }
    };
    Ok(OpenFile { rows, position, total, in_bytes: format != Format::Parquet, name })
}
