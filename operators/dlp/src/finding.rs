//! What a scan reports: the kinds of data, the rules that recognize them, and where they stand.

use serde::{Deserialize, Serialize};

/// What a finding is. The text form is stable: policies, tokens and reports use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An e-mail address.
    Email,
    /// A telephone number.
    Phone,
    /// A payment card number.
    CreditCard,
    /// An international bank account number.
    Iban,
    /// A United States social security number.
    UsSsn,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
    /// A JSON web token.
    Jwt,
    /// A cloud or SaaS provider's credential.
    CloudKey,
    /// A private key in PEM.
    PrivateKey,
    /// A password, token or other random string that its context calls a secret.
    Secret,
}

impl Kind {
    /// Every kind, in the order reports use.
    pub const ALL: [Kind; 11] = [
        Kind::Email,
        Kind::Phone,
        Kind::CreditCard,
        Kind::Iban,
        Kind::UsSsn,
        Kind::Ipv4,
        Kind::Ipv6,
        Kind::Jwt,
        Kind::CloudKey,
        Kind::PrivateKey,
        Kind::Secret,
    ];

    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Email => "email",
            Kind::Phone => "phone",
            Kind::CreditCard => "credit_card",
            Kind::Iban => "iban",
            Kind::UsSsn => "us_ssn",
            Kind::Ipv4 => "ipv4",
            Kind::Ipv6 => "ipv6",
            Kind::Jwt => "jwt",
            Kind::CloudKey => "cloud_key",
            Kind::PrivateKey => "private_key",
            Kind::Secret => "secret",
        }
    }

    /// Position in [`Kind::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// What stands in place of a masked value. No recognizer finds anything in it.
    pub const fn mask(self) -> &'static str {
        match self {
            Kind::Email => "[masked:email]",
            Kind::Phone => "[masked:phone]",
            Kind::CreditCard => "[masked:credit_card]",
            Kind::Iban => "[masked:iban]",
            Kind::UsSsn => "[masked:us_ssn]",
            Kind::Ipv4 => "[masked:ipv4]",
            Kind::Ipv6 => "[masked:ipv6]",
            Kind::Jwt => "[masked:jwt]",
            Kind::CloudKey => "[masked:cloud_key]",
            Kind::PrivateKey => "[masked:private_key]",
            Kind::Secret => "[masked:secret]",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// One recognized stretch of text. It does not hold the text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// The rule that recognized it, such as `card.luhn`.
    pub rule: &'static str,
    /// First byte.
    pub start: usize,
    /// Byte after the last.
    pub end: usize,
    /// How sure the rule is, 0 to 1.
    pub confidence: f32,
}

impl Finding {
    pub(crate) const fn new(kind: Kind, rule: &'static str, start: usize, end: usize, confidence: f32) -> Self {
        Self { kind, rule, start, end, confidence }
    }
}

/// Leaves the surest of overlapping findings, in the order of the text.
pub(crate) fn settle(findings: &mut Vec<Finding>) {
    if findings.len() < 2 {
        return;
    }
    findings.sort_by_key(|f| f.start);
    if findings.is_sorted_by(|a, b| a.end <= b.start) {
        return;
    }
    let mut by_rank = std::mem::take(findings);
    by_rank.sort_by(|a, b| b.confidence.total_cmp(&a.confidence).then((b.end - b.start).cmp(&(a.end - a.start))));
    for finding in by_rank {
        let at = findings.partition_point(|kept| kept.start < finding.start);
        let free_before = at == 0 || findings[at - 1].end <= finding.start;
        let free_after = findings.get(at).is_none_or(|next| finding.end <= next.start);
        if free_before && free_after {
            findings.insert(at, finding);
        }
    }
}
