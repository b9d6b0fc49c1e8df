//! Limits of the query service, as configured under `[query]`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// `[query]` of the configuration file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueryConfig {
    /// Where `POST /v1/sql` listens.
    pub listen: SocketAddr,
    /// Seconds from the request to the last row; then the query is cancelled.
    pub statement_timeout_seconds: f64,
    /// Memory of all queries together, in bytes; operators that can spill do so beyond their share.
    pub memory_limit_bytes: usize,
    /// Folder for spilled data; none means a folder of its own below the system's temporary one.
    pub spill_dir: Option<PathBuf>,
    /// Most bytes spilled by all queries together.
    pub max_spill_bytes: u64,
    /// Most rows in a result; a longer one is cut and marked.
    pub max_rows: u64,
    /// Most bytes in a result, counted as Arrow columns; a longer one is cut and marked.
    pub max_bytes: u64,
    /// Queries one tenant may run at the same time; more are answered 429.
    pub per_tenant_concurrency: usize,
    /// Longest SQL text, in bytes.
    pub max_statement_bytes: usize,
    /// Threads one query may keep busy; 0 means one per core.
    pub target_partitions: usize,
    /// Bytes of Parquet footers kept in memory, so that a file's is read once.
    pub metadata_cache_bytes: usize,
    /// Bytes of views kept in memory for scopes that ask for them again; 0 keeps none.
    pub held_views_bytes: usize,
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8082)),
            statement_timeout_seconds: 60.0,
            memory_limit_bytes: 1 << 30,
            spill_dir: None,
            max_spill_bytes: 20 << 30,
            max_rows: 1_000_000,
            max_bytes: 256 << 20,
            per_tenant_concurrency: 8,
            max_statement_bytes: 64 << 10,
            target_partitions: 0,
            metadata_cache_bytes: 64 << 20,
            held_views_bytes: 512 << 20,
        }
    }
}

/// A setting no query could run with.
#[derive(Debug, thiserror::Error)]
#[error("query.{field}: {reason}")]
pub struct ConfigError {
    /// Key below `[query]`.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl QueryConfig {
    /// Checks what the types cannot say.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let fail = |field, reason| Err(ConfigError { field, reason });
        if !(self.statement_timeout_seconds > 0.0 && self.statement_timeout_seconds <= 86_400.0) {
            return fail("statement_timeout_seconds", "must be above 0 and at most 86400");
        }
        for (field, value) in [
            ("memory_limit_bytes", self.memory_limit_bytes as u64),
            ("max_rows", self.max_rows),
            ("max_bytes", self.max_bytes),
            ("per_tenant_concurrency", self.per_tenant_concurrency as u64),
            ("max_statement_bytes", self.max_statement_bytes as u64),
        ] {
            if value == 0 {
                return fail(field, "must be above 0");
            }
        }
        Ok(())
    }

    /// The statement timeout.
    pub fn statement_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.statement_timeout_seconds.clamp(0.001, 86_400.0))
    }

    pub(crate) fn partitions(&self) -> usize {
        match self.target_partitions {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_impossible_limits_are_refused_by_name() {
        let unknown = toml::from_str::<QueryConfig>("max_row = 5").unwrap_err();
        assert!(unknown.to_string().contains("max_row"));
        let zero: QueryConfig = toml::from_str("max_rows = 0").unwrap();
        assert_eq!(zero.validate().unwrap_err().field, "max_rows");
        QueryConfig::default().validate().unwrap();
    }
}
