//! Decides about findings in one row and writes what takes their place.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    finding::{Finding, Kind},
    keys::KeyRing,
    path::Pattern,
    policy::{Action, Table},
    scanner::Scanner,
};

/// Most times a text is looked at again after something in it was replaced.
const MAX_ROUNDS: usize = 4;

/// A rule that did something: its id, what was done.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fired<'r> {
    /// Rule id, such as `email.address` or `field:payload.customer.email`.
    pub rule: &'r str,
    /// What was done.
    pub action: Action,
}

/// A field rule, ready to be used.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub pattern: Pattern,
    pub rule: String,
    pub action: Action,
    pub kind: Option<Kind>,
}

/// What decides about one row.
#[derive(Clone, Copy)]
pub(crate) struct Judge<'r, 't> {
    pub table: &'r Table,
    pub tenant: &'t str,
    pub keys: Option<&'r KeyRing>,
    /// Rule ids, with commas between them, that may not quarantine this row.
    pub waived: Option<&'t str>,
}

/// What became of a piece of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect<'r> {
    Same,
    Changed,
    /// The field must go.
    Dropped,
    /// The row must go.
    Quarantined(&'r str),
}

impl<'r> Judge<'r, '_> {
    /// What is done by a rule that asks for `action`.
    pub fn action(&self, rule: &str, action: Action) -> Action {
        match action {
            Action::Quarantine if self.waived.is_some_and(|list| list.split(',').any(|w| w.trim() == rule)) => {
                Action::Allow
            }
            Action::Tokenize if self.keys.is_none() => Action::Mask,
            action => action,
        }
    }

    /// Appends what takes a value's place.
    pub fn replace(&self, kind: Option<Kind>, action: Action, value: &str, out: &mut String) {
        let token = match (action, self.keys) {
            (Action::Tokenize, Some(keys)) => {
                keys.token(self.tenant, kind.map_or("value", Kind::name), &normalized(kind, value))
            }
            _ => None,
        };
        match token {
            Some(token) => out.push_str(&token),
            None => out.push_str(kind.map_or("[masked:value]", Kind::mask)),
        }
    }

    /// Appends `text` with its findings replaced. `findings` are in order and within the text once
    /// `offset` is taken off.
    pub fn pieces(
        &self,
        text: &str,
        findings: &[Finding],
        offset: usize,
        out: &mut String,
        fired: &mut Vec<Fired<'r>>,
    ) -> Effect<'r> {
        let before = out.len();
        let mut at = 0;
        let mut effect = Effect::Same;
        for finding in findings {
            let start = finding.start.saturating_sub(offset).clamp(at, text.len());
            let end = (finding.end - offset).clamp(start, text.len());
            let action = self.action(finding.rule, self.table[finding.kind.index()]);
            fired.push(Fired { rule: finding.rule, action });
            match action {
                Action::Allow => continue,
                Action::Drop => {
                    out.truncate(before);
                    return Effect::Dropped;
                }
                Action::Quarantine => return Effect::Quarantined(finding.rule),
                Action::Mask | Action::Tokenize => {
                    out.push_str(&text[at..start]);
                    self.replace(Some(finding.kind), action, &text[start..end], out);
                    at = end;
                    effect = Effect::Changed;
                }
            }
        }
        out.push_str(&text[at..]);
        effect
    }

    /// Plain text with everything replaced, looked at again until nothing more is found: what stood
    /// beside a finding may be one without it. `None` if it stays as it is.
    pub fn text(&self, text: &str, fired: &mut Vec<Fired<'r>>) -> (Option<String>, Effect<'r>) {
        let mut current: Option<String> = None;
        let mut findings = Vec::new();
        let mut repeats = Vec::new();
        for round in 0..MAX_ROUNDS {
            let source = current.as_deref().unwrap_or(text);
            Scanner::new().scan_into(source, &mut findings);
            if findings.is_empty() {
                break;
            }
            let mut out = String::with_capacity(source.len());
            // What is allowed was counted in the first round.
            let count = if round == 0 { &mut *fired } else { &mut repeats };
            match self.pieces(source, &findings, 0, &mut out, count) {
                Effect::Same => break,
                Effect::Changed => current = Some(out),
                ended => return (None, ended),
            }
            fired.extend(repeats.drain(..).filter(|f| f.action != Action::Allow));
        }
        let effect = if current.is_some() { Effect::Changed } else { Effect::Same };
        (current, effect)
    }
}

/// The form of a value that tokens are made of, so that one address has one token however written.
pub(crate) fn normalized(kind: Option<Kind>, value: &str) -> String {
    let digits = || value.chars().filter(char::is_ascii_digit).collect::<String>();
    match kind {
        Some(Kind::Email) => value.to_lowercase(),
        Some(Kind::Phone) if value.trim_start().starts_with(['+', '(']) || !value.starts_with("00") => digits(),
        Some(Kind::Phone) => digits().trim_start_matches('0').to_owned(),
        Some(Kind::CreditCard | Kind::UsSsn) => digits(),
        Some(Kind::Iban) => value.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_uppercase(),
        Some(Kind::Ipv4) => value.parse::<Ipv4Addr>().map_or_else(|_| value.to_owned(), |ip| ip.to_string()),
        Some(Kind::Ipv6) => value.parse::<Ipv6Addr>().map_or_else(|_| value.to_owned(), |ip| ip.to_string()),
        _ => value.to_owned(),
    }
}
