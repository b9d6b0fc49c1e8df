//! What a signature is made over, and how it is written.
//!
//! The canonical string is, in ASCII and UTF-8:
//!
//! ```text
//! companyos-signal-v1\n
//! tenant:<bytes>:<tenant>\n
//! source:<bytes>:<source>\n
//! event_id:<bytes>:<event_id>\n
//! occurred_at:<bytes>:<microseconds of Unix time, decimal>\n
//! nonce:<bytes>:<nonce>\n
//! content:<bytes>:<payload|evidence|none> <SHA-256, 64 lower-case hex digits>\n
//! ```
//!
//! `<bytes>` is the length of what follows, so no value can run into the next. The content is the
//! payload as stored; where there is none, the evidence. What must be protected must stand in it.
//! A row that DLP changed is checked by its `payload_hash`, which ingestion verified before.
//!
//! A signature is `ed25519:<key id>:<base64 or hex>` or `hmac-sha256:<key id>:<base64 or hex>`.

use std::fmt;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use ed25519_dalek::{Signature, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::{Secret, SignalRow, TrustError};

/// The text that a source signs for an event.
pub fn canonical_string(row: &SignalRow<'_>) -> String {
    let occurred_at = row.occurred_at.to_string();
    let content = content(row);
    let mut text = String::from("companyos-signal-v1\n");
    for (name, value) in [
        ("tenant", row.tenant),
        ("source", row.source.unwrap_or_default()),
        ("event_id", row.event_id),
        ("occurred_at", &occurred_at),
        ("nonce", row.nonce.unwrap_or_default()),
        ("content", &content),
    ] {
        text.push_str(name);
        text.push(':');
        text.push_str(&value.len().to_string());
        text.push(':');
        text.push_str(value);
        text.push('\n');
    }
    text
}

fn content(row: &SignalRow<'_>) -> String {
    let hash = |text: &str| hex::encode(Sha256::digest(text.as_bytes()));
    match (row.payload, row.evidence) {
        (Some(payload), _) => {
            let changed = row.dlp_rules.is_some_and(|rules| !rules.is_empty());
            let claimed = row.payload_hash.filter(|_| changed);
            let digest = claimed.map_or_else(
                || hash(payload),
                |claimed| claimed.strip_prefix("sha256:").unwrap_or(claimed).to_ascii_lowercase(),
            );
            format!("payload {digest}")
        }
        (None, Some(evidence)) => format!("evidence {}", hash(evidence)),
        (None, None) => format!("none {}", hash("")),
    }
}

/// A signature's parts.
#[derive(Debug)]
pub(super) struct SignatureText<'a> {
    algorithm: &'a str,
    pub key_id: &'a str,
    bytes: Vec<u8>,
}

impl<'a> SignatureText<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (algorithm, rest) = text.split_once(':')?;
        let (key_id, encoded) = rest.rsplit_once(':')?;
        Some(Self { algorithm, key_id, bytes: decode(encoded)? })
    }
}

/// A key that checks signatures.
pub(super) enum Verifier {
    Ed25519(Box<VerifyingKey>),
    Hmac(Box<Hmac<Sha256>>),
}

impl Verifier {
    pub(super) fn ed25519(source: &str, id: &str, key: &str) -> Result<Self, TrustError> {
        let wrong = |problem| TrustError::Key { source_name: source.to_owned(), key_id: id.to_owned(), problem };
        let bytes = decode(key).ok_or_else(|| wrong("is neither hex nor base64"))?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| wrong("is not of 32 bytes"))?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| wrong("is no Ed25519 public key"))?;
        if key.is_weak() {
            return Err(wrong("is a weak Ed25519 public key"));
        }
        Ok(Verifier::Ed25519(Box::new(key)))
    }

    pub(super) fn hmac(source: &str, id: &str, key: &Secret) -> Result<Self, TrustError> {
        let wrong = |problem| TrustError::Key { source_name: source.to_owned(), key_id: id.to_owned(), problem };
        let bytes = decode(key.expose()).ok_or_else(|| wrong("is neither hex nor base64"))?;
        if bytes.len() < 16 {
            return Err(wrong("is shorter than 16 bytes"));
        }
        let mac = Hmac::<Sha256>::new_from_slice(&bytes).map_err(|_| wrong("is no HMAC key"))?;
        Ok(Verifier::Hmac(Box::new(mac)))
    }

    pub(super) fn verify(&self, signature: &SignatureText<'_>, row: &SignalRow<'_>) -> bool {
        let text = canonical_string(row);
        match self {
            Verifier::Ed25519(key) if signature.algorithm == "ed25519" => Signature::from_slice(&signature.bytes)
                .is_ok_and(|signature| key.verify_strict(text.as_bytes(), &signature).is_ok()),
            Verifier::Hmac(mac) if signature.algorithm == "hmac-sha256" => {
                let mut mac = mac.as_ref().clone();
                mac.update(text.as_bytes());
                mac.verify_slice(&signature.bytes).is_ok()
            }
            _ => false,
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verifier::Ed25519(_) => "Ed25519(…)",
            Verifier::Hmac(_) => "Hmac(…)",
        })
    }
}

/// Hex, or base64 of either alphabet, padded or not.
fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    hex::decode(text)
        .ok()
        .or_else(|| [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD].iter().find_map(|e| e.decode(text).ok()))
}
