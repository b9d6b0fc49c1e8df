//! Credentials that say by their form whose they are: cloud and SaaS keys, JSON web tokens, PEM.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::finding::{Finding, Kind};

/// A provider's format: prefixes, then `least` to `most` bytes of an alphabet.
pub(crate) struct Format {
    pub rule: &'static str,
    pub prefixes: &'static [&'static str],
    least: usize,
    most: usize,
    alphabet: fn(u8) -> bool,
    /// Whether the prefix belongs to the finding; it does not where it only names the value.
    whole: bool,
}

fn upper(b: u8) -> bool {
    b.is_ascii_uppercase() || b.is_ascii_digit()
}
fn word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}
fn url(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')
}
fn dotted(b: u8) -> bool {
    url(b) || b == b'.'
}
fn base64(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=')
}
fn path(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'/'
}

const fn format(
    rule: &'static str,
    prefixes: &'static [&'static str],
    lengths: (usize, usize),
    alphabet: fn(u8) -> bool,
) -> Format {
    Format { rule, prefixes, least: lengths.0, most: lengths.1, alphabet, whole: true }
}

/// The formats, from the providers' own documentation of their secret scanning partners' patterns.
pub(crate) const FORMATS: &[Format] = &[
    format("key.aws_access_key_id", &["AKIA", "ASIA"], (16, 16), upper),
    format("key.gcp_api", &["AIza"], (35, 35), url),
    format("key.google_oauth_secret", &["GOCSPX-"], (24, 40), url),
    format("key.github", &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"], (36, 255), word),
    format("key.github_pat", &["github_pat_"], (50, 255), word),
    format("key.gitlab", &["glpat-"], (20, 64), url),
    format("key.slack", &["xoxb-", "xoxp-", "xoxa-", "xoxs-", "xoxr-", "xapp-"], (20, 200), url),
    format("key.slack_webhook", &["hooks.slack.com/services/"], (30, 100), path),
    format("key.stripe", &["sk_live_", "rk_live_", "sk_test_", "rk_test_"], (16, 120), word),
    format("key.stripe_webhook", &["whsec_"], (24, 80), word),
    Format { whole: false, ..format("key.azure_storage", &["AccountKey="], (40, 100), base64) },
    Format { whole: false, ..format("key.azure_shared_access", &["SharedAccessKey="], (40, 100), base64) },
    format("key.sendgrid", &["SG."], (60, 80), dotted),
    format("key.npm", &["npm_"], (36, 36), word),
    format("key.pypi", &["pypi-AgE"], (50, 250), url),
    format("key.digitalocean", &["dop_v1_"], (64, 64), word),
    format("key.hugging_face", &["hf_"], (30, 40), word),
    format("key.shopify", &["shpat_", "shpss_"], (32, 32), word),
    format("key.llm", &["sk-proj-", "sk-ant-"], (24, 220), url),
];

/// A key with the prefix at `start..end`.
pub(crate) fn find(text: &[u8], format: usize, start: usize, end: usize, findings: &mut Vec<Finding>) {
    let format = &FORMATS[format];
    let begins = start == 0 || !text[start - 1].is_ascii_alphanumeric() || !format.whole || format.least == 30;
    if !begins {
        return;
    }
    let length = text[end..].iter().take(format.most + 1).take_while(|b| (format.alphabet)(**b)).count();
    let body = &text[end..end + length];
    let length = length - body.iter().rev().take_while(|b| matches!(b, b'.' | b'-')).count();
    let body = &text[end..end + length];
    // Placeholders such as AKIAXXXXXXXXXXXXXXXX.
    let varied = body.iter().any(|b| *b != body[0]);
    if (format.least..=format.most).contains(&length) && varied {
        let from = if format.whole { start } else { end };
        findings.push(Finding::new(Kind::CloudKey, format.rule, from, end + length, 0.99));
    }
}

/// A JSON web token whose header begins at `start`: three parts, of which the first decodes to an
/// object with an algorithm (RFC 7515).
pub(crate) fn jwt(text: &[u8], start: usize, findings: &mut Vec<Finding>) {
    if start > 0 && (url(text[start - 1]) || text[start - 1] == b'.') {
        return;
    }
    let part = |from: usize| from + text[from.min(text.len())..].iter().take_while(|b| url(**b)).count();
    let header_end = part(start);
    let payload_end = part(header_end + 1);
    if text.get(header_end) != Some(&b'.') || text.get(payload_end) != Some(&b'.') || payload_end <= header_end + 1 {
        return;
    }
    let end = part(payload_end + 1).min(text.len());
    let Some(header) = text.get(start..header_end).filter(|h| h.len() <= 4096) else { return };
    let Ok(header) = BASE64_URL_SAFE_NO_PAD.decode(header) else { return };
    let has_algorithm = memchr::memmem::find(&header, b"\"alg\"").is_some();
    if has_algorithm && serde_json::from_slice::<serde::de::IgnoredAny>(&header).is_ok() {
        findings.push(Finding::new(Kind::Jwt, "jwt.header", start, end, 0.99));
    }
}

/// A private key in PEM (RFC 7468) from its first line to its last, or as far as it goes.
pub(crate) fn pem(text: &[u8], start: usize, after: usize, findings: &mut Vec<Finding>) {
    let label_length = text[after..]
        .iter()
        .take(48)
        .take_while(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || **b == b' ')
        .count();
    let label = &text[after..after + label_length];
    let head = after + label_length;
    let private = label.ends_with(b"PRIVATE KEY") || label.ends_with(b"PRIVATE KEY BLOCK");
    if !private || !text[head..].starts_with(b"-----") {
        return;
    }
    let mut end = head + 5;
    let last = memchr::memmem::find(&text[end..], b"-----END");
    end = match last.filter(|at| *at < 16 << 10) {
        Some(at) => {
            let tail = end + at + 8;
            match memchr::memmem::find(&text[tail..], b"-----").filter(|at| *at < 64) {
                Some(dashes) => tail + dashes + 5,
                None => tail,
            }
        }
        None => end + text[end..].iter().take_while(|b| base64(**b) || b.is_ascii_whitespace()).count(),
    };
    while text[end - 1].is_ascii_whitespace() {
        end -= 1;
    }
    findings.push(Finding::new(Kind::PrivateKey, "pem.private_key", start, end, 0.99));
}
