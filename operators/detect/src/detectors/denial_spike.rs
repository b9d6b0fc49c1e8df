//! Policy-denial spike: more denials in an hour than this tenant has at this hour of the week.
//!
//! The baseline is the same hour of the week in the weeks before (hours without denials count as
//! zero), or every hour seen while there are too few weeks. The score is robust: distance from the
//! median in units of the median absolute deviation, so that one past incident does not hide the next.

use std::{collections::BTreeMap, time::Duration};

use companyos_stream::KeyedState;
use serde::{Deserialize, Serialize};

use super::{Detector, Hit, Memory, later, meta, micros};
use crate::{
    EvidenceRef,
    event::{Action, Event},
    finding::{RuleMeta, Severity},
};

/// When it is a spike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DenialSpikeConfig {
    /// Score at least.
    pub min_score: f64,
    /// Denials in the hour at least.
    pub min_denials: u32,
    /// Weeks of the same hour that make a baseline; below, all hours are used.
    pub min_weeks: u32,
    /// Hours a tenant is watched before anything is found.
    pub min_hours: u32,
    /// How long an hour is remembered.
    #[serde(with = "humantime_serde")]
    pub memory: Duration,
}

impl Default for DenialSpikeConfig {
    fn default() -> Self {
        Self {
            min_score: 5.0,
            min_denials: 20,
            min_weeks: 3,
            min_hours: 24,
            memory: Duration::from_secs(8 * 7 * 86_400),
        }
    }
}

/// The detector.
#[derive(Debug)]
pub struct DenialSpike {
    config: DenialSpikeConfig,
    state: KeyedState<Denials>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Denials {
    first_hour: Option<i64>,
    hours: BTreeMap<i64, u32>,
    /// Latest denials of the latest hour.
    recent: Vec<(i64, EvidenceRef)>,
    told: Option<i64>,
}

const RULE: &str = "stateful.denial_spike";
const HOUR: i64 = 3_600_000_000;
const WEEK: i64 = 168;
/// Denials of an hour kept as evidence.
const KEPT: usize = 50;

impl DenialSpike {
    /// With nothing seen yet.
    pub fn new(config: DenialSpikeConfig) -> Self {
        Self { config, state: KeyedState::new("denial_spike") }
    }
}

impl Denials {
    fn add(&mut self, event: &Event, hour: i64, remembered: i64) -> u32 {
        self.first_hour = Some(self.first_hour.map_or(hour, |first| first.min(hour)));
        let count = self.hours.entry(hour).or_default();
        *count = count.saturating_add(1);
        let count = *count;
        let latest = self.hours.last_key_value().map_or(hour, |(&h, _)| h);
        self.hours.retain(|&h, _| h > latest - remembered);
        self.first_hour = self.first_hour.map(|first| first.max(latest - remembered + 1));
        self.recent.retain(|(at, _)| at.div_euclid(HOUR) == latest);
        if hour == latest && self.recent.len() < KEPT {
            self.recent.push((event.at, event.evidence.clone()));
        }
        count
    }

    fn score(&self, config: &DenialSpikeConfig, hour: i64, count: u32) -> Option<f64> {
        let first = self.first_hour?;
        if hour - first < i64::from(config.min_hours) {
            return None;
        }
        let at = |h: i64| f64::from(self.hours.get(&h).copied().unwrap_or_default());
        let mut baseline: Vec<f64> = (1..).map(|week| hour - week * WEEK).take_while(|&h| h >= first).map(at).collect();
        if baseline.len() < config.min_weeks as usize {
            baseline = (first..hour).map(at).collect();
        }
        Some(robust_score(f64::from(count), &mut baseline))
    }
}

/// Distance from the median in standard deviations as estimated by the median absolute deviation.
/// Counts of a Poisson process deviate by the root of their mean, and never by less than one.
fn robust_score(value: f64, baseline: &mut [f64]) -> f64 {
    let centre = median(baseline);
    let mut deviations: Vec<f64> = baseline.iter().map(|v| (v - centre).abs()).collect();
    let spread = (1.4826 * median(&mut deviations)).max(centre.sqrt()).max(1.0);
    (value - centre) / spread
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (Some(&upper), 1) => upper,
        (Some(&upper), _) => values.get(middle.wrapping_sub(1)).map_or(upper, |lower| (lower + upper) / 2.0),
        (None, _) => 0.0,
    }
}

impl Detector for DenialSpike {
    fn rules(&self) -> Vec<RuleMeta> {
        vec![meta(RULE, "Spike Of Policy Denials", Severity::Medium, &["discovery", "privilege-escalation", "t1078"])]
    }

    fn on_event(&mut self, event: &Event, hits: &mut Vec<Hit>) {
        if event.action != Action::Denial {
            return;
        }
        let hour = event.at.div_euclid(HOUR);
        let key = event.key("");
        let memory = micros(self.config.memory);
        let newest = self.state.get(&key).and_then(|d| d.hours.last_key_value()).map(|(&h, _)| h * HOUR);
        let config = &self.config;
        self.state.update(&key, later(newest.into_iter().chain([event.at]), memory), |denials| {
            let count = denials.add(event, hour, memory / HOUR);
            if count < config.min_denials || denials.told.is_some_and(|told| told >= hour) {
                return;
            }
            let Some(score) = denials.score(config, hour, count).filter(|&s| s >= config.min_score) else { return };
            denials.told = Some(hour);
            let first = denials.recent.iter().map(|(at, _)| *at).min().unwrap_or(event.at);
            hits.push(Hit {
                rule: RULE,
                entity_type: "tenant",
                entity: event.tenant.clone(),
                window: (first.min(event.at), event.at),
                summary: format!("{count} denials this hour, {score:.1} deviations above the usual"),
                evidence: denials.recent.iter().map(|(_, e)| e.clone()).collect(),
            });
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
    use crate::detectors::testing::{MONDAY, event, reborn, run};

    fn hour_of(hour: i64, denials: i64) -> Vec<Event> {
        (0..denials).map(|i| event("u", MONDAY + hour * HOUR + i * 1_000_000, Action::Denial)).collect()
    }

    /// Four weeks in which Mondays 00:00 have 100 denials and Mondays 12:00 have 2.
    fn weeks() -> Vec<Event> {
        (0..4).flat_map(|w| [hour_of(w * WEEK, 100), hour_of(w * WEEK + 12, 2)].concat()).collect()
    }

    #[test]
    fn scores_by_hand() {
        // Median 3, deviations 2 1 0 1 97: their median is 1, so the spread is max(1.4826, √3) = 1.732.
        assert!((robust_score(20.0, &mut [1.0, 2.0, 3.0, 4.0, 100.0]) - 17.0 / 3f64.sqrt()).abs() < 1e-9);
        assert!((robust_score(5.0, &mut [0.0; 4]) - 5.0).abs() < 1e-9, "a quiet baseline deviates by one");
        assert!((median(&mut [4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < 1e-9);
    }

    #[test]
    fn the_busy_hour_of_the_week_is_no_spike_and_a_quiet_one_is() {
        let config = DenialSpikeConfig::default();
        let mut detector = DenialSpike::new(config.clone());
        // The very first week has no baseline for its own hours but the quiet ones between.
        let first = run(&mut detector, &weeks());
        assert!(first.iter().all(|h| h.window.0 < MONDAY + 3 * WEEK * HOUR), "{first:?}");
        let mut detector = reborn(detector, DenialSpike::new(config));
        assert_eq!(run(&mut detector, &hour_of(4 * WEEK, 100)), [], "as every Monday at midnight");
        let hits = run(&mut detector, &hour_of(4 * WEEK + 12, 40));
        assert_eq!(hits.len(), 1, "told once an hour");
        // 20 is the least; median 2, spread √2: (20 − 2) / 1.414 = 12.7.
        assert_eq!(hits[0].summary, "20 denials this hour, 12.7 deviations above the usual");
        assert_eq!(hits[0].evidence.len(), 20);
    }

    #[test]
    fn a_tenant_unknown_yesterday_is_only_watched() {
        assert_eq!(run(&mut DenialSpike::new(DenialSpikeConfig::default()), &hour_of(0, 500)), []);
    }
}
