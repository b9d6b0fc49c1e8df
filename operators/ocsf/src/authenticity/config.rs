//! The trust policy as it is configured.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// Whom to trust, by the value of the `source` column.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustConfig {
    /// Policies by source. A source that has none is not checked: its events are `Unsigned`.
    #[serde(default)]
    pub sources: BTreeMap<String, SourceTrust>,
}

/// How events of one source are known to be from it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceTrust {
    /// Ed25519 public keys by id, 32 bytes in hex or base64. Several at once allow rotation.
    pub ed25519: BTreeMap<String, String>,
    /// Keys for HMAC-SHA256 by id, at least 16 bytes in hex or base64.
    #[serde(skip_serializing)]
    pub hmac: BTreeMap<String, Secret>,
    /// mTLS identities (such as `spiffe://…` or a subject) whose connections need no signature.
    pub mtls: Vec<String>,
    /// Refuse what is not authentic.
    pub required: bool,
    /// Most that an event's corrected time may differ from the time of its record.
    pub max_skew_seconds: u32,
    /// Clock offsets up to this are left alone.
    pub skew_threshold_seconds: u32,
    /// How long a nonce is remembered. Authentic events older than that are `Skewed`.
    pub replay_window_seconds: u32,
    /// Most nonces remembered per tenant and source.
    pub max_nonces: u32,
}

impl Default for SourceTrust {
    fn default() -> Self {
        Self {
            ed25519: BTreeMap::new(),
            hmac: BTreeMap::new(),
            mtls: Vec::new(),
            required: false,
            max_skew_seconds: 300,
            skew_threshold_seconds: 5,
            replay_window_seconds: 600,
            max_nonces: 100_000,
        }
    }
}

/// A secret that no `Debug` shows and nothing serialises.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A trust policy that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A key that is none.
    #[error("sources.{source_name}: key {key_id:?} {problem}")]
    Key {
        /// Source it belongs to.
        source_name: String,
        /// Its id.
        key_id: String,
        /// What is wrong with it, without its value.
        problem: &'static str,
    },
    /// Two keys of one id.
    #[error("sources.{source_name}: key id {key_id:?} is used twice")]
    DuplicateKey {
        /// Source they belong to.
        source_name: String,
        /// Their id.
        key_id: String,
    },
    /// A source that is required to be authentic and has no way to be.
    #[error("sources.{source_name}: required is set, but there is no key and no mtls identity")]
    NothingToTrust {
        /// The source.
        source_name: String,
    },
}
