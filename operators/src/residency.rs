//! Residency: a row goes where its tenant's data may be, or nowhere.

use std::sync::Arc;

use companyos_schemas::{
    quarantine::Reason,
    tenancy::{ScopeViolation, Tenancy},
};
use hashbrown::{Equivalent, HashMap};

use crate::{
    epoch::{Epoch, Fate, Operator},
    error::OperatorError,
    refusal::Reject,
};

/// A tenant in a region: what rows are routed by, beside their day.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub tenant: Arc<str>,
    pub region: Arc<str>,
}

/// Checks every row's scope against the tenancy.
pub(crate) struct Residency {
    tenancy: Arc<Tenancy>,
    places: Vec<Place>,
    /// Scopes found good. Their number is bounded by the tenancy, not by what events say.
    allowed: HashMap<Scope, u32>,
}

/// A tenant, environment and region found good together.
#[derive(PartialEq, Eq, Hash)]
struct Scope(String, String, String);

/// A [`Scope`] that is only looked up; hashed as one is.
#[derive(Hash, PartialEq, Eq, Clone, Copy)]
struct ScopeRef<'a>(&'a str, &'a str, &'a str);

impl Equivalent<Scope> for ScopeRef<'_> {
    fn equivalent(&self, scope: &Scope) -> bool {
        *self == ScopeRef(&scope.0, &scope.1, &scope.2)
    }
}

impl Residency {
    pub fn new(tenancy: Arc<Tenancy>) -> Self {
        Self { tenancy, places: Vec::new(), allowed: HashMap::new() }
    }

    /// The place a [`Fate::Kept`] names.
    pub fn place(&self, place: u32) -> Option<&Place> {
        self.places.get(place as usize)
    }

    fn check(&mut self, scope: ScopeRef<'_>) -> Result<u32, ScopeViolation> {
        if let Some(place) = self.allowed.get(&scope) {
            return Ok(*place);
        }
        let ScopeRef(tenant, env, region) = scope;
        self.tenancy.check(tenant, env, region)?;
        let known = self.places.iter().position(|p| *p.tenant == *tenant && *p.region == *region);
        let place = known.unwrap_or_else(|| {
            self.places.push(Place { tenant: tenant.into(), region: region.into() });
            self.places.len() - 1
        }) as u32;
        self.allowed.insert(Scope(tenant.to_owned(), env.to_owned(), region.to_owned()), place);
        Ok(place)
    }
}

impl Operator for Residency {
    fn apply(&mut self, epoch: &mut Epoch) -> Result<(), OperatorError> {
        let mut refused = Vec::new();
        let (tenants, envs, regions) = (epoch.text("tenant")?, epoch.text("env")?, epoch.text("region")?);
        let mut fates = Vec::with_capacity(epoch.batch.num_rows());
        // Neighbouring rows mostly share few scopes; the last ones are compared before any lookup.
        let mut recent: [Option<(ScopeRef<'_>, u32)>; 4] = [None; 4];
        let mut oldest = 0;
        for row in 0..epoch.batch.num_rows() {
            let scope = ScopeRef(tenants.value(row), envs.value(row), regions.value(row));
            if let Some((_, place)) = recent.iter().flatten().find(|(seen, _)| *seen == scope) {
                fates.push(Fate::Kept { place: *place });
                continue;
            }
            match self.check(scope) {
                Ok(place) => {
                    fates.push(Fate::Kept { place });
                    recent[oldest] = Some((scope, place));
                    oldest = (oldest + 1) % recent.len();
                }
                Err(violation) => {
                    fates.push(Fate::Refused);
                    refused.push((row, violation));
                }
            }
        }
        epoch.fates = fates;
        for (row, violation) in refused {
            epoch.refuse(row, reject(violation))?;
        }
        Ok(())
    }
}

fn reject(violation: ScopeViolation) -> Reject {
    let (reason, field) = match violation {
        ScopeViolation::UnknownTenant => (Reason::UnknownTenant, "tenant"),
        ScopeViolation::EnvNotAllowed => (Reason::EnvNotAllowed, "env"),
        ScopeViolation::RegionNotAllowed => (Reason::RegionNotAllowed, "region"),
    };
    Reject::of_field(reason, field, violation.to_string())
}
