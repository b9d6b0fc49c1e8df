//! Payment cards: issuer range, length, grouping and the Luhn digit.
//!
//! Own code: the crates there are (card-validate, luhn) want a trimmed number in a String and compile
//! regular expressions for the issuers; the check is eight lines.

use super::{
    context::{Before, Words},
    number::Number,
};
use crate::finding::{Finding, Kind};

const CARD: Words = Words::new(&["card", "visa", "^amex", "karte", "tarjeta", "carte", "^pan", "kreditk", "maestro"]);

/// The surest card among the groups of a number.
pub(crate) fn find(text: &[u8], number: &Number, findings: &mut Vec<Finding>) {
    let groups = number.groups();
    let mut from = 0;
    while from < groups.len() {
        match (from..groups.len()).rev().find_map(|to| card(text, number, from, to).map(|sure| (to, sure))) {
            Some((to, confidence)) => {
                let (start, end) = (groups[from].start, groups[to].end);
                findings.push(Finding::new(Kind::CreditCard, "card.luhn", start, end, confidence));
                from = to + 1;
            }
            None => from += 1,
        }
    }
}

fn card(text: &[u8], number: &Number, from: usize, to: usize) -> Option<f32> {
    let digits = number.digits(from, to);
    if !(12..=19).contains(&digits.len()) {
        return None;
    }
    let groups = &number.groups()[from..=to];
    let grouped = groups.len() > 1;
    if grouped {
        let separator = groups[1].separator;
        let even = matches!(separator, b' ' | b'-') && groups[1..].iter().all(|g| g.separator == separator);
        let lengths: Vec<usize> = groups.iter().map(|g| g.len()).collect();
        let usual = matches!(lengths[..], [4, 6, 5] | [4, 6, 4] | [4, 4, 4, 4] | [4, 4, 4, 4, 3] | [4, 4, 4, 2]);
        if !even || !usual {
            return None;
        }
    }
    let sure = issued(digits)?;
    if !luhn(digits) || digits.iter().all(|d| *d == digits[0]) {
        return None;
    }
    // A part of a decimal fraction or of a longer dotted number is no card.
    if groups[0].start > 0 && text[groups[0].start - 1] == b'.' && from == 0 {
        return None;
    }
    // Lengths that few cards have but many article numbers and ids.
    let rare = !sure || matches!(digits.len(), 12 | 13 | 17..=19);
    if rare && !grouped && !Before::new(text, groups[0].start).mentions(&CARD, 48) {
        return None;
    }
    Some(if rare { 0.8 } else { 0.98 })
}

/// Whether an issuer has the range and the length, and whether the range is a common one.
/// Ranges: ISO/IEC 7812 as the networks publish them.
fn issued(digits: &[u8]) -> Option<bool> {
    let prefix = |n: usize| digits[..n].iter().fold(0u32, |value, d| value * 10 + u32::from(*d));
    let (two, three, four, six) = (prefix(2), prefix(3), prefix(4), prefix(6));
    let length = digits.len();
    let common = match length {
        13 | 19 => digits[0] == 4,
        14 => matches!(three, 300..=305) || four == 3095 || matches!(two, 36 | 38 | 39),
        15 => matches!(two, 34 | 37),
        16 => {
            digits[0] == 4
                || matches!(two, 51..=55 | 65)
                || matches!(four, 2221..=2720 | 6011 | 3528..=3589)
                || matches!(three, 644..=649)
                || matches!(six, 622126..=622925)
        }
        _ => false,
    };
    let fair = (16..=19).contains(&length)
        && (matches!(two, 62 | 81 | 36 | 60 | 65) || matches!(four, 3528..=3589 | 2200..=2204))
        || matches!(two, 50 | 56..=58)
        || matches!(four, 6304 | 6759 | 6761..=6763 | 5018 | 5020 | 5038 | 5893);
    (common || fair).then_some(common)
}

/// ISO/IEC 7812-1 annex B.
fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, d)| match u32::from(*d) << (i & 1) {
            double if double > 9 => double - 9,
            single => single,
        })
        .sum();
    sum.is_multiple_of(10)
}
