//! What each tenant may send: events and bytes, a sustained rate with a burst on top (GCRA).
//!
//! The state is reported in the IETF's `RateLimit-Policy` and `RateLimit` fields
//! (draft-ietf-httpapi-ratelimit-headers). Bytes are counted in KiB, after decompression.

use std::{collections::HashMap, num::NonZeroU32, time::Duration};

use axum::http::{HeaderName, HeaderValue};
use companyos_schemas::tenancy::Tenancy;
use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed},
};

use crate::{
    config::{Rates, TenantRate},
    problem::{self, Problem, whole_seconds},
};

type Limiter = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

/// The limiters of all tenants.
pub struct TenantRates {
    tenants: HashMap<String, TenantLimiter>,
    /// For tokens of tenants that are not configured: all of their events will be refused.
    strangers: TenantLimiter,
}

struct TenantLimiter {
    events: Bucket,
    kib: Bucket,
}

struct Bucket {
    name: &'static str,
    /// What one unit is, for the client.
    unit: &'static str,
    rate: NonZeroU32,
    burst: NonZeroU32,
    limiter: Limiter,
}

/// The headers that tell a client where it stands.
#[derive(Debug, Clone, Default)]
pub struct RateReport(pub Vec<(HeaderName, HeaderValue)>);

/// Why a request may not be worked on now, or ever at its size.
#[derive(Debug)]
enum Refusal {
    /// Come back then.
    Wait(Duration),
    /// More than the burst: no waiting helps.
    Never,
}

impl TenantRates {
    /// One limiter for every tenant there is.
    pub fn new(rates: &Rates, tenancy: &Tenancy) -> Self {
        let limiter = |name: &str| TenantLimiter::new(rates.tenants.get(name).unwrap_or(&rates.default));
        let tenants = tenancy.tenants.keys().map(|name| (name.clone(), limiter(name))).collect();
        Self { tenants, strangers: TenantLimiter::new(&rates.default) }
    }

    /// Takes a batch out of the tenant's allowance. A batch that could never pass takes nothing;
    /// one that must wait for its bytes has still used up its events.
    pub fn take(&self, tenant: &str, events: usize, bytes: usize) -> (Result<(), Box<Problem>>, RateReport) {
        let limiter = self.tenants.get(tenant).unwrap_or(&self.strangers);
        let kib = bytes.div_ceil(1024);
        let (events, kib) = match (limiter.events.holds(events), limiter.kib.holds(kib)) {
            (true, true) => (limiter.events.take(events), limiter.kib.take(kib)),
            (true, false) => (Ok(limiter.events.burst.get()), Err(Refusal::Never)),
            (false, _) => (Err(Refusal::Never), Ok(limiter.kib.burst.get())),
        };
        let report = RateReport(vec![
            header("ratelimit-policy", [limiter.events.policy(), limiter.kib.policy()]),
            header("ratelimit", [limiter.events.state(&events), limiter.kib.state(&kib)]),
        ]);
        let verdict = match (events, kib) {
            (Ok(_), Ok(_)) => Ok(()),
            (Err(refusal), _) => Err(limiter.events.problem(&refusal)),
            (_, Err(refusal)) => Err(limiter.kib.problem(&refusal)),
        };
        (verdict, report)
    }
}

impl TenantLimiter {
    fn new(rate: &TenantRate) -> Self {
        Self {
            events: Bucket::new("events", "events", rate.events_per_second, rate.burst_events),
            kib: Bucket::new("kib", "KiB", rate.kib_per_second, rate.burst_kib),
        }
    }
}

impl Bucket {
    fn new(name: &'static str, unit: &'static str, rate: u32, burst: u32) -> Self {
        let rate = NonZeroU32::new(rate).unwrap_or(NonZeroU32::MIN);
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let limiter = RateLimiter::direct(Quota::per_second(rate).allow_burst(burst)).with_middleware();
        Self { name, unit, rate, burst, limiter }
    }

    /// Whether `n` could ever be let through at once.
    fn holds(&self, n: usize) -> bool {
        n <= self.burst.get() as usize
    }

    /// What is left afterwards.
    fn take(&self, n: usize) -> Result<u32, Refusal> {
        let n = u32::try_from(n).map_err(|_| Refusal::Never)?;
        let n = NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        match self.limiter.check_n(n) {
            Ok(Ok(state)) => Ok(state.remaining_burst_capacity()),
            Ok(Err(not_until)) => Err(Refusal::Wait(not_until.wait_time_from(DefaultClock::default().now()))),
            Err(_) => Err(Refusal::Never),
        }
    }

    fn policy(&self) -> String {
        format!("\"{}\";q={};w={}", self.name, self.burst, self.burst.get().div_ceil(self.rate.get()))
    }

    fn state(&self, taken: &Result<u32, Refusal>) -> String {
        let (remaining, seconds) = match taken {
            Ok(left) => (*left, u64::from((self.burst.get().saturating_sub(*left)).div_ceil(self.rate.get()))),
            Err(Refusal::Wait(wait)) => (0, whole_seconds(*wait)),
            Err(Refusal::Never) => return format!("\"{}\";r={}", self.name, self.burst),
        };
        format!("\"{}\";r={remaining};t={seconds}", self.name)
    }

    fn problem(&self, refusal: &Refusal) -> Box<Problem> {
        let Self { burst, rate, unit, .. } = self;
        let problem = match refusal {
            Refusal::Wait(wait) => {
                let detail = format!("The tenant may send {rate} {unit} a second and {burst} at once.");
                Problem::new(problem::RATE_LIMITED, detail).retry_after(*wait)
            }
            Refusal::Never => {
                let detail = format!(
                    "The tenant may send at most {burst} {unit} at once; send smaller requests, waiting will not help."
                );
                Problem::new(problem::TOO_LARGE, detail)
            }
        };
        Box::new(problem.reason(if self.name == "events" { "event_rate" } else { "byte_rate" }))
    }
}

fn header(name: &'static str, items: [String; 2]) -> (HeaderName, HeaderValue) {
    let value = HeaderValue::from_str(&items.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""));
    (HeaderName::from_static(name), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(rate: TenantRate) -> TenantRates {
        let tenancy: Tenancy = toml::from_str(
            "home_region = 'eu'\n[regions.eu]\nstorage = 'memory:///eu'\n[tenants.alpha]\nenvironments = []\nregions = []\n\
             [tenants.beta]\nenvironments = []\nregions = []\n",
        )
        .unwrap();
        TenantRates::new(&Rates { default: rate, tenants: Default::default() }, &tenancy)
    }

    fn status(rates: &TenantRates, tenant: &str, events: usize, bytes: usize) -> u16 {
        rates.take(tenant, events, bytes).0.map_or_else(|p| p.status().as_u16(), |()| 202)
    }

    #[test]
    fn a_tenant_in_debt_waits_and_others_do_not() {
        let rates = rates(TenantRate { events_per_second: 1, burst_events: 10, ..TenantRate::default() });
        assert_eq!(status(&rates, "alpha", 8, 10), 202);
        assert_eq!(status(&rates, "alpha", 8, 10), 429);
        assert_eq!(status(&rates, "alpha", 11, 10), 413);
        assert_eq!(status(&rates, "beta", 8, 10), 202);
    }

    #[test]
    fn bytes_have_a_limit_of_their_own_and_headers_tell_both() {
        let rates = rates(TenantRate { events_per_second: 5, burst_events: 10, kib_per_second: 1, burst_kib: 4 });
        let (verdict, report) = rates.take("alpha", 4, 3 * 1024);
        assert!(verdict.is_ok());
        assert_eq!(report.0[0].1, r#""events";q=10;w=2, "kib";q=4;w=4"#);
        assert_eq!(report.0[1].1, r#""events";r=6;t=1, "kib";r=1;t=3"#);
        assert_eq!(status(&rates, "alpha", 1, 3 * 1024), 429);
        assert_eq!(status(&rates, "alpha", 1, 5 * 1024), 413);
    }
}
