//! How far each version of a rule is trusted, and taking that trust back when people say it is wrong.

use companyos_stream::KeyedState;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Mode;

/// The trust in one rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Rule, correlation or detector.
    pub rule: String,
    /// `live`, `canary` or `shadow`.
    pub mode: Mode,
    /// Share of tenants a canary is for, 0 to 1.
    #[serde(default)]
    pub share: f64,
    /// File of a newer version, run beside the live one (which stays live for every tenant).
    #[serde(default)]
    pub candidate: Option<String>,
}

impl Rollout {
    /// The mode for a tenant; none where a canary is not for it.
    pub fn mode_for(&self, tenant: &str) -> Option<Mode> {
        match self.mode {
            Mode::Canary if position(&self.rule, tenant) >= self.share => None,
            mode => Some(mode),
        }
    }
}

/// Where a tenant stands between 0 and 1, for one rule: the same everywhere and always, so that a
/// share that grows keeps the tenants it had.
fn position(rule: &str, tenant: &str) -> f64 {
    let mut hash = Sha256::new();
    hash.update(rule.as_bytes());
    hash.update([0]);
    hash.update(tenant.as_bytes());
    let bytes = hash.finalize();
    let mut head = [0; 8];
    head.copy_from_slice(&bytes[..8]);
    // 53 bits are what a float can tell apart.
    (u64::from_be_bytes(head) >> 11) as f64 / (1u64 << 53) as f64
}

/// When a version is taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RollbackConfig {
    /// Verdicts below which nothing is decided.
    pub min_feedback: u32,
    /// Share of false positives above which any version is taken back to shadow.
    pub max_false_positives: f64,
    /// A candidate is also taken back if its share exceeds the live version's by more than this.
    pub max_increase: f64,
}

impl Default for RollbackConfig {
    fn default() -> Self {
        Self { min_feedback: 10, max_false_positives: 0.8, max_increase: 0.25 }
    }
}

/// What people said about a version's findings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Right.
    pub true_positives: u32,
    /// Wrong.
    pub false_positives: u32,
    /// Whether it was taken back.
    pub rolled_back: bool,
}

impl Tally {
    fn total(self) -> u32 {
        self.true_positives + self.false_positives
    }

    fn rate(self) -> f64 {
        f64::from(self.false_positives) / f64::from(self.total().max(1))
    }
}

/// Feedback by rule and version.
#[derive(Debug)]
pub struct Feedback {
    tallies: KeyedState<Tally>,
}

impl Default for Feedback {
    fn default() -> Self {
        Self { tallies: KeyedState::new("feedback") }
    }
}

impl Feedback {
    /// The state, for snapshots.
    pub fn state(&mut self) -> &mut KeyedState<Tally> {
        &mut self.tallies
    }

    /// What was said about a version.
    pub fn tally(&self, rule: &str, version: &str) -> Tally {
        self.tallies.get(&key(rule, version)).copied().unwrap_or_default()
    }

    /// Whether a version was taken back.
    pub fn rolled_back(&self, rule: &str, version: &str) -> bool {
        self.tally(rule, version).rolled_back
    }

    /// Notes a verdict, and returns whether it made the version be taken back. `live` is the live
    /// version that a candidate is compared with.
    pub fn note(
        &mut self,
        rule: &str,
        version: &str,
        false_positive: bool,
        live: Option<&str>,
        config: &RollbackConfig,
    ) -> bool {
        let live = live.filter(|live| *live != version).map(|live| self.tally(rule, live));
        let mut rolled_back = false;
        self.tallies.update(&key(rule, version), i64::MAX, |tally| {
            if false_positive {
                tally.false_positives = tally.false_positives.saturating_add(1);
            } else {
                tally.true_positives = tally.true_positives.saturating_add(1);
            }
            let enough = tally.total() >= config.min_feedback.max(1);
            let worse = live
                .filter(|live| live.total() >= config.min_feedback)
                .is_some_and(|live| tally.rate() > live.rate() + config.max_increase);
            if !tally.rolled_back && enough && (tally.rate() > config.max_false_positives || worse) {
                tally.rolled_back = true;
                rolled_back = true;
            }
        });
        rolled_back
    }
}

fn key(rule: &str, version: &str) -> String {
    format!("{rule}\u{1f}{version}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_growing_share_keeps_its_tenants_and_is_about_right() {
        let rollout = |share| Rollout { rule: "r".into(), mode: Mode::Canary, share, candidate: None };
        let chosen = |share| {
            (0..2000).map(|i| format!("t{i}")).filter(|t| rollout(share).mode_for(t).is_some()).collect::<Vec<_>>()
        };
        let (few, many) = (chosen(0.1), chosen(0.4));
        assert!(few.iter().all(|t| many.contains(t)));
        assert!((150..250).contains(&few.len()) && (720..880).contains(&many.len()), "{} {}", few.len(), many.len());
        assert!(chosen(0.0).is_empty() && chosen(1.0).len() == 2000);
    }

    #[test]
    fn ten_verdicts_of_which_nine_are_wrong_roll_back_once() {
        let config = RollbackConfig::default();
        let mut feedback = Feedback::default();
        let mut said = vec![feedback.note("r", "1", false, None, &config)];
        said.extend((0..10).map(|_| feedback.note("r", "1", true, None, &config)));
        // The tenth verdict makes 9 of 10 = 0.9 > 0.8.
        assert_eq!(said.iter().position(|&s| s), Some(9));
        assert_eq!(said.iter().filter(|&&s| s).count(), 1);
        assert!(feedback.rolled_back("r", "1") && !feedback.rolled_back("r", "2"));
    }

    #[test]
    fn a_candidate_is_held_to_the_live_version() {
        let config = RollbackConfig { min_feedback: 4, max_false_positives: 0.9, max_increase: 0.25 };
        let run = |wrong: usize| {
            let mut feedback = Feedback::default();
            for i in 0..4 {
                feedback.note("r", "live", i == 0, Some("live"), &config);
            }
            (0..4).any(|i| feedback.note("r", "new", i < wrong, Some("live"), &config))
        };
        // Live: 1 of 4 wrong; a candidate may have up to half wrong.
        assert!(!run(1));
        assert!(run(4));
    }
}
