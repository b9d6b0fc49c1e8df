//! How far a source's clock is off: the median of recent differences between an event's time and
//! its record's. The median holds against late deliveries and against up to half the events being
//! wrong on purpose.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Differences kept.
const WINDOW: usize = 63;
/// Differences needed before anything is corrected.
const ENOUGH: usize = 15;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Clock {
    differences: VecDeque<i64>,
    median: Option<i64>,
}

impl Clock {
    pub(super) fn observe(&mut self, difference: i64) {
        if self.differences.len() == WINDOW {
            self.differences.pop_front();
        }
        self.differences.push_back(difference);
        if self.differences.len() >= ENOUGH {
            let mut sorted: Vec<i64> = self.differences.iter().copied().collect();
            let middle = sorted.len() / 2;
            self.median = Some(*sorted.select_nth_unstable(middle).1);
        }
    }

    pub(super) fn offset(&self) -> Option<i64> {
        self.median
    }

    /// The time less the offset, if that is over the threshold.
    pub(super) fn correct(&self, occurred_at: i64, threshold: i64) -> i64 {
        match self.median {
            Some(offset) if offset.saturating_abs() > threshold => occurred_at.saturating_sub(offset),
            _ => occurred_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_enough_and_holds_against_outliers() {
        let mut clock = Clock::default();
        for _ in 0..14 {
            clock.observe(10);
        }
        assert_eq!((clock.offset(), clock.correct(100, 5)), (None, 100));
        clock.observe(10);
        assert_eq!((clock.offset(), clock.correct(100, 5), clock.correct(100, 10)), (Some(10), 90, 100));
        for _ in 0..14 {
            clock.observe(i64::MIN);
        }
        assert_eq!(clock.offset(), Some(10));
        for _ in 0..200 {
            clock.observe(-7);
        }
        assert_eq!((clock.offset(), clock.correct(100, 5)), (Some(-7), 107));
        assert_eq!(clock.differences.len(), WINDOW);
    }
}
