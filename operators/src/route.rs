//! Which rows go where.

use std::{collections::HashMap, sync::Arc};

use arrow::array::Date32Array;
use companyos_schemas::arrow_schema::DAY;

use crate::{
    epoch::{Epoch, Fate, column},
    error::OperatorError,
    residency::Residency,
};

/// One partition of a stream's table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Tenant.
    pub tenant: Arc<str>,
    /// Region, whose storage root the rows go to.
    pub region: Arc<str>,
    /// UTC day of `occurred_at`, in days since 1970.
    pub day: i32,
}

/// Sorts the rows that are still kept by destination, each destination's rows in order.
pub(crate) fn routes(epoch: &mut Epoch, residency: &Residency) -> Result<Vec<(Route, Vec<u32>)>, OperatorError> {
    let days: &Date32Array = column(&epoch.batch, DAY)?;
    let mut routes: Vec<(Route, Vec<u32>)> = Vec::new();
    let mut known: HashMap<(u32, i32), usize> = HashMap::new();
    let mut last = None;
    let mut routed = 0;
    for (row, fate) in epoch.fates.iter().enumerate() {
        let Fate::Kept { place } = *fate else { continue };
        let key = (place, days.value(row));
        let route = match last {
            Some((seen, route)) if seen == key => route,
            _ => *known.entry(key).or_insert_with(|| {
                let place = residency.place(key.0);
                let [tenant, region] =
                    [place.map(|p| &p.tenant), place.map(|p| &p.region)].map(|name| name.cloned().unwrap_or_default());
                routes.push((Route { tenant, region, day: key.1 }, Vec::new()));
                routes.len() - 1
            }),
        };
        last = Some((key, route));
        routes[route].1.push(row as u32);
        routed += 1;
    }
    epoch.stats.routed = routed;
    Ok(routes)
}
