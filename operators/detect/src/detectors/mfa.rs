//! Second factors: prompts refused until one is accepted (fatigue), and logins without a second
//! factor by someone who always used one (bypass; this one depends on the order of arrival).

use std::time::Duration;

use companyos_stream::KeyedState;
use serde::{Deserialize, Serialize};

use super::{Detector, Hit, Memory, later, meta, micros, streak::Attempts};
use crate::{
    EvidenceRef,
    event::{Action, Event},
    finding::{RuleMeta, Severity},
};

/// When it is fatigue or bypass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MfaConfig {
    /// Refused prompts at least.
    pub denials: usize,
    /// Before the accepted one by less than this.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// Logins with a second factor after which one without is a bypass.
    pub habit: u32,
    /// How long a habit is remembered.
    #[serde(with = "humantime_serde")]
    pub memory: Duration,
}

impl Default for MfaConfig {
    fn default() -> Self {
        Self { denials: 4, window: Duration::from_secs(900), habit: 5, memory: Duration::from_secs(30 * 86_400) }
    }
}

/// The detector.
#[derive(Debug)]
pub struct Mfa {
    config: MfaConfig,
    prompts: KeyedState<Attempts>,
    habits: KeyedState<Habit>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Habit {
    logins: u32,
    latest: i64,
    evidence: EvidenceRef,
}

const FATIGUE: &str = "stateful.mfa_fatigue";
const BYPASS: &str = "stateful.mfa_bypass";

impl Mfa {
    /// With nothing seen yet.
    pub fn new(config: MfaConfig) -> Self {
        Self { config, prompts: KeyedState::new("mfa_prompts"), habits: KeyedState::new("mfa_habits") }
    }

    fn prompt(&mut self, event: &Event, accepted: bool, hits: &mut Vec<Hit>) {
        let window = micros(self.config.window);
        let key = event.key(&event.user);
        let mut found = Vec::new();
        let expires =
            later(self.prompts.get(&key).and_then(Attempts::latest).into_iter().chain([event.at]), window * 2);
        self.prompts.update(&key, expires, |attempts| {
            found = attempts.add(event.at, accepted, &event.evidence, self.config.denials, window);
        });
        hits.extend(found.into_iter().map(|streak| Hit {
            rule: FATIGUE,
            entity_type: "user",
            entity: event.user.clone(),
            window: streak.window,
            summary: format!("{} prompts refused, then one accepted", streak.refusals),
            evidence: streak.evidence,
        }));
    }

    fn login(&mut self, event: &Event, with_mfa: bool, hits: &mut Vec<Hit>) {
        let key = event.key(&event.user);
        let memory = micros(self.config.memory);
        if with_mfa {
            let expires = later(self.habits.get(&key).map(|h| h.latest).into_iter().chain([event.at]), memory);
            self.habits.update(&key, expires, |habit| {
                habit.logins = habit.logins.saturating_add(1);
                if event.at >= habit.latest {
                    habit.latest = event.at;
                    habit.evidence = event.evidence.clone();
                }
            });
        } else if let Some(habit) = self.habits.get(&key).filter(|h| h.logins >= self.config.habit) {
            hits.push(Hit {
                rule: BYPASS,
                entity_type: "user",
                entity: event.user.clone(),
                window: (habit.latest.min(event.at), event.at),
                summary: format!("login without a second factor after {} with one", habit.logins),
                evidence: vec![habit.evidence.clone(), event.evidence.clone()],
            });
        }
    }
}

impl Detector for Mfa {
    fn rules(&self) -> Vec<RuleMeta> {
        vec![
            meta(FATIGUE, "MFA Prompt Accepted After Many Refusals", Severity::High, &["credential-access", "t1621"]),
            meta(
                BYPASS,
                "Login Without The Usual Second Factor",
                Severity::Medium,
                &["defense-evasion", "credential-access", "t1556.006"],
            ),
        ]
    }

    fn on_event(&mut self, event: &Event, hits: &mut Vec<Hit>) {
        match (event.action, event.mfa) {
            (Action::Prompt { accepted }, _) => self.prompt(event, accepted, hits),
            (Action::Login { success: true }, Some(with_mfa)) => self.login(event, with_mfa, hits),
            _ => {}
        }
    }

    fn memories(&self) -> Vec<&dyn Memory> {
        vec![&self.prompts, &self.habits]
    }

    fn memories_mut(&mut self) -> Vec<&mut dyn Memory> {
        vec![&mut self.prompts, &mut self.habits]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::*;

    fn prompts(answers: &[(i64, bool)]) -> Vec<Event> {
        answers.iter().map(|&(s, accepted)| event("ann", s * SECOND, Action::Prompt { accepted })).collect()
    }

    #[test]
    fn four_refusals_then_an_accept_is_fatigue() {
        let hits = run(
            &mut Mfa::new(MfaConfig::default()),
            &prompts(&[(0, false), (30, false), (60, false), (90, false), (100, true), (110, true)]),
        );
        assert_eq!(hits.len(), 1);
        assert_eq!(evidence(&hits[0]).len(), 5);
        assert_eq!(hits[0].summary, "4 prompts refused, then one accepted");
    }

    #[test]
    fn three_refusals_are_a_tired_thumb() {
        let hits = run(&mut Mfa::new(MfaConfig::default()), &prompts(&[(0, false), (1, false), (2, false), (3, true)]));
        assert_eq!(hits, []);
    }

    #[test]
    fn a_login_without_the_habitual_factor_is_a_bypass() {
        let login = |s: i64, mfa| Event { mfa, ..event("ann", s * SECOND, Action::Login { success: true }) };
        let config = MfaConfig { habit: 2, ..MfaConfig::default() };
        let mut mfa = Mfa::new(config.clone());
        assert_eq!(run(&mut mfa, &[login(0, Some(false)), login(1, Some(true)), login(2, Some(false))]), []);
        assert_eq!(run(&mut mfa, &[login(3, Some(true)), login(4, None)]), []);
        let mut mfa = reborn(mfa, Mfa::new(config));
        let hits = run(&mut mfa, &[login(5, Some(false))]);
        assert_eq!(hits.len(), 1);
        assert_eq!(evidence(&hits[0]), ["ann@3000000", "ann@5000000"]);
        mfa.expire(31 * 24 * HOUR);
        assert_eq!(mfa.size(), (0, 0));
    }
}
