//! Tokens: keyed stand-ins for values, the same for the same value of the same tenant, so that joins
//! still work on them.
//!
//! `tok_<kind>_<key version>_<32 hex digits>`, the digits being the first half of
//! HMAC-SHA256(tenant key, kind ‖ 0 ‖ normalized value) and the tenant key
//! HMAC-SHA256(master key, "companyos/dlp/tenant/v1" ‖ 0 ‖ tenant). Two tenants' tokens have nothing in
//! common, and a token tells nothing to whoever lacks the key.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Shortest key material accepted, in bytes.
const SHORTEST_KEY: usize = 32;
const PURPOSE: &[u8] = b"companyos/dlp/tenant/v1\0";

/// The keys of `[dlp.keys]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRingConfig {
    /// Version that new tokens are made with.
    pub active: u32,
    /// All keys, older ones included while tokens made with them are still joined on.
    pub ring: Vec<KeyConfig>,
}

/// One key: exactly one of `secret`, `env` and `file` says where its material is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Version, which stands in the tokens.
    pub version: u32,
    /// The material itself, at least 32 bytes.
    #[serde(default, skip_serializing)]
    pub secret: Option<KeyMaterial>,
    /// Environment variable that holds it.
    #[serde(default)]
    pub env: Option<String>,
    /// File that holds it; white space around it does not count.
    #[serde(default)]
    pub file: Option<PathBuf>,
}

/// Key material in a configuration; never shown and never written back.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct KeyMaterial(String);

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyMaterial(***)")
    }
}

impl From<String> for KeyMaterial {
    fn from(material: String) -> Self {
        Self(material)
    }
}

/// A key ring that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Nothing or more than one thing says where a key is.
    #[error("dlp.keys.ring: key {0} must have exactly one of secret, env and file")]
    Source(u32),
    /// The variable or the file cannot be read.
    #[error("dlp.keys.ring: key {version} cannot be read from {origin}: {problem}")]
    Unreadable {
        /// The key's version.
        version: u32,
        /// The variable or file.
        origin: String,
        /// What went wrong.
        problem: String,
    },
    /// The material is too short.
    #[error("dlp.keys.ring: key {version} has {length} bytes; at least {SHORTEST_KEY} are needed")]
    Short {
        /// The key's version.
        version: u32,
        /// Its length.
        length: usize,
    },
    /// Two keys with one version.
    #[error("dlp.keys.ring: version {0} stands twice")]
    Duplicate(u32),
    /// The active version is not in the ring.
    #[error("dlp.keys.active: there is no key of version {0}")]
    NoActive(u32),
}

/// Makes tokens.
#[derive(Clone)]
pub struct KeyRing {
    active: u32,
    keys: BTreeMap<u32, Hmac<Sha256>>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions: Vec<_> = self.keys.keys().collect();
        f.debug_struct("KeyRing").field("active", &self.active).field("versions", &versions).finish_non_exhaustive()
    }
}

impl KeyRing {
    /// Reads the keys.
    pub fn load(config: &KeyRingConfig) -> Result<Self, KeyError> {
        let mut keys = BTreeMap::new();
        for key in &config.ring {
            let material = material(key)?;
            let (version, length) = (key.version, material.len());
            if length < SHORTEST_KEY {
                return Err(KeyError::Short { version, length });
            }
            let mac = Hmac::new_from_slice(material.as_bytes()).map_err(|_| KeyError::Short { version, length })?;
            if keys.insert(version, mac).is_some() {
                return Err(KeyError::Duplicate(version));
            }
        }
        if !keys.contains_key(&config.active) {
            return Err(KeyError::NoActive(config.active));
        }
        Ok(Self { active: config.active, keys })
    }

    /// The token of a value under the active key.
    pub fn token(&self, tenant: &str, label: &str, normalized: &str) -> Option<String> {
        self.keys.get(&self.active).map(|key| token(key, self.active, tenant, label, normalized))
    }

    /// The value's tokens under every key, by version: what to look for when tokens of before a
    /// rotation must be found too.
    pub fn tokens(&self, tenant: &str, label: &str, normalized: &str) -> Vec<(u32, String)> {
        self.keys.iter().map(|(version, key)| (*version, token(key, *version, tenant, label, normalized))).collect()
    }

    /// Versions in the ring.
    pub fn versions(&self) -> impl Iterator<Item = u32> {
        self.keys.keys().copied()
    }
}

fn token(master: &Hmac<Sha256>, version: u32, tenant: &str, label: &str, normalized: &str) -> String {
    let tenant_key = master.clone().chain_update(PURPOSE).chain_update(tenant).finalize().into_bytes();
    let digest = match <Hmac<Sha256> as KeyInit>::new_from_slice(&tenant_key) {
        Ok(mac) => mac.chain_update(label).chain_update([0]).chain_update(normalized).finalize().into_bytes(),
        // HMAC takes keys of any length.
        Err(_) => tenant_key,
    };
    format!("tok_{label}_{version}_{}", hex::encode(&digest[..16]))
}

fn material(key: &KeyConfig) -> Result<String, KeyError> {
    let version = key.version;
    let unreadable = |origin: String, problem: String| KeyError::Unreadable { version, origin, problem };
    match (&key.secret, &key.env, &key.file) {
        (Some(secret), None, None) => Ok(secret.0.clone()),
        (None, Some(name), None) => std::env::var(name).map_err(|e| unreadable(name.clone(), e.to_string())),
        (None, None, Some(path)) => match std::fs::read_to_string(path) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(e) => Err(unreadable(path.display().to_string(), e.to_string())),
        },
        _ => Err(KeyError::Source(version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(active: u32, versions: &[u32]) -> KeyRingConfig {
        let key = |version: &u32| KeyConfig {
            version: *version,
            secret: Some(format!("{version}-key-material-of-a-test-only-xxxxxxx").into()),
            ..KeyConfig::default()
        };
        KeyRingConfig { active, ring: versions.iter().map(key).collect() }
    }

    #[test]
    fn tokens_are_a_tenants_own_and_survive_rotation() {
        let old = KeyRing::load(&ring(1, &[1])).unwrap();
        let new = KeyRing::load(&ring(2, &[1, 2])).unwrap();
        let before = old.token("alpha", "email", "ann@example.com").unwrap();
        let after = new.token("alpha", "email", "ann@example.com").unwrap();
        assert!(before.starts_with("tok_email_1_") && after.starts_with("tok_email_2_"), "{before} {after}");
        assert_eq!(new.tokens("alpha", "email", "ann@example.com"), [(1, before.clone()), (2, after)]);
        for (tenant, label, value) in [
            ("beta", "email", "ann@example.com"),
            ("alpha", "phone", "ann@example.com"),
            ("alpha", "email", "bob@example.com"),
        ] {
            let other = old.token(tenant, label, value).unwrap();
            assert_ne!(other.rsplit('_').next(), before.rsplit('_').next());
        }
    }

    #[test]
    fn refuses_bad_rings_and_shows_no_key() {
        assert!(matches!(KeyRing::load(&ring(3, &[1, 2])), Err(KeyError::NoActive(3))));
        assert!(matches!(KeyRing::load(&ring(1, &[1, 1])), Err(KeyError::Duplicate(1))));
        let mut config = ring(1, &[1]);
        let shown = format!("{config:?} {:?}", KeyRing::load(&config).unwrap());
        assert!(!shown.contains("material-of"), "{shown}");
        config.ring[0].env = Some("X".into());
        assert!(matches!(KeyRing::load(&config), Err(KeyError::Source(1))));
        config.ring[0].env = None;
        config.ring[0].secret = Some(String::from("short").into());
        assert!(matches!(KeyRing::load(&config), Err(KeyError::Short { version: 1, length: 5 })));
    }
}
