//! Telephone numbers: international ones by country code and length, national ones by how they are
//! written or by the words in front of them.
//!
//! Own code, not the `phonenumber` crate: that one judges a string that is known to be a number and
//! needs the region for a national one, compiles regular expressions from its metadata as it goes, and
//! refuses numbers in ranges that are not assigned, which still are what somebody typed as theirs.

use super::{
    context::{Before, Words, is_word},
    number::Number,
};
use crate::finding::{Finding, Kind};

const CALL: Words = Words::new(&[
    "phone",
    "^tel",
    "^mob",
    "mobile",
    "^cell",
    "^fax",
    "^call",
    "whatsapp",
    "^sms",
    "^dial",
    "^ring",
    "^text ",
    "hotline",
    "telefon",
    "handy",
    "^rufnummer",
    "^anruf",
    "^erreich",
    "telefono",
    "telefone",
    "^celular",
    "^llam",
    "^movil",
    "portable",
    "appele",
    "^chiama",
    "msisdn",
    "^contact",
    "^reach",
    "^bel ",
    "^ligue",
    "voicemail",
]);
const OTHER: Words = Words::new(&[
    "^order",
    "invoice",
    "ticket",
    "^id$",
    "^ref$",
    "^case$",
    "^sku",
    "^isbn",
    "^part$",
    "serial",
    "tracking",
    "account",
    "version",
    "build",
    "commit",
    "^batch",
    "^item$",
    "article",
    "bestell",
    "pedido",
    "commande",
    "rechnung",
    "factura",
    "facture",
    "^port$",
    "^pid$",
    "offset",
    "timestamp",
    "_id",
    "^no.",
    "^nr.",
    "^po ",
    "^doi",
    "^price$",
    "^total",
    "amount",
]);

/// The telephone number that begins with the number's first groups, if there is one.
pub(crate) fn find(text: &[u8], number: &Number, findings: &mut Vec<Finding>) {
    if number.total() < 7 || number.is_date() {
        return;
    }
    let groups = number.groups();
    let first = groups[0].start;
    let plus = plus_before(text, first);
    let Some((from, to, start, rule, confidence)) = (match plus {
        Some(start) => international(number, 0).map(|to| (0, to, start, "phone.e164", 0.95)),
        None => (0..groups.len().min(3)).find_map(|from| national(text, number, from)),
    }) else {
        return;
    };
    let digits = number.digits(from, to);
    if digits.iter().all(|d| *d == digits[0]) {
        return;
    }
    let end = extension(text, groups[to].end);
    if !is_word(text.get(end)) {
        findings.push(Finding::new(Kind::Phone, rule, start, end, confidence));
    }
}

/// Where a `+` in front of the first digit stands.
fn plus_before(text: &[u8], first: usize) -> Option<usize> {
    let back = |n: usize| first.checked_sub(n).map(|at| text[at]);
    let start = match (back(2), back(1)) {
        (_, Some(b'+')) => first - 1,
        (Some(b'+'), Some(b'(' | b' ')) => first - 2,
        _ => return None,
    };
    (start == 0 || !text[start - 1].is_ascii_alphanumeric()).then_some(start)
}

/// The last group of an E.164 number that begins at group `from`.
fn international(number: &Number, from: usize) -> Option<usize> {
    let groups = number.groups();
    let code_length = country_code(number.digits(from, groups.len() - 1))?;
    (from..groups.len()).rev().find(|to| {
        let digits = number.digits(from, *to);
        let length = match digits[0] {
            1 => digits.len() == 11 && digits[1] >= 2,
            // ITU-T E.164: fifteen at most; nobody has fewer than six behind the country code.
            _ => (code_length + 6..=15).contains(&digits.len()),
        };
        length && groups[from + 1..=*to].iter().all(|g| g.len() <= 11 && g.separator != b'/' || g.len() >= 3)
    })
}

type Match = (usize, usize, usize, &'static str, f32);

fn national(text: &[u8], number: &Number, from: usize) -> Option<Match> {
    let groups = number.groups();
    let start = groups[from].start;
    if from == 0
        && start > 0
        && matches!(text[start - 1], b'.' | b'$' | b'/' | b'#' | b'=' | b'-')
        && text[start - 1] != b'='
    {
        return None;
    }
    let before = Before::new(text, start);
    let other = || before.mentions(&OTHER, 16) && !before.mentions(&CALL, 16);
    let open = start > 0 && text[start - 1] == b'(';
    let outer = if open { start - 1 } else { start };
    let shape = |n: usize| groups.get(from + n).map(|g| (g.len(), g.separator));
    let last = groups.len() - 1;

    // North America: (AAA) EEE-SSSS, AAA-EEE-SSSS, AAA.EEE.SSSS, with or without a leading 1.
    let trunk = usize::from(groups[from].len() == 1 && number.digits(from, from) == [1] && last >= from + 3);
    let area = from + trunk;
    if let (3, Some((3, s1)), Some((4, s2))) = (groups[area].len(), shape(trunk + 1).filter(|_| true), shape(trunk + 2))
    {
        let digits = number.digits(area, area + 2);
        let valid = digits[0] >= 2 && digits[3] >= 2;
        let closed = open || trunk == 1 && groups[area].separator == b'*' || s1 == b'*';
        let even = closed || s1 == s2 || s1 == b'/' || s2 == b'-';
        let ends = groups.get(area + 3).is_none_or(|g| g.separator != s2 || s2 == b' ');
        if digits[0] >= 2 && even && ends {
            let confidence = match (valid, closed || s1 == b'-' || s1 == b'.') {
                (true, true) => Some(0.9),
                (true, false) => Some(0.75),
                (false, _) if s1 == b'-' || closed => Some(0.7),
                _ => before.mentions(&CALL, 40).then_some(0.7),
            };
            return confidence.filter(|_| !other()).map(|c| (from, area + 2, outer, "phone.nanp", c));
        }
    }

    // 00 and a country code.
    let whole = number.digits(from, last);
    if whole.starts_with(&[0, 0])
        && last > from
        && whole.len() >= 11
        && whole.len() <= 17
        && country_code(&whole[2..]).is_some()
    {
        return (!other()).then_some((from, last, outer, "phone.00", 0.85));
    }

    // National numbers with a trunk zero: 030 12345678, (089) 1234-567, 06 12 34 56 78, 020 7946 0958.
    let to = (from..=last).rev().find(|to| (9..=12).contains(&number.digits(from, *to).len()));
    if let Some(to) = to.filter(|to| *to > from && whole[0] == 0 && whole[1] != 0) {
        let shaped = groups[from..=to].iter().all(|g| g.len() >= 2 && g.len() <= 8)
            && groups[from].len() <= 5
            && groups[from + 1..=to].iter().all(|g| g.separator != b'.' || g.len() == 2)
            && to - from <= 4;
        let ends = to == last || groups[to + 1].separator != groups[to].separator;
        if shaped && ends && !other() {
            return Some((from, to, outer, "phone.trunk", if before.mentions(&CALL, 40) { 0.9 } else { 0.7 }));
        }
    }

    // Anything of a number's length that the words in front call one.
    let epoch = groups[from].len() >= 10 && whole[0] == 1 && matches!(groups[from].len(), 10 | 13 | 16);
    let to = (from..=last).rev().find(|to| (7..=15).contains(&number.digits(from, *to).len()))?;
    let dotted = groups[from + 1..=to].iter().any(|g| g.separator == b'.' && g.len() < 2);
    let decimal = to == from + 1 && groups[to].separator == b'.';
    if epoch || dotted || decimal || from > 0 && groups[from].separator != b' ' || other() {
        return None;
    }
    before.mentions(&CALL, 40).then_some((from, to, outer, "phone.context", 0.7))
}

/// Where an extension such as ` x123` or ` ext. 12` ends; `end` if there is none.
fn extension(text: &[u8], end: usize) -> usize {
    let mut at = end;
    while text.get(at) == Some(&b' ') && at < end + 2 {
        at += 1;
    }
    let rest = &text[at..];
    let mark = [&b"extension"[..], b"ext.", b"ext", b"x"]
        .into_iter()
        .find(|mark| rest.get(..mark.len()).is_some_and(|head| head.eq_ignore_ascii_case(mark)));
    let Some(mark) = mark else { return end };
    at += mark.len();
    while matches!(text.get(at), Some(b' ' | b':')) && at < end + 14 {
        at += 1;
    }
    let digits = text[at..].iter().take_while(|b| b.is_ascii_digit()).count();
    if (1..=6).contains(&digits) { at + digits } else { end }
}

/// Length of the country code (ITU-T E.164 list of assigned codes); none if it is nobody's.
fn country_code(digits: &[u8]) -> Option<usize> {
    let value = |n: usize| digits.get(..n).map(|d| d.iter().fold(0u32, |n, d| n * 10 + u32::from(*d)));
    if matches!(value(1)?, 1 | 7) {
        return Some(1);
    }
    if matches!(
        value(2)?,
        20 | 27 | 30..=34 | 36 | 39 | 40 | 41 | 43..=49 | 51..=58 | 60..=66 | 81 | 82 | 84 | 86 | 90..=95 | 98
    ) {
        return Some(2);
    }
    matches!(
        value(3)?,
        211..=213 | 216 | 218 | 220..=269 | 290 | 291 | 297..=299 | 350..=359 | 370..=389 | 420 | 421 | 423 | 500..=509
            | 590..=599 | 670..=692 | 800 | 808 | 850 | 852 | 853 | 855 | 856 | 870 | 878 | 880..=883 | 886 | 888
            | 960..=968 | 970..=979 | 992..=996 | 998
    )
    .then_some(3)
}
