//! What is true of a key at a moment.

use chrono::DateTime;

use crate::{
    compile::CompiledSlo,
    panes::{Counts, Panes},
    series::Head,
    tables::WINDOWS,
};

const MINUTE: i64 = 60_000_000;

/// Burn rates, budget and state of data.
pub(crate) struct Evaluation {
    /// One for each of [`WINDOWS`].
    pub counts: Vec<Counts>,
    /// Long and short window of each rule.
    pub rules: Vec<(Counts, Counts)>,
    pub budget: Counts,
    /// Share of the budget left.
    pub remaining: Option<f64>,
    /// Seconds until it is spent.
    pub exhaustion: Option<f64>,
    pub data_state: DataState,
    /// Length of the budget's window in seconds.
    pub window: Option<f64>,
    /// Seconds of it since the first event.
    pub covered: Option<f64>,
}

/// Whether there are events enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataState {
    Ok,
    LowTraffic,
    NoData,
}

impl DataState {
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::LowTraffic => "low_traffic",
            Self::NoData => "no_data",
        }
    }
}

/// Evaluates a key at a time in microseconds. Windows end with its minute.
pub(crate) fn evaluate(slo: &CompiledSlo, head: &Head, panes: &Panes, silent: bool, now: i64) -> Evaluation {
    let minute = now.div_euclid(MINUTE);
    let sum = |minutes: i64| panes.sum(slo.budgeting, minute - minutes + 1, minute);
    let counts: Vec<Counts> = WINDOWS.iter().map(|(_, minutes)| sum(*minutes)).collect();
    let window = |minutes: i64| match WINDOWS.iter().position(|(_, m)| *m == minutes) {
        Some(at) => counts[at],
        None => sum(minutes),
    };
    let rules = slo.rules.iter().map(|rule| (window(rule.long), window(rule.short))).collect();
    let bounds = DateTime::from_timestamp_micros(now).and_then(|now| slo.window.bounds(now));
    let from = bounds.map(|(from, _)| from.timestamp().div_euclid(60));
    let budget = from.map_or_else(Counts::default, |from| panes.sum(slo.budgeting, from, minute));
    let remaining = budget.burn_rate(slo.objective).map(|spent| 1.0 - spent);
    let exhaustion = match (remaining, counts[HOUR].burn_rate(slo.objective), bounds) {
        (Some(left), ..) if left <= 0.0 => Some(0.0),
        (Some(left), Some(rate), Some((_, minutes))) if rate > 0.0 => Some(left * (minutes * 60) as f64 / rate),
        _ => None,
    };
    let data_state = if silent {
        DataState::NoData
    } else if counts[HOUR].events < slo.min_events {
        DataState::LowTraffic
    } else {
        DataState::Ok
    };
    let covered = from.map(|from| {
        let first = head.since.map_or(minute + 1, |since| since.max(from));
        ((minute + 1 - first).max(0) * 60) as f64
    });
    let window = bounds.map(|(_, minutes)| (minutes * 60) as f64);
    Evaluation { counts, rules, budget, remaining, exhaustion, data_state, window, covered }
}

/// Place of the hour in [`WINDOWS`].
const HOUR: usize = 2;
