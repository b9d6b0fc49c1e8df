//! Brute force that worked: many failed logins of a user, then a successful one.

use std::time::Duration;

use companyos_stream::KeyedState;
use serde::{Deserialize, Serialize};

use super::{Detector, Hit, Memory, later, meta, micros, streak::Attempts};
use crate::{
    event::{Action, Event},
    finding::{RuleMeta, Severity},
};

/// When it is brute force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BruteForceConfig {
    /// Failed logins at least.
    pub failures: usize,
    /// Before the success by less than this.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
}

impl Default for BruteForceConfig {
    fn default() -> Self {
        Self { failures: 8, window: Duration::from_secs(600) }
    }
}

/// The detector.
#[derive(Debug)]
pub struct BruteForce {
    config: BruteForceConfig,
    state: KeyedState<Attempts>,
}

const RULE: &str = "stateful.brute_force";

impl BruteForce {
    /// With nothing seen yet.
    pub fn new(config: BruteForceConfig) -> Self {
        Self { config, state: KeyedState::new("brute_force") }
    }
}

impl Detector for BruteForce {
    fn rules(&self) -> Vec<RuleMeta> {
        vec![meta(
            RULE,
            "Login After Many Failures",
            Severity::High,
            &["credential-access", "t1110", "initial-access", "t1078"],
        )]
    }

    fn on_event(&mut self, event: &Event, hits: &mut Vec<Hit>) {
        let Action::Login { success } = event.action else { return };
        let window = micros(self.config.window);
        let key = event.key(&event.user);
        // A user who never fails needs no memory.
        if success && self.state.get(&key).is_none() && self.config.failures > 0 {
            let mut fresh = Attempts::default();
            let _ = fresh.add(event.at, true, &event.evidence, usize::MAX, window);
            self.state.insert(&key, event.at.saturating_add(window), fresh);
            return;
        }
        let mut found = Vec::new();
        let expires = later(self.state.get(&key).and_then(Attempts::latest).into_iter().chain([event.at]), window * 2);
        self.state.update(&key, expires, |attempts| {
            found = attempts.add(event.at, success, &event.evidence, self.config.failures, window);
        });
        hits.extend(found.into_iter().map(|streak| Hit {
            rule: RULE,
            entity_type: "user",
            entity: event.user.clone(),
            window: streak.window,
            summary: format!("{} failed logins, then a successful one", streak.refusals),
            evidence: streak.evidence,
        }));
    }

    fn memories(&self) -> Vec<&dyn Memory> {
        vec![&self.state]
    }

    fn memories_mut(&mut self) -> Vec<&mut dyn Memory> {
        vec![&mut self.state]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::*;

    fn config() -> BruteForceConfig {
        BruteForceConfig { failures: 3, window: Duration::from_secs(60) }
    }

    fn tries(results: &[(i64, bool)]) -> Vec<Event> {
        results.iter().map(|&(s, success)| event("eve", s * SECOND, Action::Login { success })).collect()
    }

    #[test]
    fn three_failures_and_a_success_within_a_minute() {
        let hits = run(&mut BruteForce::new(config()), &tries(&[(0, false), (10, false), (20, false), (59, true)]));
        assert_eq!(hits.len(), 1);
        assert_eq!(hits[0].window, (0, 59 * SECOND));
        assert_eq!(hits[0].evidence.len(), 4);
    }

    #[test]
    fn not_with_two_nor_when_spread_nor_when_all_fail_nor_across_users() {
        for results in [
            &[(0, false), (10, false), (20, true)][..],
            &[(0, false), (10, false), (20, false), (61, true)],
            &[(0, false), (1, false), (2, false), (3, false)],
            &[(0, false), (1, false), (2, true), (3, false), (4, true)],
        ] {
            assert_eq!(run(&mut BruteForce::new(config()), &tries(results)), [], "{results:?}");
        }
        let mut events = tries(&[(0, false), (1, false), (2, false)]);
        events.push(event("bob", 3 * SECOND, Action::Login { success: true }));
        assert_eq!(run(&mut BruteForce::new(config()), &events), []);
    }

    #[test]
    fn it_survives_a_snapshot_and_expires() {
        let mut first = BruteForce::new(config());
        run(&mut first, &tries(&[(0, false), (10, false), (20, false)]));
        let mut second = reborn(first, BruteForce::new(config()));
        assert_eq!(run(&mut second, &tries(&[(30, true)])).len(), 1);
        second.expire(200 * SECOND);
        assert_eq!(second.size(), (0, 0));
    }
}
