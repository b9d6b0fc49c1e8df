//! OpenSLO's duration shorthand, and the windows made of it.

use chrono::{DateTime, LocalResult, Months, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

use crate::{error::FieldFault, openslo::TimeWindow};

/// A length of time by the calendar: minutes, hours, days and weeks are fixed when rolling; months,
/// quarters and years are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shorthand {
    /// `m` and `h`.
    Minutes(i64),
    /// `d` and `w`.
    Days(i64),
    /// `M`, `Q` and `Y`.
    Months(u32),
}

impl Shorthand {
    /// Reads `12h`, `4w`, `1M` and the like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad =
            || format!("{text:?} is not a duration: a whole number above 0 and one of m, h, d, w, M, Q, Y, such as 4w");
        let unit = text.chars().last().ok_or_else(bad)?;
        let digits = &text[..text.len() - unit.len_utf8()];
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let n: u32 = digits.parse().map_err(|_| bad())?;
        if n == 0 || n > 1_000_000 {
            return Err(bad());
        }
        Ok(match unit {
            'm' => Self::Minutes(n.into()),
            'h' => Self::Minutes(i64::from(n) * 60),
            'd' => Self::Days(n.into()),
            'w' => Self::Days(i64::from(n) * 7),
            'M' => Self::Months(n),
            'Q' => Self::Months(n * 3),
            'Y' => Self::Months(n * 12),
            _ => return Err(bad()),
        })
    }

    /// Minutes, with a month of 30 days and a year of 365.
    pub fn minutes(self) -> i64 {
        match self {
            Self::Minutes(n) => n,
            Self::Days(n) => n * 1440,
            Self::Months(n) => (i64::from(n / 12) * 365 + i64::from(n % 12) * 30) * 1440,
        }
    }
}

/// The window an error budget is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Window {
    /// The minutes up to now.
    Rolling {
        /// How many.
        minutes: i64,
    },
    /// From the last of the moments `start + k × length`, in local time.
    Calendar {
        /// First start, local.
        start: NaiveDateTime,
        /// Zone.
        zone: Tz,
        /// Length of each.
        length: Shorthand,
    },
}

impl Window {
    /// A window as OpenSLO has it, at a path.
    pub(crate) fn new(window: &TimeWindow, at: &str) -> Result<Self, FieldFault> {
        let length =
            Shorthand::parse(&window.duration).map_err(|e| FieldFault::invalid(format!("{at}.duration"), e))?;
        let rolling = window.is_rolling.unwrap_or(window.calendar.is_none());
        let calendar = match (&window.calendar, rolling) {
            (None, true) => return Ok(Self::Rolling { minutes: length.minutes() }),
            (Some(calendar), false) => calendar,
            (None, false) => {
                return Err(FieldFault::invalid(format!("{at}.calendar"), "is needed with isRolling: false"));
            }
            (Some(_), true) => {
                return Err(FieldFault::invalid(format!("{at}.calendar"), "cannot be used with isRolling: true"));
            }
        };
        let formats = ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M"];
        let start = formats.iter().find_map(|f| NaiveDateTime::parse_from_str(&calendar.start_time, f).ok());
        let start = start.ok_or_else(|| {
            let reason = format!("{:?} is not a time such as 2022-01-01 12:00:00", calendar.start_time);
            FieldFault::invalid(format!("{at}.calendar.startTime"), reason)
        })?;
        let zone = calendar.time_zone.parse().map_err(|_| {
            let reason = format!("{:?} is not a time zone of the IANA database", calendar.time_zone);
            FieldFault::invalid(format!("{at}.calendar.timeZone"), reason)
        })?;
        Ok(Self::Calendar { start, zone, length })
    }

    /// Greatest number of minutes it can span.
    pub fn longest(&self) -> i64 {
        match self {
            Self::Rolling { minutes } => *minutes,
            // A day more, for the hour that clocks go back in and the day a zone may move by.
            Self::Calendar { length: Shorthand::Months(n), .. } => {
                (i64::from(n / 12) * 366 + i64::from(n % 12) * 31 + 1) * 1440
            }
            Self::Calendar { length, .. } => length.minutes() + 1440,
        }
    }

    /// Start and nominal length in minutes of the window that holds `now`; none before the first
    /// calendar window. A rolling window begins so that it has exactly its minutes, the one of `now`
    /// included.
    pub fn bounds(&self, now: DateTime<Utc>) -> Option<(DateTime<Utc>, i64)> {
        match self {
            Self::Rolling { minutes } => {
                let minute = now.timestamp().div_euclid(60) - minutes + 1;
                Some((DateTime::from_timestamp(minute * 60, 0)?, *minutes))
            }
            Self::Calendar { start, zone, length } => {
                let local = now.with_timezone(zone).naive_local();
                if local < *start {
                    return None;
                }
                let at = |k: i64| -> Option<NaiveDateTime> {
                    match length {
                        Shorthand::Minutes(n) => start.checked_add_signed(TimeDelta::try_minutes(n.checked_mul(k)?)?),
                        Shorthand::Days(n) => start.checked_add_signed(TimeDelta::try_days(n.checked_mul(k)?)?),
                        Shorthand::Months(n) => {
                            start.checked_add_months(Months::new(u32::try_from(i64::from(*n).checked_mul(k)?).ok()?))
                        }
                    }
                };
                // An estimate that is never too late by more than a few steps, then exact.
                let elapsed = (local - *start).num_minutes();
                let mut k = (elapsed / length.minutes().max(1) - 1).max(0);
                while k > 0 && at(k)? > local {
                    k -= 1;
                }
                while at(k + 1)? <= local {
                    k += 1;
                }
                let (from, to) = (utc(*zone, at(k)?)?, utc(*zone, at(k + 1)?)?);
                Some((from, (to - from).num_minutes()))
            }
        }
    }
}

/// A local time that a change of clocks skips counts as the first one after it.
fn utc(zone: Tz, local: NaiveDateTime) -> Option<DateTime<Utc>> {
    match zone.from_local_datetime(&local) {
        LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => Some(at.with_timezone(&Utc)),
        // Clocks skip an hour as a rule; a day, where a zone moved over the date line.
        LocalResult::None => (1..=26 * 60)
            .find_map(|m| zone.from_local_datetime(&(local + TimeDelta::minutes(m))).earliest())
            .map(|at| at.with_timezone(&Utc)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorthand_is_case_sensitive_and_strict() {
        assert_eq!(Shorthand::parse("1m"), Ok(Shorthand::Minutes(1)));
        assert_eq!(Shorthand::parse("1M"), Ok(Shorthand::Months(1)));
        assert_eq!(Shorthand::parse("2Q"), Ok(Shorthand::Months(6)));
        for bad in ["", "m", "0m", "-1d", "1.5h", "1 d", "1s", "1ä", "99999999999d"] {
            assert!(Shorthand::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn calendar_months_begin_on_local_days_across_clock_changes_and_month_ends() {
        let window = |start: &str, length| Window::Calendar {
            start: NaiveDateTime::parse_from_str(start, "%Y-%m-%d %H:%M:%S").unwrap(),
            zone: "America/New_York".parse().unwrap(),
            length,
        };
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let month = window("2022-01-01 00:00:00", Shorthand::Months(1));
        // March 2024 has 31 days, less the hour skipped on the 10th.
        assert_eq!(month.bounds(at("2024-03-20T10:00:00Z")), Some((at("2024-03-01T05:00:00Z"), 31 * 1440 - 60)));
        assert_eq!(month.bounds(at("2024-04-01T03:59:59Z")), Some((at("2024-03-01T05:00:00Z"), 31 * 1440 - 60)));
        assert_eq!(month.bounds(at("2024-04-01T04:00:00Z")).unwrap().0, at("2024-04-01T04:00:00Z"));
        assert_eq!(month.bounds(at("2021-01-01T00:00:00Z")), None);
        let from_31st = window("2022-01-31 12:00:00", Shorthand::Months(1));
        assert_eq!(from_31st.bounds(at("2024-03-01T00:00:00Z")).unwrap().0, at("2024-02-29T17:00:00Z"));
        let week = window("2022-01-01 12:00:00", Shorthand::Days(7));
        assert_eq!(week.bounds(at("2022-01-20T00:00:00Z")), Some((at("2022-01-15T17:00:00Z"), 7 * 1440)));
    }

    #[test]
    fn a_window_that_begins_in_a_skipped_hour_begins_with_the_hour_after_it() {
        let start = NaiveDateTime::parse_from_str("2024-01-01 02:30:00", "%Y-%m-%d %H:%M:%S").unwrap();
        let zone = "Europe/Berlin".parse().unwrap();
        let day = Window::Calendar { start, zone, length: Shorthand::Days(1) };
        // On 31 March 2024 clocks went from 02:00 to 03:00, at 01:00 UTC.
        let (from, minutes) = day.bounds("2024-03-31T01:10:00Z".parse().unwrap()).unwrap();
        assert_eq!(from.to_rfc3339(), "2024-03-31T01:00:00+00:00");
        assert_eq!(minutes, 24 * 60 - 30, "to 02:30 summer time");
    }

    #[test]
    fn a_rolling_window_has_exactly_its_minutes() {
        let now = "2024-01-01T10:05:59Z".parse().unwrap();
        let from = Window::Rolling { minutes: 5 }.bounds(now).unwrap().0;
        assert_eq!(from.to_rfc3339(), "2024-01-01T10:01:00+00:00");
    }
}
