//! E-mail addresses, and passwords in URLs, which have an `@` too.

use super::context::{Before, Words};
use crate::finding::{Finding, Kind};

const MAIL: Words = Words::new(&["mail", "correo", "^contact"]);
/// Endings that are file types, as in `logo@2x.png`.
const FILES: &[&str] = &[
    "png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "ts", "json", "html", "pdf", "zip", "tgz", "gz", "tar",
    "map",
];

/// Looks at the `@` at byte `at`.
pub(crate) fn find(text: &str, at: usize, findings: &mut Vec<Finding>) {
    if let Some(password) = url_password(text.as_bytes(), at) {
        findings.push(password);
        return;
    }
    let before = &text[..at];
    let mut start = at;
    for c in before.chars().rev() {
        if !local(c) || at - start >= 64 {
            break;
        }
        start -= c.len_utf8();
    }
    let name = before[start..].trim_start_matches(['.', '-', '\'', '%', '&', '~']);
    start = at - name.len();
    if name.is_empty() || name.ends_with('.') || name.contains("..") {
        return;
    }
    let after = &text[at + 1..];
    let length = after
        .char_indices()
        .find(|(i, c)| *i > 253 || !(latin(*c) || matches!(c, '.' | '-')))
        .map_or(after.len(), |(i, _)| i);
    let domain = after[..length].trim_end_matches(['.', '-']);
    let end = at + 1 + domain.len();
    let labels = domain.split('.').all(|l| !l.is_empty() && l.len() <= 63 && !l.starts_with('-') && !l.ends_with('-'));
    if !labels || text[end..].starts_with(['@', '_']) && !text[end..].starts_with("__") {
        return;
    }
    let confidence = match domain.rsplit_once('.') {
        Some((_, top)) => {
            let named = top.len() >= 2 && top.chars().all(char::is_alphabetic) || top.starts_with("xn--");
            let file = FILES.iter().any(|file| top.eq_ignore_ascii_case(file));
            // `git@host:path` is where a repository lies.
            let remote = name == "git" && text[end..].starts_with([':', '/']);
            if !named || file || remote {
                return;
            }
            0.97
        }
        None if Before::new(text.as_bytes(), start).mentions(&MAIL, 24) && domain.len() > 1 => 0.6,
        None => return,
    };
    findings.push(Finding::new(Kind::Email, "email.address", start, end, confidence));
}

fn latin(c: char) -> bool {
    c.is_ascii_alphanumeric() || ('\u{c0}'..'\u{530}').contains(&c) && c.is_alphabetic()
}

fn local(c: char) -> bool {
    latin(c) || matches!(c, '.' | '_' | '%' | '+' | '-' | '\'' | '&' | '~')
}

/// The password of `scheme://user:password@host`.
fn url_password(text: &[u8], at: usize) -> Option<Finding> {
    let floor = at.saturating_sub(160);
    let window = &text[floor..at];
    let scheme = memchr::memmem::rfind(window, b"://")?;
    let credentials = &window[scheme + 3..];
    let colon = memchr::memchr(b':', credentials)?;
    let password = &credentials[colon + 1..];
    let plain = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'/' | b'"' | b'\'' | b'<' | b'>' | b'`');
    let placeholder =
        password.iter().all(|b| *b == b'*') || password.starts_with(b"${") || password.starts_with(b"[masked");
    if password.is_empty() || placeholder || !credentials.iter().all(plain) {
        return None;
    }
    Some(Finding::new(Kind::Secret, "secret.url_password", at - password.len(), at, 0.98))
}
