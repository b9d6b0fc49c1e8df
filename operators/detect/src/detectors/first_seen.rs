//! Unusual deployments and administrative actions: an actor does what it never did before.
//!
//! During a tenant's learning period nothing is found. It depends on the order of arrival: of two
//! first actions the one that arrives first is the first.

use std::time::Duration;

use companyos_stream::KeyedState;
use glob::Pattern;
use serde::{Deserialize, Serialize};

use super::{Detector, Hit, Memory, PatternError, later, meta, micros, patterns};
use crate::{
    event::{Action, Event},
    finding::{RuleMeta, Severity},
};

/// What is watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FirstSeenConfig {
    /// Actions watched beside deployments, as globs over their names.
    pub actions: Vec<String>,
    /// A tenant's first events teach only, for this long.
    #[serde(with = "humantime_serde")]
    pub learning: Duration,
    /// What was not done for this long is new again.
    #[serde(with = "humantime_serde")]
    pub memory: Duration,
}

impl Default for FirstSeenConfig {
    fn default() -> Self {
        let actions = [
            "role*", "user*", "policy*", "token*", "key*", "secret*", "export*", "admin*", "config*", "*delete*",
            "*erase*",
        ];
        Self {
            actions: actions.map(str::to_owned).to_vec(),
            learning: Duration::from_secs(7 * 86_400),
            memory: Duration::from_secs(90 * 86_400),
        }
    }
}

/// The detector.
#[derive(Debug)]
pub struct FirstSeen {
    config: FirstSeenConfig,
    actions: Vec<Pattern>,
    /// Event time of each tenant's first watched event.
    tenants: KeyedState<Option<i64>>,
    /// Latest time of each actor's action.
    seen: KeyedState<i64>,
}

const RULE: &str = "stateful.first_seen_action";

impl FirstSeen {
    /// With nothing seen yet.
    pub fn new(config: FirstSeenConfig) -> Result<Self, PatternError> {
        Ok(Self {
            actions: patterns("first_seen.actions", &config.actions)?,
            config,
            tenants: KeyedState::new("first_seen_tenants"),
            seen: KeyedState::new("first_seen_actions"),
        })
    }

    fn watched(&self, event: &Event) -> bool {
        match event.action {
            Action::Deploy => true,
            Action::Admin | Action::ConfigChange => self.actions.iter().any(|p| p.matches(&event.name)),
            _ => false,
        }
    }
}

impl Detector for FirstSeen {
    fn rules(&self) -> Vec<RuleMeta> {
        vec![meta(
            RULE,
            "First Deployment Or Administrative Action By An Actor",
            Severity::Low,
            &["privilege-escalation", "t1078", "persistence", "t1098"],
        )]
    }

    fn on_event(&mut self, event: &Event, hits: &mut Vec<Hit>) {
        if !self.watched(event) {
            return;
        }
        let memory = micros(self.config.memory);
        let what = match (event.action, &event.resource) {
            (Action::Deploy, Some(service)) => format!("{} {service}", event.name),
            _ => event.name.clone(),
        };
        let key = event.key(&format!("{}\u{1f}{what}", event.user));
        let tenant = event.key("");
        let first = self.tenants.get(&tenant).copied().flatten().unwrap_or(event.at).min(event.at);
        self.tenants.update(&tenant, event.at.saturating_add(memory), |t| *t = Some(first));
        let known = self.seen.get(&key).copied();
        self.seen.update(&key, later(known.into_iter().chain([event.at]), memory), |at| *at = (*at).max(event.at));
        if known.is_none() && event.at - first >= micros(self.config.learning) {
            hits.push(Hit {
                rule: RULE,
                entity_type: "user",
                entity: event.user.clone(),
                window: (event.at, event.at),
                summary: format!("first {what} by this actor"),
                evidence: vec![event.evidence.clone()],
            });
        }
    }

    fn memories(&self) -> Vec<&dyn Memory> {
        vec![&self.tenants, &self.seen]
    }

    fn memories_mut(&mut self) -> Vec<&mut dyn Memory> {
        vec![&mut self.tenants, &mut self.seen]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::*;

    const DAY: i64 = 24 * HOUR;

    fn admin(user: &str, at: i64, name: &str) -> Event {
        Event { name: name.into(), ..event(user, at, Action::Admin) }
    }

    fn deploy(user: &str, at: i64, service: &str) -> Event {
        Event { name: "deployment".into(), resource: Some(service.into()), ..event(user, at, Action::Deploy) }
    }

    fn detector() -> FirstSeen {
        FirstSeen::new(FirstSeenConfig::default()).unwrap()
    }

    #[test]
    fn a_week_of_learning_then_every_first() {
        let mut first = detector();
        let hits =
            run(&mut first, &[admin("a", 0, "role.grant"), deploy("a", DAY, "api"), admin("b", 6 * DAY, "role.grant")]);
        assert_eq!(hits, []);
        let mut second = reborn(first, detector());
        let hits = run(
            &mut second,
            &[
                admin("a", 8 * DAY, "role.grant"),
                deploy("a", 8 * DAY, "api"),
                deploy("a", 8 * DAY, "billing"),
                admin("c", 8 * DAY, "role.grant"),
                admin("c", 9 * DAY, "role.grant"),
                admin("c", 9 * DAY, "query"),
            ],
        );
        let said: Vec<_> = hits.iter().map(|h| (h.entity.as_str(), h.summary.as_str())).collect();
        assert_eq!(said, [("a", "first deployment billing by this actor"), ("c", "first role.grant by this actor")]);
    }

    #[test]
    fn what_is_forgotten_is_new_again() {
        let mut detector = detector();
        run(&mut detector, &[admin("a", 0, "role.grant"), admin("b", 60 * DAY, "role.grant")]);
        detector.expire(91 * DAY);
        assert_eq!(
            run(&mut detector, &[admin("a", 92 * DAY, "role.grant"), admin("b", 92 * DAY, "role.grant")]).len(),
            1
        );
    }

    #[test]
    fn a_pattern_that_cannot_be_read_is_named() {
        let config = FirstSeenConfig { actions: vec!["a[".into()], ..Default::default() };
        let error = FirstSeen::new(config).unwrap_err().to_string();
        assert!(error.contains("first_seen.actions") && error.contains("a["), "{error}");
    }
}
