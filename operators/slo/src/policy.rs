//! When to alert: the rules of a policy, and the default ones.

use std::str::FromStr;

use serde::Serialize;

/// How a value is compared with a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Below.
    Lt,
    /// Not above.
    Lte,
    /// Above.
    Gt,
    /// Not below.
    Gte,
}

impl Op {
    /// Whether a value is so.
    pub fn holds(self, value: f64, bound: f64) -> bool {
        match self {
            Self::Lt => value < bound,
            Self::Lte => value <= bound,
            Self::Gt => value > bound,
            Self::Gte => value >= bound,
        }
    }

    /// As OpenSLO has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::Gt => "gt",
            Self::Gte => "gte",
        }
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Lt, Self::Lte, Self::Gt, Self::Gte]
            .into_iter()
            .find(|op| op.name() == text)
            .ok_or_else(|| format!("{text:?} is not one of lte, gte, lt, gt"))
    }
}

/// How urgent an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Wakes someone.
    Page,
    /// Waits for the working day.
    Ticket,
}

impl Severity {
    /// `page` or `ticket`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Ticket => "ticket",
        }
    }
}

/// A multi-window burn-rate condition: true while the burn rate compares with the threshold as asked
/// over both windows.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Policy it belongs to.
    pub policy: String,
    /// Its name.
    pub condition: String,
    /// How urgent it is.
    pub severity: Severity,
    /// How the burn rate must compare with the threshold.
    pub op: Op,
    /// Burn rate it is compared with.
    pub threshold: f64,
    /// Long window, minutes.
    pub long: i64,
    /// Short window, minutes.
    pub short: i64,
    /// Seconds the condition must hold before it fires.
    pub pending_for: i64,
    /// Seconds the short window must not be so before it is over.
    pub resolve_after: i64,
    /// Whether firing is notified.
    pub notify_firing: bool,
    /// Whether the end is notified.
    pub notify_resolved: bool,
}

/// Between the parts of keys and ids: in no name.
pub(crate) const SEPARATOR: char = '\u{1f}';

impl Rule {
    /// Policy and condition: the same as long as both keep their names.
    pub(crate) fn id(&self) -> String {
        format!("{}{SEPARATOR}{}", self.policy, self.condition)
    }
}

/// Name of the policy that holds where an SLO has none of its own.
pub const DEFAULT_POLICY: &str = "sre-workbook";

/// Table 5-8 of the Google SRE workbook ("Alerting on SLOs"), and its ticket at 3× over a day.
pub fn default_rules() -> Vec<Rule> {
    let table = [
        ("page-14.4x-1h-5m", Severity::Page, 14.4, 60, 5),
        ("page-6x-6h-30m", Severity::Page, 6.0, 360, 30),
        ("ticket-3x-24h-2h", Severity::Ticket, 3.0, 1440, 120),
        ("ticket-1x-3d-6h", Severity::Ticket, 1.0, 4320, 360),
    ];
    table
        .into_iter()
        .map(|(condition, severity, threshold, long, short)| Rule {
            policy: DEFAULT_POLICY.to_owned(),
            condition: condition.to_owned(),
            severity,
            threshold,
            op: Op::Gt,
            long,
            short,
            pending_for: 60,
            resolve_after: 300,
            notify_firing: true,
            notify_resolved: true,
        })
        .collect()
}
