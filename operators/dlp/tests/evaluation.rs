//! Precision and recall on a labelled set that is generated here: templates × values × contexts, hard
//! negatives included. The values are made by arithmetic and from parts, not by the scanner's rules.
//!
//! A finding counts as right if its kind is the label's and the two overlap by at least half of the
//! longer one.

#![allow(clippy::unwrap_used, reason = "the generator is a part of the test")]

use std::{collections::BTreeMap, fmt::Write, ops::Range};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use companyos_dlp::{Kind, Scanner};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const PER_KIND: usize = 400;
const NEGATIVES: usize = 2_400;

/// Sentences around a value, in seven languages and as logs, forms and JSON.
const AROUND: &[&str] = &[
    "Please check {} before Friday.",
    "we got this from the customer: {}",
    "{} was in the export, please remove it",
    "Bitte prüfen Sie {} bis Freitag.",
    "Der Kunde nannte {}, danke.",
    "Merci de vérifier {} avant vendredi.",
    "Por favor revise {} antes del viernes.",
    "Per favore controlla {} entro venerdì.",
    "Por favor, confira {} até sexta.",
    "Controleer {} voor vrijdag.",
    "2026-03-04T10:11:12Z INFO handler=signup value={} status=200",
    "{\"note\":\"{}\",\"count\":3}",
    "[{}]",
    "row 17;{};ok",
    "({})",
    "お客様の情報 {} を確認してください",
];
const PHONE_AROUND: &[&str] = &[
    "Call me at {} after six.",
    "Phone: {}",
    "my mobile is {}",
    "Tel. {} (Büro)",
    "Rufen Sie mich unter {} an, mein Handy ist an.",
    "Mon téléphone : {}.",
    "Mi teléfono es {}, gracias",
    "{\"phone\":\"{}\"}",
    "We tried {} twice.",
    "contact {} for access",
];
const SECRET_AROUND: &[&str] = &[
    "password={}",
    "the api key is {}",
    "secret: {}",
    "{\"client_secret\":\"{}\"}",
    "export API_TOKEN={}",
    "Use this token for staging: {}",
    "api_key = '{}'",
    "Das Passwort lautet {}",
    "Authorization: Bearer {}",
    "la contraseña es {}",
];

struct Sample {
    text: String,
    label: Option<(Kind, Range<usize>)>,
}

struct Maker(StdRng);

impl Maker {
    fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }
    fn of<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items[self.below(items.len())]
    }
    fn digits(&mut self, n: usize) -> String {
        (0..n).map(|_| char::from(b'0' + self.below(10) as u8)).collect()
    }
    fn chars(&mut self, n: usize, alphabet: &str) -> String {
        (0..n).map(|_| char::from(alphabet.as_bytes()[self.below(alphabet.len())])).collect()
    }
    fn between(&mut self, from: usize, to: usize) -> usize {
        self.0.random_range(from..=to)
    }
    fn around(&mut self, value: &str, templates: &[&str], kind: Option<Kind>) -> Sample {
        let template = self.of(templates);
        let at = template.find("{}").unwrap();
        let text = format!("{}{value}{}", &template[..at], &template[at + 2..]);
        Sample { text, label: kind.map(|kind| (kind, at..at + value.len())) }
    }

    fn email(&mut self) -> String {
        let name =
            self.of(&["ann", "j.smith", "maria_garcia", "info", "o'neil", "x-9", "jörg", "first.last+tag", "user1234"]);
        let host = self.of(&[
            "example.com",
            "mail.example.co.uk",
            "firma.de",
            "uni-ulm.de",
            "a.io",
            "corp.internal.net",
            "müller.de",
        ]);
        let n = self.below(1000);
        if self.below(2) == 0 { format!("{name}@{host}") } else { format!("{name}{n}@{host}") }
    }
    /// The digit that makes the sum of ISO/IEC 7812 right, found by trying.
    fn with_luhn(body: &str) -> String {
        (0..10)
            .map(|d| format!("{body}{d}"))
            .find(|number| {
                let mut sum = 0;
                for (place, c) in number.chars().rev().enumerate() {
                    let d = c.to_digit(10).unwrap();
                    sum += if place % 2 == 1 { [0, 2, 4, 6, 8, 1, 3, 5, 7, 9][d as usize] } else { d };
                }
                sum % 10 == 0
            })
            .unwrap()
    }
    fn card(&mut self) -> String {
        let (prefix, length, groups): (&str, usize, &[usize]) = match self.below(7) {
            0 | 1 => ("4", 16, &[4, 4, 4, 4]),
            2 => (["51", "53", "55"][self.below(3)], 16, &[4, 4, 4, 4]),
            3 => ("2345", 16, &[4, 4, 4, 4]),
            4 => (["34", "37"][self.below(2)], 15, &[4, 6, 5]),
            5 => ("6011", 16, &[4, 4, 4, 4]),
            _ => ("3566", 16, &[4, 4, 4, 4]),
        };
        let body = format!("{prefix}{}", self.digits(length - 1 - prefix.len()));
        let number = Self::with_luhn(&body);
        let separator = self.of(&["", " ", "-"]);
        let mut at = 0;
        let parts: Vec<&str> = groups
            .iter()
            .map(|n| {
                at += n;
                &number[at - n..at]
            })
            .collect();
        parts.join(separator)
    }
    fn iban(&mut self) -> String {
        let country = self.below(6);
        let (code, bban) = match country {
            0 => ("DE", self.digits(18)),
            1 => ("GB", format!("NWBK{}", self.digits(14))),
            2 => ("NL", format!("ABNA{}", self.digits(10))),
            3 => ("AT", self.digits(16)),
            4 => ("CH", self.digits(17)),
            _ => ("PL", self.digits(24)),
        };
        let remainder = |text: &str| {
            let mut value = 0u64;
            for c in text.chars() {
                let d = u64::from(c.to_digit(36).unwrap());
                value = (if d > 9 { value * 100 } else { value * 10 } + d) % 97;
            }
            value
        };
        let check = 98 - remainder(&format!("{bban}{code}00"));
        let plain = format!("{code}{check:02}{bban}");
        match self.below(3) {
            0 => plain,
            1 => plain.to_lowercase(),
            _ => plain.as_bytes().chunks(4).map(|c| std::str::from_utf8(c).unwrap()).collect::<Vec<_>>().join(" "),
        }
    }
    fn ssn(&mut self) -> String {
        let mut area = self.between(1, 899);
        area += usize::from(area == 666);
        format!("{area:03}-{:02}-{:04}", self.between(1, 99), self.between(1, 9999))
    }
    fn ipv4(&mut self) -> String {
        let mut octet = || self.0.random_range(1..255u8);
        format!("{}.{}.{}.{}", octet(), octet(), octet(), octet())
    }
    fn ipv6(&mut self) -> String {
        let groups: [u16; 8] = std::array::from_fn(|i| {
            if (2..5).contains(&i) && self.below(2) == 0 { 0 } else { self.0.random_range(1..=0xffff) }
        });
        let [a, b, c, d, e, f, g, h] = groups;
        std::net::Ipv6Addr::new(0x2001, a & 0xfff | 0xdb8, b, c, d, e ^ f, g, h).to_string()
    }
    fn jwt(&mut self) -> String {
        let algorithm = self.of(&["HS256", "RS256", "ES256"]);
        let header = format!(r#"{{"alg":"{algorithm}","typ":"JWT"}}"#);
        let claims = format!(r#"{{"sub":"{}","iat":17{}}}"#, self.digits(6), self.digits(8));
        let signature: Vec<u8> = (0..32).map(|_| self.below(256) as u8).collect();
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        format!("{}.{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()), encode(&signature))
    }
    fn cloud_key(&mut self) -> String {
        const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        match self.below(6) {
            0 => format!("{}{}", ["AKIA", "ASIA"][self.below(2)], self.chars(16, UPPER)),
            1 => format!("AIza{}", self.chars(35, ALNUM)),
            2 => format!("ghp_{}", self.chars(36, ALNUM)),
            3 => format!("xoxb-{}-{}-{}", self.digits(12), self.digits(12), self.chars(24, ALNUM)),
            4 => format!("sk_live_{}", self.chars(24, ALNUM)),
            _ => format!("glpat-{}", self.chars(20, ALNUM)),
        }
    }
    fn private_key(&mut self) -> String {
        let name = self.of(&["RSA PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY"]);
        let body = self.chars(64, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
        format!("-----BEGIN {name}-----\n{body}\n-----END {name}-----")
    }
    fn secret(&mut self) -> String {
        let length = self.between(16, 40);
        self.chars(length, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
    }
    fn phone(&mut self) -> String {
        let (a, e, s) = (self.between(201, 989), self.between(200, 999), self.digits(4));
        match self.below(8) {
            0 => format!("({a}) {e}-{s}"),
            1 => format!("{a}-{e}-{s}"),
            2 => format!("+1 {a} {e} {s}"),
            3 => format!("+49 30 {}", self.digits(8)),
            4 => format!("+44 20 7{} {}", self.digits(3), self.digits(4)),
            5 => format!("+33 6 {} {} {} {}", self.digits(2), self.digits(2), self.digits(2), self.digits(2)),
            6 => format!("+34{}", 600_000_000 + self.below(99_999_999)),
            _ => format!("0{}/{}", self.between(30, 89), self.between(1_000_000, 99_999_999)),
        }
    }

    /// What looks like one of the kinds and is none.
    fn negative(&mut self) -> String {
        let hex = "0123456789abcdef";
        match self.below(18) {
            0 => {
                let good = Self::with_luhn(&format!("4{}", self.digits(14)));
                let last = good[15..].parse::<u32>().unwrap();
                format!("order {}{}", &good[..15], (last + 1 + self.below(9) as u32) % 10)
            }
            1 => format!("version {}.{}.{}.{}", self.below(20), self.below(30), self.below(99), self.below(200)),
            2 => format!("commit {}", self.chars(40, hex)),
            3 => format!(
                "{}-{}-4{}-a{}-{}",
                self.chars(8, hex),
                self.chars(4, hex),
                self.chars(3, hex),
                self.chars(3, hex),
                self.chars(12, hex)
            ),
            4 => format!(
                "2026-0{}-1{} 1{}:2{}:30.{}",
                self.between(1, 9),
                self.below(9),
                self.below(9),
                self.below(9),
                self.digits(6)
            ),
            5 => format!("17{}", self.digits(11)),
            6 => format!("ISBN 978-3-16-{}-{}", self.digits(6), self.below(10)),
            7 => format!("ticket {}-{}-{}", self.digits(3), self.digits(3), self.digits(4)),
            8 => format!("thanks @{} and @team", self.of(&["ann", "bob", "dev_ops", "jane.d"])),
            9 => format!(
                "data:image/png;base64,iVBORw0KGgo{}",
                self.chars(120, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
            ),
            10 => format!("left-pad@{}.{}.{}", self.below(9), self.below(20), self.below(30)),
            11 => format!("nginx/{}.{}.{}.{}", self.below(9), self.below(20), self.below(30), self.below(9)),
            12 => format!("9{}-{}-{}", self.digits(2), self.digits(2), self.digits(4)),
            13 => format!("DE{}{}", self.between(41, 96), "370400440532013009"),
            14 => format!(
                "{}:{}:{} {}:{}",
                self.between(10, 23),
                self.between(10, 59),
                self.between(10, 59),
                self.below(99),
                self.below(99)
            ),
            15 => format!("the token count was {} of {}", self.digits(5), self.digits(6)),
            16 => format!("invoice INV-2026-{} total {}.{}", self.digits(6), self.digits(4), self.digits(2)),
            _ => format!("mac {}", (0..6).map(|_| self.chars(2, hex)).collect::<Vec<_>>().join(":")),
        }
    }
}

fn corpus() -> Vec<Sample> {
    let mut maker = Maker(StdRng::seed_from_u64(20_261_124));
    let mut samples = Vec::new();
    for kind in Kind::ALL {
        for _ in 0..PER_KIND {
            let value = match kind {
                Kind::Email => maker.email(),
                Kind::Phone => maker.phone(),
                Kind::CreditCard => maker.card(),
                Kind::Iban => maker.iban(),
                Kind::UsSsn => maker.ssn(),
                Kind::Ipv4 => maker.ipv4(),
                Kind::Ipv6 => maker.ipv6(),
                Kind::Jwt => maker.jwt(),
                Kind::CloudKey => maker.cloud_key(),
                Kind::PrivateKey => maker.private_key(),
                Kind::Secret => maker.secret(),
            };
            let templates = match kind {
                Kind::Phone => PHONE_AROUND,
                Kind::Secret => SECRET_AROUND,
                _ => AROUND,
            };
            samples.push(maker.around(&value, templates, Some(kind)));
        }
    }
    for _ in 0..NEGATIVES {
        let value = maker.negative();
        samples.push(maker.around(&value, AROUND, None));
    }
    samples
}

#[derive(Default)]
struct Score {
    labels: usize,
    right: usize,
    found: usize,
}

#[test]
fn precision_and_recall() {
    let samples = corpus();
    assert!(samples.len() >= 5_000);
    let mut scores: BTreeMap<Kind, Score> = BTreeMap::new();
    let mut misses = String::new();
    for sample in &samples {
        let found = Scanner::new().scan(&sample.text);
        if let Some((kind, range)) = &sample.label {
            scores.entry(*kind).or_default().labels += 1;
            if !found.iter().any(|f| f.kind == *kind && f.start < range.end && f.end > range.start) {
                let _ = writeln!(misses, "missed {kind}: {}", sample.text);
            }
        }
        let mut taken = false;
        for finding in &found {
            let score = scores.entry(finding.kind).or_default();
            score.found += 1;
            let right = sample.label.as_ref().is_some_and(|(kind, range)| {
                let both = range.end.min(finding.end).saturating_sub(range.start.max(finding.start));
                *kind == finding.kind && 2 * both >= range.len().max(finding.end - finding.start)
            });
            if right && !taken {
                score.right += 1;
                taken = true;
            } else {
                let _ = writeln!(misses, "wrong {} by {}: {}", finding.kind, finding.rule, sample.text);
            }
        }
    }
    let mut table = format!("{:<12} {:>9} {:>9} {:>8}\n", "type", "sentences", "precision", "recall");
    for (kind, score) in &scores {
        let precision = score.right as f64 / score.found.max(1) as f64;
        let recall = score.right as f64 / score.labels.max(1) as f64;
        let _ = writeln!(table, "{:<12} {:>9} {precision:>9.3} {recall:>8.3}", kind.name(), score.labels);
        assert!(precision >= 0.95 && recall >= 0.95, "{kind}: {precision:.3} {recall:.3}\n{misses}");
    }
    println!("{table}\n{misses}");
    insta::assert_snapshot!("precision_and_recall", table);
}
