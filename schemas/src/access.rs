//! Access tokens: who may ingest or query what. Only SHA-256 digests of tokens are kept.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a token allows its bearer to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Send events.
    Ingest,
    /// Run SQL.
    Query,
    /// Make and drop views, which are the deployment's.
    Operate,
}

/// One token as configured under `[[access.tokens]]`.
///
/// Tokens are 256 random bits, so a plain digest is enough: there is nothing to guess.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenGrant {
    /// Name for logs and audit; never the token itself.
    pub id: String,
    /// Lower-case hex SHA-256 of the token.
    pub sha256: String,
    /// What it allows.
    pub permissions: BTreeSet<Permission>,
    /// What it reaches.
    #[serde(flatten)]
    pub scope: Scope,
    /// When it stops working; none means never.
    #[serde(default)]
    pub expires_at: Option<DateTime<Utc>>,
}

/// The rows a bearer reaches: one tenant, some of its environments and regions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// The one tenant.
    pub tenant: String,
    /// Environments; none means all of the tenant's.
    #[serde(default)]
    pub envs: Option<BTreeSet<String>>,
    /// Regions; none means all of the tenant's.
    #[serde(default)]
    pub regions: Option<BTreeSet<String>>,
}

impl Scope {
    /// Whether a row of this tenant, environment and region is inside.
    pub fn covers(&self, tenant: &str, env: &str, region: &str) -> bool {
        self.tenant == tenant
            && self.envs.as_ref().is_none_or(|set| set.contains(env))
            && self.regions.as_ref().is_none_or(|set| set.contains(region))
    }
}

/// Why a token is refused. Carries nothing a stranger could learn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Not known, or expired.
    #[error("the token is not valid")]
    InvalidToken,
    /// Known, but not for this.
    #[error("the token does not allow this")]
    NotPermitted,
}

/// All tokens, looked up by digest.
#[derive(Debug, Clone, Default)]
pub struct TokenRegistry {
    by_digest: HashMap<[u8; 32], TokenGrant>,
}

/// A token entry that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("token {id:?}: sha256 must be 64 hex digits")]
pub struct BadDigest {
    /// Name of the entry.
    pub id: String,
}

impl TokenRegistry {
    /// Indexes the configured tokens.
    pub fn new(grants: impl IntoIterator<Item = TokenGrant>) -> Result<Self, BadDigest> {
        let mut by_digest = HashMap::new();
        for grant in grants {
            let mut digest = [0u8; 32];
            hex::decode_to_slice(&grant.sha256, &mut digest).map_err(|_| BadDigest { id: grant.id.clone() })?;
            by_digest.insert(digest, grant);
        }
        Ok(Self { by_digest })
    }

    /// The grant of a bearer token, if it is known, current and allows `permission`.
    pub fn authorize(
        &self,
        token: &str,
        permission: Permission,
        now: DateTime<Utc>,
    ) -> Result<&TokenGrant, AccessError> {
        // The lookup is by digest, so its timing says nothing about any token's bytes.
        let grant = self.by_digest.get(&digest(token)).ok_or(AccessError::InvalidToken)?;
        if grant.expires_at.is_some_and(|at| at <= now) {
            return Err(AccessError::InvalidToken);
        }
        if !grant.permissions.contains(&permission) {
            return Err(AccessError::NotPermitted);
        }
        Ok(grant)
    }
}

/// Lower-case hex SHA-256 of a token, as stored in [`TokenGrant::sha256`].
pub fn token_digest(token: &str) -> String {
    hex::encode(digest(token))
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorizes_by_digest_permission_and_expiry() {
        let now = Utc::now();
        let grant: TokenGrant = toml::from_str(&format!(
            "id = 'a'\nsha256 = '{}'\npermissions = ['ingest']\ntenant = 'alpha'\nenvs = ['prod']\n",
            token_digest("secret")
        ))
        .unwrap();
        let mut expired = grant.clone();
        expired.sha256 = token_digest("old");
        expired.expires_at = Some(now);
        let registry = TokenRegistry::new([grant, expired]).unwrap();
        let found = registry.authorize("secret", Permission::Ingest, now).unwrap();
        assert!(found.scope.covers("alpha", "prod", "anywhere"));
        assert!(!found.scope.covers("alpha", "dev", "anywhere"));
        assert!(!found.scope.covers("beta", "prod", "anywhere"));
        assert_eq!(registry.authorize("secret", Permission::Query, now).unwrap_err(), AccessError::NotPermitted);
        assert_eq!(registry.authorize("old", Permission::Ingest, now).unwrap_err(), AccessError::InvalidToken);
        assert_eq!(registry.authorize("guess", Permission::Ingest, now).unwrap_err(), AccessError::InvalidToken);
    }
}
