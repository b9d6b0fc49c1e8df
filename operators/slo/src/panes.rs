//! Counts by minute, shared by all windows of an objective.
//!
//! The last three days are kept by the minute; what is older, for windows of error budgets longer
//! than that, by tiles of 15 minutes (or of one slice, if slices are longer), already in units of
//! the budget. The far end of such a window is therefore rounded down to a tile. Everything else is
//! exact. Only minutes that have events take space.
//!
//! Panes come in pages, the minutes of an hour or the tiles of a day, and know which pages changed,
//! so that a checkpoint need hold no more than those.

use std::collections::BTreeSet;

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

/// A part of a key's panes that is stored by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Page {
    /// Up to where panes are folded.
    Fold,
    /// Minutes of an hour.
    Hour(i64),
    /// Tiles of a day.
    Day(i64),
}

/// What a page holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PageContent {
    fine: Vec<Pane>,
    coarse: Vec<Tile>,
    folded_to: Option<i64>,
}

const HOUR: i64 = 60;
const DAY: i64 = 1440;

/// The panes of one key.
#[derive(Debug, Clone, Default)]
pub(crate) struct Panes {
    fine: Vec<Pane>,
    coarse: Vec<Tile>,
    /// Minutes before this one are in tiles.
    folded_to: Option<i64>,
    changed: BTreeSet<Page>,
    /// The page that was put there last: events of a batch mostly share one.
    touched: Option<Page>,
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
        self.touch(Page::Hour(minute.div_euclid(HOUR)));
        match self.fine.binary_search_by_key(&minute, |p| p.minute) {
            Ok(at) => {
                self.fine[at].good += good;
                self.fine[at].total += total;
            }
            Err(at) => self.fine.insert(at, Pane { minute, good, total }),
        }
        true
    }

    fn touch(&mut self, page: Page) {
        if self.touched != Some(page) {
            self.changed.insert(page);
            self.touched = Some(page);
        }
    }

    fn add_tile(&mut self, minute: i64, counts: Counts) {
        self.touch(Page::Day(minute.div_euclid(DAY)));
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
        self.changed.extend(old.iter().map(|p| Page::Hour(p.minute.div_euclid(HOUR))));
        for group in old.chunk_by(|a, b| floor(a.minute, tile) == floor(b.minute, tile)) {
            self.add_tile(floor(group[0].minute, tile), units(budgeting, group));
        }
        let gone = self.coarse.partition_point(|t| t.minute + tile <= oldest);
        self.changed.extend(self.coarse.drain(..gone).map(|t| Page::Day(t.minute.div_euclid(DAY))));
        self.folded_to = Some(to);
        self.changed.insert(Page::Fold);
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

    /// Pages that changed since this was last asked.
    pub fn take_changed(&mut self) -> BTreeSet<Page> {
        self.touched = None;
        std::mem::take(&mut self.changed)
    }

    /// All pages there are.
    pub fn pages(&self) -> BTreeSet<Page> {
        let hours = self.fine.iter().map(|p| Page::Hour(p.minute.div_euclid(HOUR)));
        let days = self.coarse.iter().map(|t| Page::Day(t.minute.div_euclid(DAY)));
        hours.chain(days).chain(self.folded_to.map(|_| Page::Fold)).collect()
    }

    /// A page, if it holds anything.
    pub fn page(&self, page: Page) -> Option<PageContent> {
        let content = PageContent {
            fine: self.fine[self.fine_of(page)].to_vec(),
            coarse: self.coarse[self.coarse_of(page)].to_vec(),
            folded_to: self.folded_to.filter(|_| page == Page::Fold),
        };
        let holds = !content.fine.is_empty() || !content.coarse.is_empty() || content.folded_to.is_some();
        holds.then_some(content)
    }

    /// Puts a page in the place of what was there.
    pub fn set_page(&mut self, page: Page, content: Option<PageContent>) {
        let (fine, coarse) = (self.fine_of(page), self.coarse_of(page));
        let content = content.unwrap_or(PageContent { fine: Vec::new(), coarse: Vec::new(), folded_to: None });
        self.fine.splice(fine, content.fine);
        self.coarse.splice(coarse, content.coarse);
        if page == Page::Fold {
            self.folded_to = content.folded_to;
        }
    }

    fn fine_of(&self, page: Page) -> std::ops::Range<usize> {
        let Page::Hour(hour) = page else { return 0..0 };
        let at = |hour| self.fine.partition_point(|p| p.minute.div_euclid(HOUR) < hour);
        at(hour)..at(hour + 1)
    }

    fn coarse_of(&self, page: Page) -> std::ops::Range<usize> {
        let Page::Day(day) = page else { return 0..0 };
        let at = |day| self.coarse.partition_point(|t| t.minute.div_euclid(DAY) < day);
        at(day)..at(day + 1)
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
