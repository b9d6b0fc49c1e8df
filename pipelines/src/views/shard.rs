//! Which tenants a shard has.

use sha2::{Digest, Sha256};

/// One of `of` shards of a deployment's tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shard {
    /// Its number, from 0.
    pub index: u32,
    /// How many there are.
    pub of: u32,
}

impl Shard {
    /// The shard of a tenant among `of`: the first eight bytes of the SHA-256 of the tenant's name,
    /// big-endian, modulo the number of shards.
    pub fn of_tenant(tenant: &str, of: u32) -> Self {
        let digest = Sha256::digest(tenant.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        let of = of.max(1);
        Self { index: (u64::from_be_bytes(first) % u64::from(of)) as u32, of }
    }

    /// Whether a tenant belongs to it.
    pub fn has(&self, tenant: &str) -> bool {
        Self::of_tenant(tenant, self.of).index == self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tenant_has_one_shard_and_the_rule_is_fixed() {
        let shards: Vec<Shard> = (0..4).map(|index| Shard { index, of: 4 }).collect();
        let owner = |tenant: &str| {
            let owners: Vec<u32> = shards.iter().filter(|s| s.has(tenant)).map(|s| s.index).collect();
            assert_eq!(owners.len(), 1);
            owners[0]
        };
        // State is kept by shard: a change of this rule would lose it.
        assert_eq!(["alpha", "beta", "gamma", "delta"].map(owner), [2, 1, 0, 1]);
    }
}
