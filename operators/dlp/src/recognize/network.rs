//! IPv4 and IPv6 addresses, parsed by the standard library.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    context::{Before, Words},
    number::Number,
};
use crate::finding::{Finding, Kind};

const VERSION: Words = Words::new(&[
    "version",
    "^ver$",
    "^v$",
    "release",
    "^build$",
    "firmware",
    "^rev$",
    "section$",
    "chapter$",
    "upgrade",
    "patch$",
    "kapitel",
    "^oid$",
    "driver$",
    "clause",
    "abschnitt",
    "sdk$",
]);

/// Four groups with dots between them.
pub(crate) fn ipv4(text: &[u8], number: &Number, findings: &mut Vec<Finding>) {
    let groups = number.groups();
    let Some(from) = groups
        .windows(4)
        .position(|four| four[1..].iter().all(|g| g.separator == b'.') && four.iter().all(|g| g.len() <= 3))
    else {
        return;
    };
    let five = groups.get(from + 4).is_some_and(|g| g.separator == b'.') || from > 0 && groups[from].separator == b'.';
    let (start, end) = (groups[from].start, groups[from + 3].end);
    let part = std::str::from_utf8(&text[start..end]).unwrap_or_default();
    if five || part.parse::<Ipv4Addr>().is_err() {
        return;
    }
    let before = |n: usize| start.checked_sub(n).map(|at| text[at]);
    let after = |n: usize| text.get(end + n).copied();
    // `name/1.2.3.4`, `name-1.2.3.4`, `1.2.3.4-rc1` and `1.2.3.4.jar` are versions.
    let letter = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphabetic());
    let named = matches!(before(1), Some(b'/' | b'-')) && before(2).is_some_and(|b| b.is_ascii_alphanumeric());
    let suffixed = matches!(after(0), Some(b'-' | b'+' | b'.')) && letter(after(1));
    let touched =
        matches!(before(1), Some(b'.')) || after(0) == Some(b'.') && after(1).is_some_and(|b| b.is_ascii_digit());
    if named || suffixed || touched || Before::new(text, start).mentions(&VERSION, 14) {
        return;
    }
    findings.push(Finding::new(Kind::Ipv4, "ip.v4", start, end, 0.95));
}

/// The address around the colon at `at`; gives back where it ends.
pub(crate) fn ipv6(text: &[u8], at: usize, findings: &mut Vec<Finding>) -> usize {
    let part = |b: u8| b.is_ascii_hexdigit() || b == b':' || b == b'.';
    // Longest: eight groups of four and seven colons, or with an IPv4 tail.
    let floor = at.saturating_sub(6);
    let mut start = at;
    while start > floor && part(text[start - 1]) && text[start - 1] != b'.' {
        start -= 1;
    }
    let mut end = at + 1;
    while end < text.len() && end - start < 46 && part(text[end]) {
        end += 1;
    }
    let whole = end;
    while end > start && text[end - 1] == b'.' || text[start..end].ends_with(b":") && !text[start..end].ends_with(b"::")
    {
        end -= 1;
    }
    let free = |b: Option<&u8>| b.is_none_or(|b| !b.is_ascii_alphanumeric() && !matches!(b, b'_' | b'.' | b':'));
    let colons = text[start..end].iter().filter(|b| **b == b':').count();
    let digits = text[start..end].iter().filter(|b| b.is_ascii_hexdigit()).count();
    let open = start == 0 || free(text.get(start - 1));
    // `::` alone, or a scope operator as in `Ab::new`, is no address.
    if colons >= 2 && digits >= 1 && open && !text.get(end).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_') {
        let candidate = std::str::from_utf8(&text[start..end]).unwrap_or_default();
        let has_digit = candidate.bytes().any(|b| b.is_ascii_digit());
        if has_digit && candidate.parse::<Ipv6Addr>().is_ok() {
            findings.push(Finding::new(Kind::Ipv6, "ip.v6", start, end, 0.97));
        }
    }
    whole
}
