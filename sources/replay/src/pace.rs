//! When an event is due, at the pace of the events' own times.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::time::Instant;

use crate::Speed;

/// Turns event times into due times.
///
/// The first event is due at once. Time then moves only as the latest event time seen so far
/// does: an event that is out of order is due at once, not in the past.
#[derive(Debug)]
pub(crate) struct Pacer {
    times: Option<f64>,
    max_pause: Option<Duration>,
    latest: Option<i64>,
    due: Option<Instant>,
}

impl Pacer {
    /// A pacer at a speed; no single wait is longer than `max_pause`.
    pub(crate) fn new(speed: Speed, max_pause: Option<Duration>) -> Self {
        let times = match speed {
            Speed::Max => None,
            Speed::Times(times) => Some(times),
        };
        Self { times, max_pause, latest: None, due: None }
    }

    /// When the next event, of this time in microseconds, is due; none is now. Call once an event.
    pub(crate) fn due(&mut self, event_time: Option<i64>) -> Option<Instant> {
        let times = self.times?;
        let event_time = event_time?;
        let due = *self.due.get_or_insert_with(Instant::now);
        let latest = *self.latest.get_or_insert(event_time);
        if event_time <= latest {
            return Some(due);
        }
        let micros = event_time.abs_diff(latest) as f64;
        let wait = Duration::try_from_secs_f64(micros / 1e6 / times).unwrap_or(FOREVER).min(FOREVER);
        let wait = self.max_pause.map_or(wait, |longest| wait.min(longest));
        self.latest = Some(event_time);
        let due = due.checked_add(wait).unwrap_or(due);
        self.due = Some(due);
        Some(due)
    }
}

/// Far enough away for any replay, near enough for timers.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// An event's time in microseconds since 1970, as the pipeline reads it: RFC 3339, or epoch
/// seconds, milliseconds or microseconds told apart by magnitude.
pub(crate) fn event_time(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => epoch(number.as_f64()?),
        Value::String(text) => match DateTime::parse_from_rfc3339(text.trim()) {
            Ok(date) => Some(date.with_timezone(&Utc).timestamp_micros()),
            Err(_) => epoch(text.trim().parse().ok()?),
        },
        _ => None,
    }
}

fn epoch(number: f64) -> Option<i64> {
    let micros = match number.abs() {
        n if n < 1e11 => number * 1e6,
        n if n < 1e14 => number * 1e3,
        n if n < 1e17 => number,
        _ => return None,
    };
    Some(micros as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::sleep_until;

    use super::*;

    const SECOND: i64 = 1_000_000;

    #[tokio::test(start_paused = true)]
    async fn waits_as_the_latest_event_time_moves() {
        let start = Instant::now();
        let mut pacer = Pacer::new(Speed::Times(60.0), None);
        let mut at = Vec::new();
        // The third and fourth are out of order, the fifth has no time.
        for time in [Some(0), Some(60), Some(30), Some(-10), None, Some(180)] {
            if let Some(due) = pacer.due(time.map(|t: i64| t * SECOND)) {
                sleep_until(due).await;
            }
            at.push(start.elapsed().as_secs());
        }
        assert_eq!(at, [0, 1, 1, 1, 1, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn long_gaps_are_cut_and_max_never_waits() {
        let start = Instant::now();
        let mut pacer = Pacer::new(Speed::Times(1.0), Some(Duration::from_secs(5)));
        for time in [0, 86_400, 86_402] {
            sleep_until(pacer.due(Some(time * SECOND)).unwrap()).await;
        }
        assert_eq!(start.elapsed().as_secs(), 7);
        assert_eq!(Pacer::new(Speed::Max, None).due(Some(SECOND)), None);
        let mut slow = Pacer::new(Speed::Times(1e-300), None);
        slow.due(Some(0));
        assert!(slow.due(Some(i64::MAX)).is_some(), "a wait beyond all clocks is cut, not refused");
    }

    #[test]
    fn reads_times_as_the_pipeline_does() {
        let expected = Some(1_700_000_000_000_000);
        for value in [
            json!("2023-11-14T23:13:20+01:00"),
            json!(1_700_000_000),
            json!(1_700_000_000_000_u64),
            json!(1_700_000_000_000_000_u64),
            json!("1700000000"),
        ] {
            assert_eq!(event_time(&value), expected, "{value}");
        }
        assert_eq!(event_time(&json!("yesterday")), None);
        assert_eq!(event_time(&json!([1])), None);
    }
}
