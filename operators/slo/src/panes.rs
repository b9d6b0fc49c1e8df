//! Counts by minute, shared by all windows of an objective.
//!
//! The last three days are kept by the minute; what is older, for windows of error budgets longer
//! than that, by tiles of 15 minutes (or of one slice, if slices are longer), already in units of
//! the budget. The far end of such a window is therefore rounded down to a tile. Everything else is
//! exact. Only minutes that have events take space.

use serde::{Deserialize, Serialize};

use crate::compile::{Budgeting, LONGEST_ALERT};

/// Counts over a span of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Good units: events, or slices.
    pub good: f64,
    /// All units.
    pub total: f64,
    /// Events, whatever the unit.
    pub events: f64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.good += other.good;
        self.total += other.total;
        self.events += other.events;
    }

    /// How many times faster than sustainable the budget burns; none without units.
    pub fn burn_rate(self, objective: f64) -> Option<f64> {
        (self.total > 0.0).then(|| (self.total - self.good) / self.total / (1.0 - objective))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Pane {
    minute: i64,
    good: f64,
    total: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Tile {
    minute: i64,
    counts: Counts,
}

/// The panes of one key.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Panes {
    fine: Vec<Pane>,
    coarse: Vec<Tile>,
    /// Minutes before this one are in tiles.
    folded_to: Option<i64>,
}

impl Panes {
    /// Adds events of a minute. False if they are too old: slices that are folded are closed.
    pub fn add(&mut self, budgeting: Budgeting, minute: i64, good: f64, total: f64) -> bool {
        if self.folded_to.is_some_and(|to| minute < to) {
            if budgeting != Budgeting::Occurrences {
                return false;
            }
            self.add_tile(floor(minute, tile(budgeting)), Counts { good, total, events: total });
            return true;
        }
        match self.fine.binary_search_by_key(&minute, |p| p.minute) {
            Ok(at) => {
                self.fine[at].good += good;
                self.fine[at].total += total;
            }
            Err(at) => self.fine.insert(at, Pane { minute, good, total }),
        }
        true
    }

    fn add_tile(&mut self, minute: i64, counts: Counts) {
        match self.coarse.binary_search_by_key(&minute, |t| t.minute) {
            Ok(at) => self.coarse[at].counts.add(counts),
            Err(at) => self.coarse.insert(at, Tile { minute, counts }),
        }
    }

    /// Folds minutes that only long windows still need, and forgets those before `oldest`.
    pub fn fold(&mut self, budgeting: Budgeting, now: i64, oldest: i64) {
        let tile = tile(budgeting);
        // One tile more than needed, so that a slice at the far end of an alert's window is whole.
        let to = floor(now - LONGEST_ALERT - tile, tile);
        if self.folded_to.is_some_and(|before| to <= before) {
            return;
        }
        let keep = self.fine.partition_point(|p| p.minute < to);
        let old: Vec<Pane> = self.fine.drain(..keep).collect();
        for group in old.chunk_by(|a, b| floor(a.minute, tile) == floor(b.minute, tile)) {
            self.add_tile(floor(group[0].minute, tile), units(budgeting, group));
        }
        let gone = self.coarse.partition_point(|t| t.minute + tile <= oldest);
        self.coarse.drain(..gone);
        self.folded_to = Some(to);
    }

    /// Counts of the minutes `from..=to`; slices and tiles that reach into them count whole.
    pub fn sum(&self, budgeting: Budgeting, from: i64, to: i64) -> Counts {
        let mut counts = Counts::default();
        let folded = self.folded_to.unwrap_or(i64::MIN);
        if from < folded {
            let first = floor(from, tile(budgeting));
            for tile in &self.coarse[self.coarse.partition_point(|t| t.minute < first)..] {
                counts.add(tile.counts);
            }
        }
        let from = floor(from, slice(budgeting));
        let (a, b) = (self.fine.partition_point(|p| p.minute < from), self.fine.partition_point(|p| p.minute <= to));
        if a < b {
            counts.add(units(budgeting, &self.fine[a..b]));
        }
        counts
    }

    /// How many panes and tiles there are.
    pub fn len(&self) -> usize {
        self.fine.len() + self.coarse.len()
    }
}

fn slice(budgeting: Budgeting) -> i64 {
    match budgeting {
        Budgeting::Occurrences => 1,
        Budgeting::Timeslices { minutes, .. } | Budgeting::RatioTimeslices { minutes } => minutes,
    }
}

fn tile(budgeting: Budgeting) -> i64 {
    slice(budgeting).max(15)
}

fn floor(minute: i64, step: i64) -> i64 {
    minute.div_euclid(step) * step
}

/// Panes in order as units of the budget. Slices without events are no units.
fn units(budgeting: Budgeting, panes: &[Pane]) -> Counts {
    let sum = |panes: &[Pane]| panes.iter().fold((0.0, 0.0), |(g, t), p| (g + p.good, t + p.total));
    let step = slice(budgeting);
    match budgeting {
        Budgeting::Occurrences => {
            let (good, total) = sum(panes);
            Counts { good, total, events: total }
        }
        _ => panes
            .chunk_by(|a, b| floor(a.minute, step) == floor(b.minute, step))
            .map(|group| {
                let (good, total) = sum(group);
                let share = good / total;
                let good = match budgeting {
                    Budgeting::Timeslices { target, .. } => f64::from(share >= target),
                    _ => share,
                };
                Counts { good, total: 1.0, events: total }
            })
            .fold(Counts::default(), |mut all, one| {
                all.add(one);
                all
            }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn windows_over_panes_are_sums_over_events(
            events in prop::collection::vec((0..20_000_i64, 0..5_u32, 0..5_u32), 0..200),
            folds in prop::collection::vec(0..200_usize, 0..4),
            window in 1..15_000_i64,
        ) {
            let budgeting = Budgeting::Occurrences;
            let mut panes = Panes::default();
            let mut now = 0;
            for (i, (minute, good, bad)) in events.iter().enumerate() {
                now = now.max(*minute);
                prop_assert!(panes.add(budgeting, *minute, f64::from(*good), f64::from(good + bad)));
                if folds.contains(&i) {
                    panes.fold(budgeting, now, now - 40_000);
                }
            }
            let mut from = now - window + 1;
            if from < panes.folded_to.unwrap_or(i64::MIN) {
                from = floor(from, 15);
            }
            let inside = || events.iter().filter(|(m, ..)| (from..=now).contains(m));
            let counts = panes.sum(budgeting, now - window + 1, now);
            prop_assert_eq!(counts.good, inside().map(|(_, g, _)| f64::from(*g)).sum::<f64>());
            prop_assert_eq!(counts.total, inside().map(|(_, g, b)| f64::from(g + b)).sum::<f64>());
        }

        #[test]
        fn slices_count_once_whether_folded_or_not(
            events in prop::collection::vec((0..3_000_i64, 0..3_u32, 1..3_u32), 1..100),
            minutes in prop::sample::select(vec![1_i64, 5, 15, 60]),
        ) {
            let budgeting = Budgeting::Timeslices { minutes, target: 0.5 };
            let mut panes = Panes::default();
            for (minute, good, bad) in &events {
                panes.add(budgeting, *minute, f64::from(*good), f64::from(good + bad));
            }
            let before = panes.sum(budgeting, 0, 10_000);
            let mut slices = std::collections::BTreeMap::<i64, (u32, u32)>::new();
            for (minute, good, bad) in &events {
                let slice = slices.entry(minute / minutes).or_default();
                *slice = (slice.0 + good, slice.1 + good + bad);
            }
            let good = slices.values().filter(|(g, t)| f64::from(*g) / f64::from(*t) >= 0.5).count();
            prop_assert_eq!((before.good, before.total), (good as f64, slices.len() as f64));
            panes.fold(budgeting, 10_000, 0);
            prop_assert_eq!(panes.sum(budgeting, 0, 10_000), before);
            prop_assert!(!panes.add(budgeting, 10, 1.0, 1.0), "folded slices are closed");
        }
    }

    #[test]
    fn a_year_of_minutes_takes_bounded_space() {
        let mut panes = Panes::default();
        for minute in 0..2 * 43_200 {
            panes.add(Budgeting::Occurrences, minute, 1.0, 1.0);
            panes.fold(Budgeting::Occurrences, minute, minute - 43_200);
        }
        assert!(panes.len() < 4320 + 45 + 2880, "{}", panes.len());
        assert_eq!(panes.sum(Budgeting::Occurrences, 86_400 - 43_200, 86_399).total, 43_200.0);
    }
}
