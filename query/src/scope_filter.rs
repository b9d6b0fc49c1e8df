//! The rows a token reaches in one table, as a predicate and as the storage roots to read.
//!
//! Stream tables: the tenant's rows in the allowed environments, read from the roots of the
//! allowed regions. Quarantine: rows whose tenant is the token's; a row of unknown tenant belongs
//! to nobody here. Rows without environment or region are seen only by tokens not limited to some.

use std::collections::BTreeSet;

use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    error::ArrowError,
};
use companyos_schemas::{access::Scope, tenancy::Tenancy};
use datafusion::{
    common::Column,
    prelude::{Expr, lit},
};

use crate::error::QueryError;

/// What a query may read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ScopeFilter {
    tenant: String,
    envs: Option<BTreeSet<String>>,
    regions: BTreeSet<String>,
    regions_limited: bool,
    quarantine_roots: BTreeSet<String>,
}

/// Columns the predicate reads.
pub(crate) const SCOPE_COLUMNS: [&str; 3] = ["tenant", "env", "region"];

impl ScopeFilter {
    /// Resolves a scope against the configured tenants.
    pub fn new(scope: &Scope, tenancy: &Tenancy) -> Result<Self, QueryError> {
        let tenant = tenancy.tenants.get(&scope.tenant).ok_or(QueryError::UnknownTenant)?;
        let allowed = |region: &String| scope.regions.as_ref().is_none_or(|set| set.contains(region));
        let regions: BTreeSet<String> = tenant.regions.iter().filter(|r| allowed(r)).cloned().collect();
        let mut quarantine_roots = regions.clone();
        // Events refused before their region was known, or for it, lie in the home region.
        if allowed(&tenancy.home_region) {
            quarantine_roots.insert(tenancy.home_region.clone());
        }
        Ok(Self {
            tenant: scope.tenant.clone(),
            envs: scope.envs.clone(),
            regions,
            regions_limited: scope.regions.is_some(),
            quarantine_roots,
        })
    }

    /// Whose rows.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Regions whose roots hold rows of a table for this scope.
    pub fn roots(&self, quarantine: bool) -> &BTreeSet<String> {
        match quarantine {
            true => &self.quarantine_roots,
            false => &self.regions,
        }
    }

    /// The predicate every row of a table must meet, as conjuncts.
    pub fn conjuncts(&self, quarantine: bool) -> Vec<Expr> {
        let mut all = vec![column("tenant").eq(lit(self.tenant.as_str()))];
        if let Some(envs) = &self.envs {
            all.push(one_of("env", envs));
        }
        match quarantine {
            // Regions of refused events are claims; only a token limited to some is held to them.
            true if !self.regions_limited => {}
            true => all.push(one_of("region", &self.quarantine_roots)),
            false => all.push(one_of("region", &self.regions)),
        }
        all
    }

    /// Rows of a dimension that the scope sees: by those of the scope's columns that it has.
    pub fn rows_of(&self, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let mut seen = rows.clone();
        for name in SCOPE_COLUMNS {
            let Some(values) = seen.column_by_name(name) else { continue };
            let values = values
                .as_string_opt::<i32>()
                .ok_or_else(|| ArrowError::SchemaError(format!("the scope's column {name} is not text")))?;
            let own = |value: &str| match name {
                "tenant" => value == self.tenant,
                "env" => self.envs.as_ref().is_none_or(|envs| envs.contains(value)),
                _ => self.regions.contains(value),
            };
            let keep: BooleanArray = values.iter().map(|value| Some(value.is_some_and(own))).collect();
            seen = filter_record_batch(&seen, &keep)?;
        }
        Ok(seen)
    }
}

fn column(name: &str) -> Expr {
    Expr::Column(Column::from_name(name))
}

/// `name IN set`; of an empty set nothing is a member.
fn one_of(name: &str, set: &BTreeSet<String>) -> Expr {
    match set.is_empty() {
        true => lit(false),
        false => column(name).in_list(set.iter().map(|v| lit(v.as_str())).collect(), false),
    }
}
