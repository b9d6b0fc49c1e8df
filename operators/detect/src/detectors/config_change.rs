//! Sensitive configuration changed outside the windows in which changes are made. Stateless.

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Weekday};
use glob::Pattern;
use serde::{Deserialize, Serialize};

use super::{Detector, Hit, PatternError, meta, patterns};
use crate::{
    event::{Action, Event},
    finding::{RuleMeta, Severity},
};

/// What is sensitive, and when it may be changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConfigChangeConfig {
    /// Sensitive resources or settings, as globs.
    pub sensitive: Vec<String>,
    /// When changes are expected.
    pub windows: Vec<ChangeWindow>,
}

/// A weekly window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeWindow {
    /// Days it opens on, such as `[Mon, Tue]`.
    pub days: Vec<Weekday>,
    /// Hour it opens.
    pub from_hour: u32,
    /// Hour it closes; 24 is midnight. Below or at `from_hour`, on the next day.
    pub to_hour: u32,
    /// Minutes by which its clock is ahead of UTC.
    #[serde(default)]
    pub utc_offset_minutes: i32,
}

impl ChangeWindow {
    /// Whether it is open at this time (microseconds).
    pub fn is_open(&self, at: i64) -> bool {
        let Some(local) = DateTime::from_timestamp_micros(at)
            .and_then(|t| t.checked_add_signed(TimeDelta::minutes(self.utc_offset_minutes.into())))
        else {
            return false;
        };
        let (day, hour) = (local.weekday(), local.hour());
        if self.from_hour < self.to_hour {
            self.days.contains(&day) && (self.from_hour..self.to_hour).contains(&hour)
        } else {
            self.days.contains(&day) && hour >= self.from_hour || self.days.contains(&day.pred()) && hour < self.to_hour
        }
    }
}

impl Default for ConfigChangeConfig {
    fn default() -> Self {
        let sensitive = [
            "*auth*",
            "*iam*",
            "*policy*",
            "*firewall*",
            "*secret*",
            "*residency*",
            "*dlp*",
            "*logging*",
            "*backup*",
            "*retention*",
        ];
        Self {
            sensitive: sensitive.map(str::to_owned).to_vec(),
            windows: vec![ChangeWindow {
                days: vec![Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri],
                from_hour: 7,
                to_hour: 19,
                utc_offset_minutes: 0,
            }],
        }
    }
}

/// The detector.
#[derive(Debug)]
pub struct ConfigChange {
    config: ConfigChangeConfig,
    sensitive: Vec<Pattern>,
}

const RULE: &str = "stateful.config_change_outside_window";

impl ConfigChange {
    /// Ready.
    pub fn new(config: ConfigChangeConfig) -> Result<Self, PatternError> {
        Ok(Self { sensitive: patterns("config_change.sensitive", &config.sensitive)?, config })
    }
}

impl Detector for ConfigChange {
    fn rules(&self) -> Vec<RuleMeta> {
        vec![meta(
            RULE,
            "Sensitive Configuration Changed Outside A Change Window",
            Severity::Medium,
            &["defense-evasion", "t1562", "persistence"],
        )]
    }

    fn on_event(&mut self, event: &Event, hits: &mut Vec<Hit>) {
        if event.action != Action::ConfigChange || self.config.windows.iter().any(|w| w.is_open(event.at)) {
            return;
        }
        let Some(resource) = event.resource.as_ref().filter(|r| {
            let lower = r.to_lowercase();
            self.sensitive.iter().any(|p| p.matches(&lower))
        }) else {
            return;
        };
        hits.push(Hit {
            rule: RULE,
            entity_type: "user",
            entity: event.user.clone(),
            window: (event.at, event.at),
            summary: format!("{resource} changed outside every change window"),
            evidence: vec![event.evidence.clone()],
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::*;

    fn change(at: i64, resource: &str) -> Event {
        Event { resource: Some(resource.into()), ..event("u", at, Action::ConfigChange) }
    }

    #[test]
    fn sensitive_and_at_night_or_on_sunday() {
        let mut detector = ConfigChange::new(ConfigChangeConfig::default()).unwrap();
        let hits = run(
            &mut detector,
            &[
                change(MONDAY + 3 * HOUR, "gateway/Auth.issuer"),
                change(MONDAY + 10 * HOUR, "gateway/auth.issuer"),
                change(MONDAY + 3 * HOUR, "console/theme"),
                change(MONDAY - 12 * HOUR, "residency/rules"),
                change(MONDAY + 19 * HOUR, "dlp/policy"),
            ],
        );
        let who: Vec<_> = hits.iter().map(|h| h.window.0 - MONDAY).collect();
        assert_eq!(who, [3 * HOUR, -12 * HOUR, 19 * HOUR]);
    }

    #[test]
    fn windows_over_midnight_and_in_other_zones() {
        let night = ChangeWindow { days: vec![Weekday::Mon], from_hour: 22, to_hour: 4, utc_offset_minutes: 0 };
        for (hours, open) in [(21, false), (22, true), (27, true), (28, false), (3, false)] {
            assert_eq!(night.is_open(MONDAY + hours * HOUR), open, "{hours}");
        }
        let tokyo = ChangeWindow { days: vec![Weekday::Tue], from_hour: 0, to_hour: 24, utc_offset_minutes: 540 };
        assert!(!tokyo.is_open(MONDAY + 14 * HOUR) && tokyo.is_open(MONDAY + 15 * HOUR));
    }
}
