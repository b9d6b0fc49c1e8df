//! Some refusals, then a success, within a window: what brute force and prompt fatigue have in common.

use serde::{Deserialize, Serialize};

use crate::EvidenceRef;

/// The recent attempts of one entity, by time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Attempts(Vec<Attempt>);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Attempt {
    at: i64,
    success: bool,
    evidence: EvidenceRef,
}

/// Refusals before a success, and the success.
pub(super) struct Streak {
    pub refusals: usize,
    pub window: (i64, i64),
    pub evidence: Vec<EvidenceRef>,
}

/// Attempts kept per entity, so that a flood costs no memory.
const KEPT: usize = 256;

impl Attempts {
    pub fn latest(&self) -> Option<i64> {
        self.0.last().map(|a| a.at)
    }

    /// Adds an attempt and returns the streaks it completes: of at least `least` refusals less than
    /// `window` before a success. A streak starts anew after a success.
    pub fn add(&mut self, at: i64, success: bool, evidence: &EvidenceRef, least: usize, window: i64) -> Vec<Streak> {
        if self.0.iter().any(|a| a.at == at && a.evidence == *evidence) {
            return Vec::new();
        }
        let position = self.0.partition_point(|a| a.at <= at);
        self.0.insert(position, Attempt { at, success, evidence: evidence.clone() });
        let mut found = Vec::new();
        // A success is complete with the refusals before it; a refusal may complete the next success.
        let next = self.0.iter().skip(position).position(|a| a.success).map(|p| p + position);
        if let Some(end) = next.filter(|&p| self.0.get(p).is_some_and(|a| a.at - at < window))
            && let Some(streak) = self.before(end, window)
            && (success && streak.refusals >= least || !success && streak.refusals == least)
        {
            found.push(streak);
        }
        let keep_from = self.latest().unwrap_or(at).saturating_sub(window.saturating_mul(2));
        self.0.retain(|a| a.at >= keep_from);
        if self.0.len() > KEPT {
            self.0.drain(..self.0.len() - KEPT);
        }
        found
    }

    fn before(&self, end: usize, window: i64) -> Option<Streak> {
        let success = self.0.get(end)?;
        let mut evidence = vec![success.evidence.clone()];
        let mut start = success.at;
        for attempt in self.0.iter().take(end).rev() {
            if attempt.success || success.at - attempt.at >= window {
                break;
            }
            start = attempt.at;
            evidence.push(attempt.evidence.clone());
        }
        evidence.reverse();
        Some(Streak { refusals: evidence.len() - 1, window: (start, success.at), evidence })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn evidence(id: i64) -> EvidenceRef {
        EvidenceRef { offset: id, ..EvidenceRef::default() }
    }

    proptest! {
        /// Whether there is a streak does not depend on the order of arrival.
        #[test]
        fn order_of_arrival_does_not_matter(order in Just((0..6i64).collect::<Vec<_>>()).prop_shuffle()) {
            // Refusals at 0..5, success at 5; at least four within 5.
            let mut attempts = Attempts::default();
            let found: Vec<_> = order.iter()
                .flat_map(|&i| attempts.add(i, i == 5, &evidence(i), 4, 5))
                .collect();
            prop_assert_eq!(found.len(), 1);
            prop_assert!(found[0].refusals >= 4);
        }
    }

    #[test]
    fn the_window_is_open_at_its_start() {
        let run = |window| {
            let mut attempts = Attempts::default();
            (0..3).flat_map(|i| attempts.add(i * 10, i == 2, &evidence(i), 2, window)).count()
        };
        assert_eq!(run(20), 0, "the first is exactly 20 before");
        assert_eq!(run(21), 1);
    }
}
