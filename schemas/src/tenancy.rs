//! Who exists and where their data may live: tenants, environments, regions, storage roots.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use url::Url;

/// Tenants and regions, as configured under `[tenancy]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenancy {
    /// Region of this deployment's Kafka: rows that have no region of their own stay here.
    pub home_region: String,
    /// Every region by name.
    pub regions: BTreeMap<String, Region>,
    /// Every tenant by name.
    pub tenants: BTreeMap<String, Tenant>,
}

/// One region's storage.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Root URL of the region's tables: `file:///…`, `s3://…`, `gs://…`, `az://…`, `memory:///`.
    pub storage: Url,
    /// Root URL for days moved to cold storage by maintenance; none keeps everything in `storage`.
    #[serde(default)]
    pub archive: Option<Url>,
    /// Object-store options such as endpoint and credentials, by object_store's own keys.
    #[serde(default, skip_serializing)]
    pub options: BTreeMap<String, String>,
}

// Options hold credentials, so they never reach a log line.
impl std::fmt::Debug for Region {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Region")
            .field("storage", &self.storage.as_str())
            .field("archive", &self.archive.as_ref().map(Url::as_str))
            .field("options", &self.options.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// What one tenant may use.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Environments the tenant has.
    pub environments: BTreeSet<String>,
    /// Regions the tenant's data may be stored in.
    pub regions: BTreeSet<String>,
}

/// Why an event's scope is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScopeViolation {
    /// The tenant is not configured.
    #[error("unknown tenant")]
    UnknownTenant,
    /// The tenant has no such environment.
    #[error("environment not allowed for the tenant")]
    EnvNotAllowed,
    /// The tenant's data may not be stored in that region.
    #[error("region not allowed for the tenant")]
    RegionNotAllowed,
}

/// A tenancy that contradicts itself.
#[derive(Debug, thiserror::Error)]
pub enum TenancyError {
    /// A name that could not be part of a path.
    #[error("{kind} name {name:?}: use 1 to 64 of a-z, 0-9, '-', '_' and '.', starting with a letter or digit")]
    BadName {
        /// region, tenant or environment.
        kind: &'static str,
        /// The name as written.
        name: String,
    },
    /// A region that is named but not defined.
    #[error("{by} names region {region:?}, which is not defined under regions")]
    UndefinedRegion {
        /// Who names it.
        by: String,
        /// The region.
        region: String,
    },
    /// Two regions would write to the same place.
    #[error("regions {a:?} and {b:?} share the storage root {root}")]
    SharedStorage {
        /// First region.
        a: String,
        /// Second region.
        b: String,
        /// The root.
        root: String,
    },
}

impl Tenancy {
    /// Checks names and references; call once after loading.
    pub fn validate(&self) -> Result<(), TenancyError> {
        let defined = |by: &str, region: &str| match self.regions.contains_key(region) {
            true => Ok(()),
            false => Err(TenancyError::UndefinedRegion { by: by.to_owned(), region: region.to_owned() }),
        };
        defined("home_region", &self.home_region)?;
        let mut roots: BTreeMap<String, &str> = BTreeMap::new();
        for (name, region) in &self.regions {
            check_name("region", name)?;
            for url in std::iter::once(&region.storage).chain(&region.archive) {
                let root = url.as_str().trim_end_matches('/').to_owned();
                if let Some(other) = roots.insert(root.clone(), name) {
                    return Err(TenancyError::SharedStorage { a: other.to_owned(), b: name.clone(), root });
                }
            }
        }
        for (name, tenant) in &self.tenants {
            check_name("tenant", name)?;
            for env in &tenant.environments {
                check_name("environment", env)?;
            }
            for region in &tenant.regions {
                defined(&format!("tenant {name:?}"), region)?;
            }
        }
        Ok(())
    }

    /// Whether an event of this scope may be stored, and if not, which part of it is refused.
    pub fn check(&self, tenant: &str, env: &str, region: &str) -> Result<(), ScopeViolation> {
        let tenant = self.tenants.get(tenant).ok_or(ScopeViolation::UnknownTenant)?;
        if !tenant.environments.contains(env) {
            return Err(ScopeViolation::EnvNotAllowed);
        }
        if !tenant.regions.contains(region) {
            return Err(ScopeViolation::RegionNotAllowed);
        }
        Ok(())
    }
}

fn check_name(kind: &'static str, name: &str) -> Result<(), TenancyError> {
    let ok = (1..=64).contains(&name.len())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
        && name.as_bytes()[0].is_ascii_alphanumeric();
    match ok {
        true => Ok(()),
        false => Err(TenancyError::BadName { kind, name: name.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenancy() -> Tenancy {
        toml::from_str(
            r#"
            home_region = "eu-west-1"
            [regions.eu-west-1]
            storage = "file:///data/eu"
            options = { aws_secret_access_key = "hunter2" }
            [regions.us-east-1]
            storage = "file:///data/us"
            [tenants.alpha]
            environments = ["prod"]
            regions = ["eu-west-1"]
            "#,
        )
        .unwrap()
    }

    #[test]
    fn refuses_scopes_by_the_part_that_is_wrong() {
        let t = tenancy();
        t.validate().unwrap();
        assert_eq!(t.check("alpha", "prod", "eu-west-1"), Ok(()));
        assert_eq!(t.check("gamma", "prod", "eu-west-1"), Err(ScopeViolation::UnknownTenant));
        assert_eq!(t.check("alpha", "dev", "eu-west-1"), Err(ScopeViolation::EnvNotAllowed));
        assert_eq!(t.check("alpha", "prod", "us-east-1"), Err(ScopeViolation::RegionNotAllowed));
    }

    #[test]
    fn refuses_contradictions_and_path_tricks() {
        let mut shared = tenancy();
        shared.regions.get_mut("us-east-1").unwrap().storage = "file:///data/eu/".parse().unwrap();
        assert!(matches!(shared.validate(), Err(TenancyError::SharedStorage { .. })));
        let mut undefined = tenancy();
        undefined.home_region = "mars".into();
        assert!(matches!(undefined.validate(), Err(TenancyError::UndefinedRegion { .. })));
        let mut bad = tenancy();
        let alpha = bad.tenants["alpha"].clone();
        bad.tenants.insert("../beta".into(), alpha);
        assert!(matches!(bad.validate(), Err(TenancyError::BadName { .. })));
    }

    #[test]
    fn credentials_do_not_show_in_debug_output() {
        assert!(!format!("{:?}", tenancy()).contains("hunter2"));
    }
}
