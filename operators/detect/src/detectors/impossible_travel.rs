//! Impossible travel: two successful logins of a user farther apart than one can travel in between.

use std::time::Duration;

use companyos_stream::KeyedState;
use serde::{Deserialize, Serialize};

use super::{Detector, Hit, Memory, later, meta, micros};
use crate::{
    EvidenceRef,
    event::{Action, Event},
    finding::{RuleMeta, Severity},
    geo::Place,
};

/// When travel is impossible.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImpossibleTravelConfig {
    /// Speed that no traveller exceeds, in km/h.
    pub max_kmh: f64,
    /// Distances below this are the locator's error, in km.
    pub min_km: f64,
    /// Logins farther apart in time are not compared.
    #[serde(with = "humantime_serde")]
    pub memory: Duration,
}

impl Default for ImpossibleTravelConfig {
    fn default() -> Self {
        Self { max_kmh: 1000.0, min_km: 300.0, memory: Duration::from_secs(86_400) }
    }
}

/// The detector.
#[derive(Debug)]
pub struct ImpossibleTravel {
    config: ImpossibleTravelConfig,
    state: KeyedState<Vec<Visit>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Visit {
    at: i64,
    place: Place,
    evidence: EvidenceRef,
}

const RULE: &str = "stateful.impossible_travel";
/// Logins kept per user.
const KEPT: usize = 32;

impl ImpossibleTravel {
    /// With nothing seen yet.
    pub fn new(config: ImpossibleTravelConfig) -> Self {
        Self { config, state: KeyedState::new("impossible_travel") }
    }

    fn compare(&self, earlier: &Visit, later: &Visit) -> Option<(f64, f64)> {
        let micros_between = later.at - earlier.at;
        let km = earlier.place.kilometres_to(later.place);
        let hours = micros_between as f64 / 3.6e9;
        let impossible = km >= self.config.min_km
            && km > self.config.max_kmh * hours
            && micros_between <= micros(self.config.memory);
        impossible.then_some((km, hours))
    }
}

impl Detector for ImpossibleTravel {
    fn rules(&self) -> Vec<RuleMeta> {
        vec![meta(RULE, "Impossible Travel", Severity::High, &["initial-access", "t1078", "t1078.004"])]
    }

    fn on_event(&mut self, event: &Event, hits: &mut Vec<Hit>) {
        let (Action::Login { success: true }, Some(place)) = (event.action, event.place) else { return };
        let key = event.key(&event.user);
        let visit = Visit { at: event.at, place, evidence: event.evidence.clone() };
        let visits = self.state.get(&key).map(Vec::as_slice).unwrap_or_default();
        let position = visits.partition_point(|v| v.at <= visit.at);
        // Only neighbours in time are compared: if they are possible, so are the ones beyond.
        let before = position.checked_sub(1).and_then(|p| visits.get(p)).map(|v| (v, &visit));
        let after = visits.get(position).map(|v| (&visit, v));
        for (from, to) in before.into_iter().chain(after) {
            if let Some((km, hours)) = self.compare(from, to) {
                hits.push(Hit {
                    rule: RULE,
                    entity_type: "user",
                    entity: event.user.clone(),
                    window: (from.at, to.at),
                    summary: format!("logins {km:.0} km apart within {:.0} minutes", hours * 60.0),
                    evidence: vec![from.evidence.clone(), to.evidence.clone()],
                });
            }
        }
        let expires = later(visits.last().map(|v| v.at).into_iter().chain([event.at]), micros(self.config.memory));
        self.state.update(&key, expires, |visits| {
            visits.insert(position, visit);
            if visits.len() > KEPT {
                visits.remove(0);
            }
        });
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

    /// London, Paris (344 km), New York (5,570 km from London).
    const LONDON: (f64, f64) = (51.5074, -0.1278);
    const PARIS: (f64, f64) = (48.8566, 2.3522);
    const NEW_YORK: (f64, f64) = (40.7128, -74.0060);

    fn login(user: &str, at: i64, (lat, lon): (f64, f64)) -> Event {
        Event { place: Place::new(lat, lon), ..event(user, at, Action::Login { success: true }) }
    }

    fn detector() -> ImpossibleTravel {
        ImpossibleTravel::new(ImpossibleTravelConfig::default())
    }

    #[test]
    fn new_york_an_hour_after_london_is_impossible_and_six_hours_after_is_not() {
        let hits = run(&mut detector(), &[login("u", 0, LONDON), login("u", HOUR, NEW_YORK)]);
        assert_eq!(hits.len(), 1);
        assert_eq!(hits[0].summary, "logins 5570 km apart within 60 minutes");
        assert_eq!(evidence(&hits[0]), ["u@0", "u@3600000000"]);
        assert_eq!(run(&mut detector(), &[login("u", 0, LONDON), login("u", 6 * HOUR, NEW_YORK)]), []);
    }

    #[test]
    fn arrival_order_does_not_matter_and_users_do() {
        assert_eq!(run(&mut detector(), &[login("u", HOUR, NEW_YORK), login("u", 0, LONDON)]).len(), 1);
        assert_eq!(run(&mut detector(), &[login("u", 0, LONDON), login("v", HOUR, NEW_YORK)]), []);
    }

    #[test]
    fn a_failed_login_or_one_without_place_moves_nobody() {
        let failed = Event { action: Action::Login { success: false }, ..login("u", HOUR, NEW_YORK) };
        let nowhere = Event { place: None, ..login("u", HOUR, NEW_YORK) };
        assert_eq!(run(&mut detector(), &[login("u", 0, LONDON), failed, nowhere]), []);
    }

    #[test]
    fn paris_is_344_km_so_the_threshold_decides() {
        let events = [login("u", 0, LONDON), login("u", HOUR / 6, PARIS)];
        assert_eq!(run(&mut detector(), &events).len(), 1);
        let far = ImpossibleTravelConfig { min_km: 350.0, ..Default::default() };
        assert_eq!(run(&mut ImpossibleTravel::new(far), &events), []);
    }

    #[test]
    fn it_survives_a_snapshot_and_forgets_after_a_day() {
        let mut first = detector();
        run(&mut first, &[login("u", 0, LONDON)]);
        let mut second = reborn(first, detector());
        assert_eq!(run(&mut second, &[login("u", HOUR, NEW_YORK)]).len(), 1);
        second.expire(26 * HOUR);
        assert_eq!(second.size(), (0, 0));
    }
}
