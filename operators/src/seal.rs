//! Sealing: a quarantined event's original bytes, readable only with the key.
//!
//! AES-256-GCM over zstd, with a random 96-bit nonce in front. Random nonces are safe for 2^32
//! events a key, which is why every sealed event names its key: rotate it long before.

use std::fmt;

use aes_gcm::{
    Aes256Gcm, Nonce,
    aead::{Aead, KeyInit},
};

const NONCE_BYTES: usize = 12;
const ZSTD_LEVEL: i32 = 3;

/// Seals and opens with one key.
#[derive(Clone)]
pub struct Sealer {
    key_id: String,
    cipher: Aes256Gcm,
}

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Not sealed by this key, or changed since.
    #[error("not sealed with key {key_id:?}, or altered since")]
    Refused {
        /// The key tried.
        key_id: String,
    },
    /// Too short to be a sealed event.
    #[error("{0} bytes are too few for a sealed event")]
    Truncated(usize),
    /// The compression failed.
    #[error("compressing or decompressing: {0}")]
    Compression(#[from] std::io::Error),
}

impl Sealer {
    /// A sealer for `key`, which rows name as `key_id`.
    pub fn new(key_id: impl Into<String>, key: [u8; 32]) -> Self {
        Self { key_id: key_id.into(), cipher: Aes256Gcm::new(&key.into()) }
    }

    /// Name of the key.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// Seals `original`.
    pub fn seal(&self, original: &[u8]) -> Result<Vec<u8>, SealError> {
        let compressed = zstd::bulk::compress(original, ZSTD_LEVEL)?;
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let sealed = self.cipher.encrypt(&Nonce::from(nonce), compressed.as_slice()).map_err(|_| self.refused())?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Gives back what was sealed with the same key.
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Truncated(sealed.len()))?;
        let compressed = self.cipher.decrypt(&Nonce::from(*nonce), sealed).map_err(|_| self.refused())?;
        Ok(zstd::stream::decode_all(compressed.as_slice())?)
    }

    fn refused(&self) -> SealError {
        SealError::Refused { key_id: self.key_id.clone() }
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_what_it_sealed_and_nobody_touched() {
        let sealer = Sealer::new("k1", [7; 32]);
        let original = br#"{"user_id":"ann@example.com"}"#;
        let sealed = sealer.seal(original).unwrap();
        assert_eq!(sealer.open(&sealed).unwrap(), original);
        assert_ne!(sealer.seal(original).unwrap(), sealed, "the nonce must be new each time");
        let mut altered = sealed.clone();
        *altered.last_mut().unwrap() ^= 1;
        assert!(matches!(sealer.open(&altered), Err(SealError::Refused { .. })));
        assert!(matches!(Sealer::new("k2", [8; 32]).open(&sealed), Err(SealError::Refused { .. })));
        assert!(matches!(sealer.open(b"short"), Err(SealError::Truncated(5))));
        assert!(!format!("{sealer:?}").contains("7, 7"));
    }
}
