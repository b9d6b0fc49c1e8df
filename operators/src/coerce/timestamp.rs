//! Instants: RFC 3339 with an offset, or epoch numbers whose unit their magnitude tells.
//!
//! Everything is microseconds since 1970 in UTC. Years 0000 to 9999 are read; what is finer than a
//! microsecond is cut off; a leap second is the first second of the next minute.

const MICROS: i64 = 1_000_000;
const DAY_MICROS: i64 = 86_400 * MICROS;

/// The UTC day of an instant, in days since 1970.
pub(crate) fn day_of(micros: i64) -> i32 {
    // An i64 of microseconds spans less than 2^27 days either way.
    micros.div_euclid(DAY_MICROS) as i32
}

/// Reads RFC 3339; none if it is not, or has no offset.
pub(crate) fn rfc3339(text: &str) -> Option<i64> {
    let (fixed, rest) = text.as_bytes().split_first_chunk::<19>()?;
    let [y1, y2, y3, y4, b'-', mo1, mo2, b'-', d1, d2, b'T' | b't' | b' ', h1, h2, b':', mi1, mi2, b':', s1, s2] =
        *fixed
    else {
        return None;
    };
    let year = pair(y1, y2)? * 100 + pair(y3, y4)?;
    let (month, day) = (pair(mo1, mo2)?, pair(d1, d2)?);
    let (hour, minute, second) = (pair(h1, h2)?, pair(mi1, mi2)?, pair(s1, s2)?);
    if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, rest) = fraction(rest)?;
    let offset = offset(rest)?;
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    Some(seconds * MICROS + fraction)
}

#[inline]
fn pair(a: u8, b: u8) -> Option<i64> {
    let (a, b) = (a.wrapping_sub(b'0'), b.wrapping_sub(b'0'));
    (a < 10 && b < 10).then_some(i64::from(a) * 10 + i64::from(b))
}

/// Microseconds of `.digits`, if there are any, and what follows.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let [b'.', digits @ ..] = text else { return Some((0, text)) };
    let length = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    if length == 0 {
        return None;
    }
    let mut micros = 0;
    for place in 0..6 {
        let digit = if place < length { digits.get(place).map_or(0, |b| i64::from(b - b'0')) } else { 0 };
        micros = micros * 10 + digit;
    }
    Some((micros, digits.get(length..)?))
}

/// Seconds east of UTC.
fn offset(text: &[u8]) -> Option<i64> {
    match *text {
        [b'Z' | b'z'] => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (pair(h1, h2)?, pair(m1, m2)?);
            let seconds = hours * 3_600 + minutes * 60;
            (hours < 24 && minutes < 60).then_some(if sign == b'+' { seconds } else { -seconds })
        }
        _ => None,
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970 of a date of the proleptic Gregorian calendar, counted in years that begin in
/// March so that the leap day is the last one.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Reads an epoch number (JSON number text): below 10^11 in magnitude seconds (until the year
/// 5138), below 10^14 milliseconds, below 10^17 microseconds; none beyond.
pub(crate) fn epoch(number: &str) -> Option<i64> {
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(unit(whole.unsigned_abs())?);
    }
    let value = number.parse::<f64>().ok()?;
    // The cast saturates, and every bound of a unit is a whole number.
    let unit = unit(value.abs() as u64)?;
    // The whole part is scaled as an integer, so that only the fraction is rounded.
    Some(value.trunc() as i64 * unit + (value.fract() * unit as f64).round() as i64)
}

/// Microseconds in the unit that a number of this magnitude counts.
fn unit(magnitude: u64) -> Option<i64> {
    match magnitude {
        0..100_000_000_000 => Some(MICROS),
        100_000_000_000..100_000_000_000_000 => Some(1_000),
        100_000_000_000_000..100_000_000_000_000_000 => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, NaiveDate, TimeZone, Utc};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_rfc3339_refuses() {
        for text in [
            "",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00+0100",
            "2026-01-01T00:00:00+01",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-01-32T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:61Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00Zx",
            "2026-01-01T00:00:00+24:00",
            "26-01-01T00:00:00Z",
            "+2026-01-01T00:00:00Z",
            "2026-01-01T00:00:0éZ",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
        assert_eq!(rfc3339("2024-02-29T00:00:00Z").map(day_of), Some(19782));
        assert_eq!(rfc3339("2016-12-31T23:59:60Z"), rfc3339("2017-01-01T00:00:00Z"));
        assert_eq!(rfc3339("2026-01-01t00:00:00.1234567z"), rfc3339("2026-01-01 00:00:00.123456Z"));
    }

    #[test]
    fn days_survive_the_ends_of_time() {
        assert_eq!(rfc3339("0000-01-01T00:00:00+23:59").map(day_of), Some(-719_529));
        assert_eq!(rfc3339("9999-12-31T23:59:59-23:59").map(day_of), Some(2_932_897));
        assert_eq!(day_of(-1), -1);
        assert!(day_of(i64::MIN) < 0 && day_of(i64::MAX) > 0);
        for number in ["99999999999999999", "-99999999999999999", "9e16", "-1", "-1.5"] {
            epoch(number).map(day_of).unwrap();
        }
        for number in ["100000000000000000", "1e17", "1e999", "-9223372036854775808", "99999999999999999999"] {
            assert_eq!(epoch(number), None, "{number}");
        }
    }

    #[test]
    fn epoch_units_are_told_apart_by_magnitude() {
        let expected = rfc3339("2026-01-02T03:04:05.25Z");
        for number in ["1767323045.25", "1767323045250", "1767323045250000", "1.76732304525e9", "1767323045250.0"] {
            assert_eq!(epoch(number), expected, "{number}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_chrono(
            day in 0i32..3_652_000, second in 0u32..86_400, nanos in 0u32..1_000_000_000, offset in -1_439i32..1_440,
        ) {
            let date = NaiveDate::from_ymd_opt(0, 1, 2).unwrap() + chrono::Days::new(day as u64);
            let offset = chrono::FixedOffset::east_opt(offset * 60).unwrap();
            let time = date.and_time(chrono::NaiveTime::from_num_seconds_from_midnight_opt(second, nanos).unwrap());
            let local: DateTime<chrono::FixedOffset> = offset.from_local_datetime(&time).unwrap();
            let text = local.to_rfc3339();
            prop_assert_eq!(rfc3339(&text), Some(local.with_timezone(&Utc).timestamp_micros()), "{}", text);
        }
    }
}
