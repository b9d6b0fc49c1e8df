//! The bytes of a file: decompressed by what they are, counted for the progress bar.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::bufread::MultiGzDecoder;

use super::OpenError;

const BUFFER: usize = 128 << 10;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const PARQUET: [u8; 4] = *b"PAR1";

/// A file whose first bytes have been looked at.
pub(super) struct Input {
    path: PathBuf,
    file: File,
    size: u64,
    head: Vec<u8>,
    position: Arc<AtomicU64>,
}

/// A file name without `.gz` or `.zst`.
pub(super) fn strip_compression(name: &str) -> &str {
    let lower = name.to_ascii_lowercase();
    let suffix = [".gz", ".gzip", ".zst", ".zstd"].into_iter().find(|suffix| lower.ends_with(suffix));
    suffix.map_or(name, |suffix| &name[..name.len() - suffix.len()])
}

impl Input {
    /// Opens a file; `position` will follow how many of its bytes have been read.
    pub(super) fn open(path: &Path, position: Arc<AtomicU64>) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let mut head = Vec::new();
        file.by_ref().take(4).read_to_end(&mut head).map_err(io)?;
        file.rewind().map_err(io)?;
        Ok(Self { path: path.to_owned(), file, size, head, position })
    }

    /// Size on disk in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether the content is gzip or zstd.
    pub(super) fn is_compressed(&self) -> bool {
        self.head.starts_with(&GZIP) || self.head.starts_with(&ZSTD)
    }

    /// Whether the content is Parquet.
    pub(super) fn is_parquet(&self) -> bool {
        self.head.starts_with(&PARQUET)
    }

    /// The file itself.
    pub(super) fn into_file(self) -> File {
        self.file
    }

    /// The decompressed text, without a UTF-8 byte order mark.
    pub(super) fn into_reader(self) -> Result<Box<dyn BufRead + Send>, OpenError> {
        let name = self.path.to_string_lossy().to_ascii_lowercase();
        let expected =
            match (name.ends_with(".gz") || name.ends_with(".gzip"), name.ends_with(".zst") || name.ends_with(".zstd"))
            {
                (true, _) if !self.head.starts_with(&GZIP) => Some("gzip"),
                (_, true) if !self.head.starts_with(&ZSTD) => Some("zstd"),
                _ => None,
            };
        if let Some(expected) = expected {
            return Err(OpenError::NotCompressed { path: self.path, expected });
        }
        let (gzip, zstd) = (self.head.starts_with(&GZIP), self.head.starts_with(&ZSTD));
        let path = self.path;
        let counted = BufReader::with_capacity(BUFFER, Counted { file: self.file, position: self.position });
        let mut reader: Box<dyn BufRead + Send> = if gzip {
            Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(counted)))
        } else if zstd {
            let decoder =
                zstd::Decoder::with_buffer(counted).map_err(|source| OpenError::Io { path: path.clone(), source })?;
            Box::new(BufReader::with_capacity(BUFFER, decoder))
        } else {
            Box::new(counted)
        };
        // A damaged beginning is reported by the first row instead.
        if reader.fill_buf().is_ok_and(|head| head.starts_with(b"\xef\xbb\xbf")) {
            reader.consume(3);
        }
        Ok(reader)
    }
}

struct Counted {
    file: File,
    position: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buf)?;
        self.position.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
