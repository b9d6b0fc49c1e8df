//! United States social security numbers, by the rules of their area, group and serial.

use super::{
    context::{Before, Words},
    number::Number,
};
use crate::finding::{Finding, Kind};

const SSN: Words =
    Words::new(&["^ssn", "_ssn", "ssn", "social sec", "socialsec", "social_sec", "soc sec", "tax id", "taxpayer"]);
const OTHER: Words = Words::new(&[
    "^order", "invoice", "ticket", "^sku", "^part$", "serial", "tracking", "^ref$", "batch", "^isbn", "catalog",
]);

pub(crate) fn find(text: &[u8], number: &Number, findings: &mut Vec<Finding>) {
    let groups = number.groups();
    for from in 0..groups.len() {
        let lengths = |n: usize| groups.get(from + n).map(|g| (g.len(), g.separator));
        let (to, confidence) = match (groups[from].len(), lengths(1), lengths(2)) {
            (3, Some((2, b'-')), Some((4, b'-'))) if alone(text, number, from, 2) => (from + 2, 0.9),
            (3, Some((2, b' ')), Some((4, b' '))) if alone(text, number, from, 2) => (from + 2, 0.7),
            (9, _, _) if alone(text, number, from, 0) => (from, 0.0),
            _ => continue,
        };
        if !assigned(number.digits(from, to)) {
            continue;
        }
        let before = Before::new(text, groups[from].start);
        let named = before.mentions(&SSN, 48);
        let (rule, confidence) = match confidence {
            _ if named => ("us_ssn.context", 0.97),
            sure if sure > 0.0 && !before.mentions(&OTHER, 24) => ("us_ssn.format", sure),
            _ => continue,
        };
        findings.push(Finding::new(Kind::UsSsn, rule, groups[from].start, groups[to].end, confidence));
        return;
    }
}

/// Whether the groups are not in the middle of a longer run with the same separator.
fn alone(text: &[u8], number: &Number, from: usize, more: usize) -> bool {
    let groups = number.groups();
    let separator = if more == 0 { b'-' } else { groups[from + 1].separator };
    let before = from == 0 || groups[from].separator != separator;
    let after = groups.get(from + more + 1).is_none_or(|g| g.separator != separator);
    let edge =
        |at: Option<usize>| at.and_then(|at| text.get(at)).is_none_or(|b| !matches!(b, b'-' | b'.' | b'/' | b'+'));
    let start = edge(groups[from].start.checked_sub(1));
    let end = groups[from + more].end;
    let next = text.get(end + 1).is_some_and(|b| b.is_ascii_alphanumeric());
    before && after && start && (edge(Some(end)) || !next)
}

/// Area, group and serial that the Social Security Administration may have assigned.
fn assigned(digits: &[u8]) -> bool {
    let value = |range: std::ops::Range<usize>| digits[range].iter().fold(0u32, |n, d| n * 10 + u32::from(*d));
    let area = value(0..3);
    area != 0 && area != 666 && area < 900 && value(3..5) != 0 && value(5..9) != 0
}
