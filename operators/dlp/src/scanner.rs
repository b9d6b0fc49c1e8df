//! The scanner: anchors and keywords first, exact recognizers where they point.

use std::sync::LazyLock;

use crate::{
    anchors::{self, Anchor},
    finding::{Finding, settle},
    recognize::{
        bank, card, email,
        keyword::{Keyword, Keywords},
        network,
        number::Number,
        phone, provider, secret, ssn,
    },
};

/// Shortest text in which a keyword can matter, in bytes.
const SHORTEST_SECRET: usize = 8;

static KEYWORDS: LazyLock<Keywords> = LazyLock::new(Keywords::new);

/// Finds person data and secrets in text. Free to create and to share.
///
/// ```
/// let findings = companyos_dlp::Scanner::new().scan("write to ann@example.com");
/// assert_eq!((findings[0].kind.name(), findings[0].start, findings[0].end), ("email", 9, 24));
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Scanner {
    _private: (),
}

impl Scanner {
    /// A scanner.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything found, in the order of the text and without overlaps.
    pub fn scan(&self, text: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        self.scan_into(text, &mut findings);
        findings
    }

    /// Puts everything found into `findings`, which it clears first. Allocates only for what it finds.
    #[inline]
    pub fn scan_into(&self, text: &str, findings: &mut Vec<Finding>) {
        findings.clear();
        let bytes = text.as_bytes();
        let mut colons_from = 0;
        anchors::each(bytes, |anchor, at| match anchor {
            Anchor::Number => {
                let (next, number) = Number::read(bytes, at);
                if let Some(number) = number {
                    look_at_number(bytes, &number, findings);
                }
                next
            }
            Anchor::At => {
                email::find(text, at, findings);
                0
            }
            Anchor::Colon => {
                // A quote after it is the end of a JSON key, a slash a URL's scheme.
                if at >= colons_from && bytes.get(at + 1).is_some_and(|b| b.is_ascii_hexdigit() || *b == b':') {
                    colons_from = network::ipv6(bytes, at, findings);
                }
                0
            }
            Anchor::LettersDigits => {
                bank::find(bytes, at - 3, findings);
                0
            }
        });
        if bytes.len() >= SHORTEST_SECRET {
            KEYWORDS.each(bytes, |keyword, start, end| match keyword {
                Keyword::Provider(format) => provider::find(bytes, format, start, end, findings),
                Keyword::Jwt => provider::jwt(bytes, start, findings),
                Keyword::Pem => provider::pem(bytes, start, end, findings),
                Keyword::Context(sense) => secret::find(bytes, sense, start, end, findings),
            });
        }
        settle(findings);
    }
}

#[inline(never)]
fn look_at_number(text: &[u8], number: &Number, findings: &mut Vec<Finding>) {
    if number.groups().len() >= 4 {
        network::ipv4(text, number, findings);
    }
    let total = number.total();
    if total < 7 {
        return;
    }
    if total >= 9 {
        ssn::find(text, number, findings);
    }
    if total >= 12 {
        card::find(text, number, findings);
    }
    phone::find(text, number, findings);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in a text, as `kind=text`.
    fn found(text: &str) -> Vec<String> {
        Scanner::new().scan(text).iter().map(|f| format!("{}={}", f.kind, &text[f.start..f.end])).collect()
    }

    #[test]
    fn finds_each_kind_where_it_stands() {
        for (text, expected) in [
            ("mail Jörg.Müller+x@sub.example.co.uk.", "email=Jörg.Müller+x@sub.example.co.uk"),
            ("call +49 (0)30 123456-78 today", "phone=+49 (0)30 123456-78"),
            ("at (415) 555-2671 x12, thanks", "phone=(415) 555-2671 x12"),
            ("Tel.: 030/12345678", "phone=030/12345678"),
            ("au 06 12 34 56 78 svp", "phone=06 12 34 56 78"),
            ("card 4111 1111 1111 1111 12/27", "credit_card=4111 1111 1111 1111"),
            ("amex 378282246310005,", "credit_card=378282246310005"),
            ("to DE89 3704 0044 0532 0130 00 and more", "iban=DE89 3704 0044 0532 0130 00"),
            ("iban gb29nwbk60161331926819", "iban=gb29nwbk60161331926819"),
            ("ssn 536-90-4399", "us_ssn=536-90-4399"),
            ("social security number 536904399", "us_ssn=536904399"),
            ("from 203.0.113.9:8080", "ipv4=203.0.113.9"),
            ("peer [2001:db8::8a2e:370:7334]:443", "ipv6=2001:db8::8a2e:370:7334"),
            ("at ::1.", "ipv6=::1"),
            (
                "x eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl y",
                "jwt=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
            ),
            ("id ASIA5FLZVX4OI4ZDQJOL used", "cloud_key=ASIA5FLZVX4OI4ZDQJOL"),
            (
                "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                "cloud_key=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            ),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- x",
                "private_key=-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
            ),
            (r#"{"userPassword": "hunter2 and so on"}"#, "secret=hunter2 and so on"),
            ("PASSWORD=Tr0ub4dor&3", "secret=Tr0ub4dor&3"),
            ("the api key for staging is q8Zk2LmX0pWv7RtY", "secret=q8Zk2LmX0pWv7RtY"),
            ("postgres://app:s3cr3t@db.internal/x", "secret=s3cr3t"),
        ] {
            assert_eq!(found(text), [expected], "{text}");
        }
    }

    #[test]
    fn leaves_what_only_looks_like_it() {
        for text in [
            "order 4111 1111 1111 1112",
            "on 2024-05-01 12:30:45.123456 and 01.02.2024",
            "version 1.2.3.4 and nginx/1.2.3.4, lib-1.2.3.4.jar, 10.0.19041.1",
            "a1b2c3d4e5f60718293a4b5c6d7e8f9001122334 550e8400-e29b-41d4-a716-446655440000",
            "ISBN 978-3-16-148410-0",
            "hi @ann, see logo@2x.png and left-pad@1.3.0",
            "git@github.com:org/repo.git",
            r#"{"token_count": 51234, "passwordChangedAt": "2024-05-01", "ts": 1714557045123}"#,
            "password is required",
            "666-12-3456 and 900-12-3456",
            "00:1b:44:11:3a:b7 std::vec::Vec 12:30:45",
            "-----BEGIN PUBLIC KEY-----",
            "[masked:phone] 12345678 tok_phone_1_0123456789abcdef0123456789abcdef 12345678",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
    }
}
