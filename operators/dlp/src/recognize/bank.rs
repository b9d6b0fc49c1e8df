//! International bank account numbers.
//!
//! Checksum and national structure are the `iban_validate` crate's; here is how long each country's
//! number is, so that the words after it are not taken for a part of it.

use super::context::is_word;
use crate::finding::{Finding, Kind};

/// Country and length in characters, from the SWIFT IBAN registry, release 99.
const LENGTHS: &[(&[u8; 2], u8)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

/// Looks for a number whose two letters and two digits begin at `start`.
pub(crate) fn find(text: &[u8], start: usize, findings: &mut Vec<Finding>) {
    let Some(head) = text.get(start..start + 2) else { return };
    let country = [head[0].to_ascii_uppercase(), head[1].to_ascii_uppercase()];
    let Ok(known) = LENGTHS.binary_search_by(|(code, _)| (**code).cmp(&country)) else { return };
    let length = usize::from(LENGTHS[known].1);
    let mut compact = [0u8; 34];
    let mut taken = 0;
    let mut at = start;
    let mut gap = false;
    while taken < length {
        match text.get(at) {
            Some(b) if b.is_ascii_alphanumeric() => {
                compact[taken] = b.to_ascii_uppercase();
                taken += 1;
                gap = false;
            }
            Some(b' ' | b'-' | b'.') if !gap => gap = true,
            _ => return,
        }
        at += 1;
    }
    if is_word(text.get(at)) {
        return;
    }
    let Ok(compact) = std::str::from_utf8(&compact[..length]) else { return };
    let confidence = match compact.parse::<iban::Iban>() {
        Ok(_) => 0.99,
        // The checksum holds; the national structure may be newer than the crate's registry.
        Err(iban::ParseIbanError::InvalidBban(_) | iban::ParseIbanError::UnknownCountry(_)) => 0.9,
        Err(_) => return,
    };
    findings.push(Finding::new(Kind::Iban, "iban.mod97", start, at, confidence));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_sorted() {
        assert!(LENGTHS.is_sorted_by(|a, b| a.0 < b.0));
    }
}
