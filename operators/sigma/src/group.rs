//! The events of one group of a correlation, and when they make a hit.

use std::collections::BTreeSet;

use rsigma_parser::ast::{ConditionOperator, CorrelationType};
use serde::{Deserialize, Serialize};

use crate::correlation::{Need, Spec};

/// An event that counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Item {
    pub time_us: i64,
    pub event: String,
    pub input: u16,
    pub value: Option<String>,
    pub carry: Vec<Option<String>>,
}

/// A group's events in order of time, and the windows that already made a hit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub items: Vec<Item>,
    pub fired: Vec<(i64, i64)>,
}

/// A window that satisfies the condition.
#[derive(Debug)]
pub(crate) struct Window {
    pub start_us: i64,
    pub end_us: i64,
    pub value: f64,
    pub items: Vec<Item>,
}

impl Group {
    /// Adds an event; `false` if it is known already or falls into a window that made a hit.
    pub fn insert(&mut self, item: Item) -> bool {
        if self.fired.iter().any(|(from, to)| (*from..*to).contains(&item.time_us)) {
            return false;
        }
        match self.items.binary_search(&item) {
            Ok(_) => false,
            Err(at) => {
                self.items.insert(at, item);
                true
            }
        }
    }

    /// The hits that an event just added at `time` makes, for conditions that hold as soon as enough was seen.
    pub fn rising(&mut self, spec: &Spec, time: i64) -> Vec<Window> {
        let mut windows = Vec::new();
        // Windows are longer than (end - timespan, end]; only those that end within a timespan of it can hold it.
        while let Some(window) = self.first_rising(spec, time) {
            self.fire(spec, window.start_us);
            windows.push(window);
        }
        windows
    }

    fn first_rising(&self, spec: &Spec, time: i64) -> Option<Window> {
        let first = self.items.partition_point(|i| i.time_us < time);
        let last = self.items.partition_point(|i| i.time_us < time.saturating_add(spec.timespan_us));
        let mut end = first;
        while end < last {
            // Events of one moment belong together.
            let at = self.items[end].time_us;
            end = self.items.partition_point(|i| i.time_us <= at);
            let start = self.items.partition_point(|i| i.time_us <= at - spec.timespan_us);
            let items = &self.items[start..end];
            if let Some((value, from)) = satisfied(spec, items) {
                let items = items[from..].to_vec();
                return Some(Window { start_us: items[0].time_us, end_us: at, value, items });
            }
        }
        None
    }

    /// The hits of windows that are over at `mark`, for conditions that can only be told then.
    pub fn closed(&mut self, spec: &Spec, mark: i64) -> Vec<Window> {
        let mut windows = Vec::new();
        while let Some(start_us) = self.items.first().map(|i| i.time_us) {
            let end_us = start_us.saturating_add(spec.timespan_us);
            if end_us > mark {
                break;
            }
            let count = self.items.partition_point(|i| i.time_us < end_us);
            let items: Vec<Item> = self.items.drain(..count).collect();
            if let Some((value, _)) = satisfied(spec, &items) {
                windows.push(Window { start_us, end_us, value, items });
            }
        }
        windows
    }

    fn fire(&mut self, spec: &Spec, start_us: i64) {
        let end_us = start_us.saturating_add(spec.timespan_us);
        self.items.retain(|i| !(start_us..end_us).contains(&i.time_us));
        self.fired.push((start_us, end_us));
    }

    /// Forgets what no event from `horizon` on can change, and says whether there was any.
    pub fn expire(&mut self, spec: &Spec, horizon: i64) -> bool {
        let before = (self.fired.len(), self.items.len());
        self.fired.retain(|(_, to)| *to > horizon);
        if !spec.deferred {
            let old = self.items.partition_point(|i| i.time_us <= horizon.saturating_sub(spec.timespan_us));
            self.items.drain(..old);
        }
        (self.fired.len(), self.items.len()) != before
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.fired.is_empty()
    }
}

/// The measured value and the first event that counts, if the condition holds over these events.
fn satisfied(spec: &Spec, items: &[Item]) -> Option<(f64, usize)> {
    let holds = |value: f64| spec.predicates.iter().all(|(op, limit)| compare(*op, value, *limit as f64));
    let numbers =
        || items.iter().filter_map(|i| i.value.as_ref()?.trim().parse::<f64>().ok()).filter(|n| n.is_finite());
    let over = |value: Option<f64>| value.filter(|v| holds(*v)).map(|v| (v, 0));
    match spec.kind {
        CorrelationType::EventCount => over(Some(items.len() as f64)),
        CorrelationType::ValueCount => {
            over(Some(items.iter().filter_map(|i| i.value.as_ref()).collect::<BTreeSet<_>>().len() as f64))
        }
        CorrelationType::Temporal => {
            let seen: BTreeSet<u16> = items.iter().map(|i| i.input).collect();
            spec.need.holds(&seen, &holds).then_some((seen.len() as f64, 0))
        }
        CorrelationType::TemporalOrdered => {
            let Need::All(inputs) = &spec.need else { return None };
            // The earliest event of each rule that is not before that of the rule before it.
            let (mut time, mut first) = (i64::MIN, None);
            for n in 0..inputs.len() as u16 {
                let at = items.iter().position(|i| i.input == n && i.time_us >= time)?;
                time = items[at].time_us;
                first.get_or_insert(at);
            }
            Some((inputs.len() as f64, first?))
        }
        CorrelationType::ValueSum => over(Some(numbers().sum()).filter(|_| numbers().next().is_some())),
        CorrelationType::ValueAvg => {
            let count = numbers().count();
            over((count > 0).then(|| numbers().sum::<f64>() / count as f64))
        }
        CorrelationType::ValuePercentile => over(percentile(numbers().collect(), spec.percentile as f64)),
        CorrelationType::ValueMedian => over(percentile(numbers().collect(), 50.0)),
    }
}

/// Linear interpolation between the closest ranks.
fn percentile(mut values: Vec<f64>, rank: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let at = rank / 100.0 * values.len().checked_sub(1)? as f64;
    let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
    Some(low + (high - low) * at.fract())
}

fn compare(op: ConditionOperator, value: f64, limit: f64) -> bool {
    match op {
        ConditionOperator::Lt => value < limit,
        ConditionOperator::Lte => value <= limit,
        ConditionOperator::Gt => value > limit,
        ConditionOperator::Gte => value >= limit,
        ConditionOperator::Eq => value == limit,
        ConditionOperator::Neq => value != limit,
    }
}
