//! Watermarks per source partition, with allowed lateness and idle detection.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

/// Event time that all partitions have reached.
///
/// A partition's watermark is the latest event time seen in it less the allowed lateness; the
/// common one is the least of them. A partition without rows for `idle_after` of processing time
/// holds nobody back until it has rows again. The common watermark never goes back.
#[derive(Debug, Clone)]
pub struct WatermarkTracker {
    lateness: TimeDelta,
    idle_after: TimeDelta,
    partitions: HashMap<(String, i32), Progress>,
    common: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    latest: DateTime<Utc>,
    seen_at: DateTime<Utc>,
}

impl WatermarkTracker {
    /// Lateness beyond `TimeDelta`'s range counts as none at all being late.
    pub fn new(lateness: Duration, idle_after: Duration) -> Self {
        let delta = |d| TimeDelta::from_std(d).unwrap_or(TimeDelta::MAX);
        Self { lateness: delta(lateness), idle_after: delta(idle_after), partitions: HashMap::new(), common: None }
    }

    /// Notes the latest event time of some rows of a partition, seen at `now`.
    pub fn observe(&mut self, topic: &str, partition: i32, latest: DateTime<Utc>, now: DateTime<Utc>) {
        match self.partitions.get_mut(&(topic.to_owned(), partition)) {
            Some(progress) => *progress = Progress { latest: progress.latest.max(latest), seen_at: now },
            None => {
                self.partitions.insert((topic.to_owned(), partition), Progress { latest, seen_at: now });
            }
        }
    }

    /// Moves the common watermark on, and returns it. With every partition idle it stays.
    pub fn advance(&mut self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let active = self.partitions.values().filter(|p| now - p.seen_at < self.idle_after);
        if let Some(least) = active.map(|p| p.latest).min()
            && let Some(mark) = least.checked_sub_signed(self.lateness)
        {
            self.common = Some(self.common.map_or(mark, |common| common.max(mark)));
        }
        self.common
    }

    /// The common watermark as of the last [`advance`](Self::advance).
    pub fn current(&self) -> Option<DateTime<Utc>> {
        self.common
    }

    /// Takes back the watermark of a checkpoint; partitions are learned anew from rows.
    pub fn restore(&mut self, common: Option<DateTime<Utc>>) {
        self.common = common;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn the_slowest_partition_holds_the_others_back_until_it_is_idle() {
        let mut marks = WatermarkTracker::new(Duration::from_secs(10), Duration::from_secs(60));
        assert_eq!(marks.advance(at(0)), None);
        marks.observe("t", 0, at(100), at(0));
        marks.observe("t", 1, at(50), at(0));
        assert_eq!(marks.advance(at(1)), Some(at(40)));
        marks.observe("t", 0, at(200), at(30));
        assert_eq!(marks.advance(at(31)), Some(at(40)));
        assert_eq!(marks.advance(at(61)), Some(at(190)), "partition 1 is idle");
        marks.observe("t", 1, at(60), at(62));
        assert_eq!(marks.advance(at(63)), Some(at(190)), "it never goes back");
    }

    #[test]
    fn older_rows_do_not_pull_a_partition_back_and_silence_keeps_the_mark() {
        let mut marks = WatermarkTracker::new(Duration::ZERO, Duration::from_secs(60));
        marks.observe("t", 0, at(100), at(0));
        marks.observe("t", 0, at(10), at(1));
        assert_eq!(marks.advance(at(2)), Some(at(100)));
        assert_eq!(marks.advance(at(1000)), Some(at(100)));
    }
}
