//! What findings are not sent for: allow-lists that expire, suppression windows, repeats per entity.

use std::time::Duration;

use chrono::{DateTime, Utc};
use glob::Pattern;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Finding, detectors::ChangeWindow};

/// A glob over ids, tenants or entities; letter case matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Pattern);

impl Glob {
    /// Whether it matches the whole text.
    pub fn matches(&self, text: &str) -> bool {
        self.0.matches(text)
    }
}

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Pattern::new(&text).map(Glob).map_err(|e| serde::de::Error::custom(format!("pattern {text:?}: {e}")))
    }
}

impl Serialize for Glob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

/// Which findings an exception is about: all of the lists given must match, each by any of its
/// patterns; a list left out matches everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Matcher {
    /// Rule ids.
    pub rules: Vec<Glob>,
    /// Tenants.
    pub tenants: Vec<Glob>,
    /// Environments.
    pub envs: Vec<Glob>,
    /// Entities.
    pub entities: Vec<Glob>,
}

impl Matcher {
    fn matches(&self, finding: &Finding) -> bool {
        let any = |globs: &[Glob], text: &str| globs.is_empty() || globs.iter().any(|g| g.matches(text));
        any(&self.rules, &finding.rule_id)
            && any(&self.tenants, &finding.tenant)
            && any(&self.envs, &finding.env)
            && any(&self.entities, &finding.entity)
    }
}

/// Something known and accepted, until it is to be looked at again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    /// Which findings.
    #[serde(rename = "match")]
    pub matcher: Matcher,
    /// Events from then on are no longer allowed. There is no allowing for ever.
    pub until: DateTime<Utc>,
    /// Why, for those who find it later.
    pub reason: String,
}

/// A time in which findings are recorded but not sent, such as maintenance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suppression {
    /// Which findings.
    #[serde(rename = "match", default)]
    pub matcher: Matcher,
    /// From then on.
    #[serde(default)]
    pub from: Option<DateTime<Utc>>,
    /// Until then.
    #[serde(default)]
    pub until: Option<DateTime<Utc>>,
    /// And only in these hours of the week.
    #[serde(default)]
    pub weekly: Vec<ChangeWindow>,
    /// Why.
    pub reason: String,
}

/// All exceptions of a rule set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exceptions {
    /// Accepted findings.
    pub allow: Vec<Allowed>,
    /// Quiet times.
    pub suppress: Vec<Suppression>,
    /// A rule's findings about the same entity within this time of the last one sent are repeats.
    #[serde(with = "humantime_serde")]
    pub dedup: Duration,
}

impl Default for Exceptions {
    fn default() -> Self {
        Self { allow: Vec::new(), suppress: Vec::new(), dedup: Duration::from_secs(3600) }
    }
}

impl Exceptions {
    /// Why a finding is not sent, if an allow-list or a window says so. Goes by the event's time, so
    /// that a replay says the same.
    pub fn reason(&self, finding: &Finding) -> Option<String> {
        let at = DateTime::from_timestamp_micros(finding.occurred_at)?;
        let allowed = self.allow.iter().find(|a| at < a.until && a.matcher.matches(finding));
        if let Some(allowed) = allowed {
            return Some(format!("allow-list: {}", allowed.reason));
        }
        let quiet = self.suppress.iter().find(|s| {
            s.from.is_none_or(|from| at >= from)
                && s.until.is_none_or(|until| at < until)
                && (s.weekly.is_empty() || s.weekly.iter().any(|w| w.is_open(finding.occurred_at)))
                && s.matcher.matches(finding)
        });
        quiet.map(|s| format!("window: {}", s.reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FindingKind, Mode, Severity};

    fn finding(rule: &str, entity: &str, at: &str) -> Finding {
        let at = DateTime::parse_from_rfc3339(at).unwrap().timestamp_micros();
        Finding {
            finding_id: String::new(),
            tenant: "acme".into(),
            env: "prod".into(),
            region: "eu".into(),
            occurred_at: at,
            detected_at: at,
            rule_id: rule.into(),
            rule_title: String::new(),
            rule_version: String::new(),
            kind: FindingKind::Sigma,
            severity: Severity::Low,
            tactics: vec![],
            techniques: vec![],
            entity_type: "user".into(),
            entity: entity.into(),
            window_start: at,
            window_end: at,
            summary: String::new(),
            evidence: vec![],
            trace_id: None,
            mode: Mode::Live,
            suppressed_by: None,
        }
    }

    const EXCEPTIONS: &str = "
allow:
  - match: { rules: ['stateful.*'], entities: ['scanner-*'] }
    until: 2026-03-01T00:00:00Z
    reason: penetration test
suppress:
  - match: { tenants: [acme] }
    weekly: [{ days: [Sun], from_hour: 22, to_hour: 2 }]
    reason: weekly restore
";

    #[test]
    fn an_allow_list_ends_and_a_window_recurs() {
        let all: Exceptions = serde_yaml_ng::from_str(EXCEPTIONS).unwrap();
        let reason = |rule, entity, at| all.reason(&finding(rule, entity, at));
        assert_eq!(
            reason("stateful.mfa", "scanner-1", "2026-02-28T23:59:59Z").as_deref(),
            Some("allow-list: penetration test")
        );
        assert_eq!(reason("stateful.mfa", "scanner-1", "2026-03-01T00:00:00Z"), None);
        assert_eq!(reason("stateful.mfa", "eve", "2026-02-27T12:00:00Z"), None);
        assert_eq!(reason("other", "scanner-1", "2026-02-27T12:00:00Z"), None);
        // 1 March 2026 is a Sunday; the window reaches into Monday.
        assert_eq!(reason("x", "eve", "2026-03-02T01:59:00Z").as_deref(), Some("window: weekly restore"));
        assert_eq!(reason("x", "eve", "2026-03-02T02:00:00Z"), None);
    }

    #[test]
    fn an_allow_list_without_an_end_is_refused() {
        let error = serde_yaml_ng::from_str::<Exceptions>("allow: [{match: {}, reason: x}]").unwrap_err();
        assert!(error.to_string().contains("until"), "{error}");
        let error =
            serde_yaml_ng::from_str::<Exceptions>("suppress: [{match: {rules: ['a[']}, reason: x}]").unwrap_err();
        assert!(error.to_string().contains("a["), "{error}");
    }
}
