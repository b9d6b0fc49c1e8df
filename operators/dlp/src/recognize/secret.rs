//! Secrets that only their context gives away: `password=…`, `"apiKey": "…"`, "the token is …".
//!
//! A value that is assigned to a word for a secret needs little more; a word among prose must look
//! random.

use super::{
    entropy::{self, Mix, is_random},
    keyword::Sense,
};
use crate::finding::{Finding, Kind};

/// How far a random word may be from the word that calls it a secret, in bytes.
const REACH: usize = 72;
/// Longest value taken for a secret, in bytes.
const LONGEST: usize = 512;

/// Looks around a word for a secret of which `start..end` is a part.
pub(crate) fn find(text: &[u8], sense: Sense, start: usize, end: usize, findings: &mut Vec<Finding>) {
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let mut word_end = end;
    while word_end < text.len() && word_end - end < 32 && inner(&text[word_end]) {
        word_end += 1;
    }
    let mut word_start = start;
    while word_start > 0 && start - word_start < 48 && inner(&text[word_start - 1]) {
        word_start -= 1;
    }
    let name = &text[word_start..word_end];
    // `[masked:secret]` and tokens of ours.
    if text[..word_start].ends_with(b"[masked:") && text.get(word_end) == Some(&b']') || is_ours(name) {
        return;
    }
    let sense = if sense == Sense::Authorization && text[..end].ends_with(b" ") { None } else { Some(sense) };
    match sense {
        // "Bearer " is followed by the credential itself.
        None => bearer(text, end, findings),
        Some(sense) => {
            if let Some(value) = assigned(text, word_end) {
                if names_value(name, sense) {
                    return take(text, name, sense, value, findings);
                }
                return;
            }
            if sense != Sense::Authorization {
                prose(text, word_start, word_end, sense, findings);
            }
        }
    }
}

fn bearer(text: &[u8], from: usize, findings: &mut Vec<Finding>) {
    let length = text[from..].iter().take(LONGEST).take_while(|b| in_value(**b)).count();
    let word = trimmed(text, from, from + length);
    if word.1 - word.0 >= 16 && Mix::of(&text[word.0..word.1]).digits > 0 {
        findings.push(Finding::new(Kind::Secret, "secret.bearer", word.0, word.1, 0.9));
    }
}

/// A value that follows `=`, `:` or the like.
#[derive(Clone, Copy)]
struct Value {
    start: usize,
    end: usize,
    quoted: bool,
}

/// The value assigned to the word that ends at `at`.
fn assigned(text: &[u8], at: usize) -> Option<Value> {
    let mut at = at;
    let skip = |at: &mut usize, most: usize, of: &[u8]| {
        let from = *at;
        while *at < text.len() && *at - from < most && of.contains(&text[*at]) {
            *at += 1;
        }
        *at > from
    };
    skip(&mut at, 2, b"\"'`]");
    skip(&mut at, 3, b" \t");
    if !skip(&mut at, 3, b"=:>") {
        return None;
    }
    skip(&mut at, 4, b" \t");
    let quote = text.get(at).copied().filter(|b| matches!(b, b'"' | b'\'' | b'`'));
    if let Some(quote) = quote {
        let start = at + 1;
        let length = memchr::memchr3(quote, b'\\', b'\n', &text[start..])?;
        return (length > 0 && length <= 8 * LONGEST).then_some(Value { start, end: start + length, quoted: true });
    }
    let length = text[at..].iter().take(LONGEST).take_while(|b| in_value(**b)).count();
    let (start, end) = trimmed(text, at, at + length);
    (end > start).then_some(Value { start, end, quoted: false })
}

/// Whether a key of this name holds the secret itself, unlike `token_count` or `passwordChangedAt`.
fn names_value(name: &[u8], sense: Sense) -> bool {
    let mut folded = [0u8; 96];
    let mut length = 0;
    for byte in name.iter().filter(|b| b.is_ascii_alphanumeric()).take(96) {
        folded[length] = byte.to_ascii_lowercase();
        length += 1;
    }
    while length > 0 && folded[length - 1].is_ascii_digit() {
        length -= 1;
    }
    let name = &folded[..length];
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending.as_bytes()));
    match sense {
        Sense::Password => {
            ends(&["password", "passwd", "passwort", "pwd", "passphrase", "hash", "passw", "wachtwoord"])
                || ends(&["contrase", "passe", "senha", "hasło", "word"])
        }
        Sense::Secret => {
            ends(&["secret", "key", "credential", "credentials", "value", "token"]) && !ends(&["publickey"])
        }
        Sense::Token => ends(&["token"]),
        Sense::Authorization => true,
    }
}

fn take(text: &[u8], name: &[u8], sense: Sense, value: Value, findings: &mut Vec<Finding>) {
    let word = &text[value.start..value.end];
    if is_placeholder(word) {
        return;
    }
    let mix = Mix::of(word);
    // Letters alone are random too if both cases mix in something long.
    let letters = word.len() >= 12 && mix.upper > 1 && mix.lower > 1 && entropy::bits(word) >= 3.2;
    let numbered = mix.classes() >= 2 && (mix.digits > 0 || letters);
    let secret = match sense {
        Sense::Password if value.quoted => true,
        Sense::Password => word.len() >= 6 && (numbered || mix.classes() >= 2 && mix.symbols > 0),
        _ if word.contains(&b' ') => false,
        Sense::Secret => word.len() >= 8 && numbered && entropy::bits(word) >= 2.5,
        Sense::Token => {
            let hex = mix.hex && mix.lower + mix.upper > 0;
            word.len() >= 12 && !entropy::is_uuid(word) && (is_random(word) || hex)
        }
        Sense::Authorization => return authorization(text, value, findings),
    };
    if !secret {
        return;
    }
    let aws =
        word.len() == 40 && mix.symbols <= 6 && memchr::memmem::find(&name.to_ascii_lowercase(), b"access").is_some();
    let (kind, rule) = if aws { (Kind::CloudKey, "key.aws_secret") } else { (Kind::Secret, "secret.assigned") };
    findings.push(Finding::new(kind, rule, value.start, value.end, 0.9));
}

/// `Authorization: Basic dXNlcjpwYXNz`.
fn authorization(text: &[u8], value: Value, findings: &mut Vec<Finding>) {
    let rest = &text[value.start..];
    let Some(scheme) =
        [&b"Basic "[..], b"basic ", b"token ", b"Token ", b"ApiKey "].into_iter().find(|s| rest.starts_with(s))
    else {
        return;
    };
    let start = value.start + scheme.len();
    let length = text[start..].iter().take(LONGEST).take_while(|b| in_value(**b)).count();
    if length >= 8 && !is_placeholder(&text[start..start + length]) {
        findings.push(Finding::new(Kind::Secret, "secret.authorization", start, start + length, 0.9));
    }
}

/// Random words near a word for a secret, on the same line and in the same string.
fn prose(text: &[u8], word_start: usize, word_end: usize, sense: Sense, findings: &mut Vec<Finding>) {
    let stop = |b: &u8| matches!(b, b'"' | b'\n' | b'\\' | b'{' | b'}');
    let ahead = &text[word_end..text.len().min(word_end + REACH)];
    let reach = ahead.iter().position(stop).unwrap_or(ahead.len());
    if words(text, word_end, word_end + reach, sense, findings) {
        return;
    }
    let behind = &text[word_start.saturating_sub(REACH)..word_start];
    let from = behind.iter().rposition(stop).map_or(0, |at| at + 1);
    words(text, word_start - behind.len() + from, word_start, sense, findings);
}

/// The first random word that begins in `from..to`.
fn words(text: &[u8], from: usize, to: usize, sense: Sense, findings: &mut Vec<Finding>) -> bool {
    let mut at = from;
    // A word cut by the window's beginning is not whole.
    if at > 0 && in_value(text[at - 1]) {
        at += text[at..to].iter().take_while(|b| in_value(**b)).count();
    }
    while at < to {
        if !in_value(text[at]) {
            at += 1;
            continue;
        }
        let end = at + text[at..].iter().take(LONGEST).take_while(|b| in_value(**b)).count();
        let (start, stop) = trimmed(text, at, end);
        let word = &text[start..stop.max(start)];
        let uuid = entropy::is_uuid(word);
        let dotted = memchr::memmem::find(word, b"://").is_some()
            || word.starts_with(b"/")
            || word.contains(&b'@') && word.contains(&b'.');
        let sentence = word.contains(&b'=') && !word.ends_with(b"=");
        if word.len() < 257 && !uuid && !dotted && !sentence && is_random(word) && !is_placeholder(word) {
            let confidence = if sense == Sense::Token { 0.75 } else { 0.8 };
            findings.push(Finding::new(Kind::Secret, "secret.near", start, stop, confidence));
            return true;
        }
        at = end.max(at + 1);
    }
    false
}

fn in_value(byte: u8) -> bool {
    byte.is_ascii_graphic()
        && !matches!(
            byte,
            b'"' | b'\'' | b'`' | b'<' | b'>' | b'(' | b')' | b'[' | b']' | b'{' | b'}' | b',' | b';' | b'\\' | b'|'
        )
}

/// A word without the punctuation of its sentence.
fn trimmed(text: &[u8], start: usize, end: usize) -> (usize, usize) {
    let mut end = end.min(text.len());
    while end > start && matches!(text[end - 1], b'.' | b':' | b'?' | b'!') {
        end -= 1;
    }
    (start, end)
}

/// Whether a redaction wrote this word.
fn is_ours(word: &[u8]) -> bool {
    let plain = |inner: &[u8]| inner.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'_');
    let masked = word.strip_prefix(b"[masked:").and_then(|rest| rest.strip_suffix(b"]"));
    masked.is_some_and(plain) || word.len() >= 40 && word.starts_with(b"tok_") && plain(word)
}

/// Values that stand for a secret and are none.
fn is_placeholder(word: &[u8]) -> bool {
    const WORDS: [&[u8]; 13] = [
        b"null",
        b"none",
        b"true",
        b"false",
        b"undefined",
        b"redacted",
        b"masked",
        b"required",
        b"empty",
        b"changeme",
        b"nil",
        b"n/a",
        b"hidden",
    ];
    let same = word.iter().all(|b| *b == word[0]);
    let bare = word.trim_ascii();
    bare.is_empty()
        || same
        || WORDS.iter().any(|w| bare.eq_ignore_ascii_case(w))
        || is_ours(word)
        || word.starts_with(b"${")
        || word.starts_with(b"{{")
        || word.starts_with(b"[REDACTED")
        || bare.iter().all(|b| matches!(b, b'*' | b'.' | b'x' | b'X' | b'\xe2' | b'\x80' | b'\xa2'))
}
