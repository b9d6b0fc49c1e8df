//! Request bodies out of their `Content-Encoding`, never larger than allowed: what is written out
//! is counted as it grows, so a small body that unpacks to gigabytes stops at the limit.

use std::io::{self, Read};

use axum::http::{HeaderMap, header};
use bytes::Bytes;

use crate::{
    admission::Admitted,
    problem::{self, Problem},
};

/// Largest zstd window in use on the web (RFC 9659): 8 MiB. Larger ones cost memory before any
/// output is seen.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const CHUNK: usize = 64 * 1024;

/// How the body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    /// Told from `Content-Encoding`; one coding at most.
    pub fn of(headers: &HeaderMap) -> Result<Self, Box<Problem>> {
        let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
        let name = values.next().map_or(Ok(""), |v| v.to_str()).unwrap_or("?").trim().to_ascii_lowercase();
        match (name.as_str(), values.next()) {
            ("" | "identity", None) => Ok(Self::Identity),
            ("gzip" | "x-gzip", None) => Ok(Self::Gzip),
            ("zstd", None) => Ok(Self::Zstd),
            _ => {
                let detail = "Content-Encoding must be gzip, zstd or absent.";
                Err(Problem::new(problem::UNSUPPORTED_MEDIA_TYPE, detail).into())
            }
        }
    }
}

/// The plain body. Its bytes are counted against `admitted`.
pub fn decompress(
    encoding: Encoding,
    body: Bytes,
    max_bytes: usize,
    admitted: &mut Admitted,
) -> Result<Bytes, Box<Problem>> {
    match encoding {
        Encoding::Identity if body.len() > max_bytes => Err(too_large(max_bytes)),
        Encoding::Identity => Ok(body),
        Encoding::Gzip => read(flate2::bufread::MultiGzDecoder::new(&body[..]), max_bytes, admitted),
        Encoding::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(&body[..]).and_then(|mut decoder| {
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Ok(decoder)
            });
            read(decoder.map_err(corrupt)?, max_bytes, admitted)
        }
    }
}

fn read(mut reader: impl Read, max_bytes: usize, admitted: &mut Admitted) -> Result<Bytes, Box<Problem>> {
    let mut plain = Vec::new();
    let mut chunk = vec![0u8; CHUNK];
    loop {
        let n = reader.read(&mut chunk).map_err(corrupt)?;
        if n == 0 {
            return Ok(plain.into());
        }
        if plain.len() + n > max_bytes {
            return Err(too_large(max_bytes));
        }
        if !admitted.grow(n) {
            return Err(overloaded());
        }
        plain.extend_from_slice(&chunk[..n]);
    }
}

fn corrupt(error: io::Error) -> Box<Problem> {
    tracing::debug!(%error, "body cannot be decompressed");
    Problem::new(problem::INVALID_REQUEST, "The body is not what its Content-Encoding says, or it is cut off.").into()
}

fn too_large(max_bytes: usize) -> Box<Problem> {
    Problem::new(problem::TOO_LARGE, format!("At most {max_bytes} bytes are allowed after decompression.")).into()
}

/// The answer when no more bytes may be held.
pub fn overloaded() -> Box<Problem> {
    Problem::new(problem::OVERLOADED, "Too much is under way; come back shortly.")
        .retry_after(std::time::Duration::from_secs(1))
        .into()
}

#[cfg(test)]
mod tests {
    use std::{io::Write, sync::Arc};

    use flate2::{Compression, write::GzEncoder};

    use super::*;
    use crate::admission::Admission;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(encoding: Encoding, body: &[u8]) -> Result<Bytes, u16> {
        let mut admitted = Arc::new(Admission::new(1, 1 << 20)).enter().unwrap();
        decompress(encoding, Bytes::copy_from_slice(body), 200_000, &mut admitted).map_err(|p| p.status().as_u16())
    }

    #[test]
    fn unpacks_whole_bodies_and_refuses_bombs_and_stumps() {
        let plain: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
        let bomb = vec![0u8; 50_000_000];
        for (encoding, packed, packed_bomb) in [
            (Encoding::Gzip, gzip(&plain), gzip(&bomb)),
            (Encoding::Zstd, zstd::encode_all(&plain[..], 3).unwrap(), zstd::encode_all(&bomb[..], 3).unwrap()),
        ] {
            assert_eq!(unpack(encoding, &packed).unwrap(), plain, "{encoding:?}");
            assert_eq!(unpack(encoding, &packed_bomb), Err(413), "{encoding:?}");
            assert_eq!(unpack(encoding, &packed[..packed.len() - 3]), Err(400), "{encoding:?}");
            assert_eq!(unpack(encoding, b"plain text"), Err(400), "{encoding:?}");
        }
    }

    #[test]
    fn shared_room_is_a_limit_too() {
        let admission = Arc::new(Admission::new(2, 150_000));
        let mut admitted = admission.enter().unwrap();
        let refused = decompress(Encoding::Gzip, gzip(&[0; 190_000]).into(), 200_000, &mut admitted).unwrap_err();
        assert_eq!(refused.status().as_u16(), 503);
    }
}
