//! Findings: what a rule or detector says about some events, as table rows, notices and OCSF.
//!
//! A finding's id depends on the rule, its version, the scope, the entity and the evidence only, so
//! the same events give the same id in every run.

use std::sync::{Arc, LazyLock};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use companyos_schemas::arrow_schema::timestamp_type;
use companyos_stream::{Notice, OutputTable, StreamError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Name of the table of findings.
pub const TABLE: &str = "detections";
/// Kind of the notices of findings.
pub const NOTICE: &str = "detection";
/// Most events listed as evidence of one finding; the rest is counted by the rule, not listed.
pub const MAX_EVIDENCE: usize = 200;

/// A position in a Kafka topic, and the event that was there.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EvidenceRef {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset of the record.
    pub offset: i64,
    /// Position of the event within its record.
    pub index: i32,
    /// The event's id.
    pub event_id: String,
}

/// What kind of logic found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A Sigma rule over one event.
    Sigma,
    /// A Sigma correlation of several events.
    Correlation,
    /// A stateful detector.
    Stateful,
}

/// How far a rule is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Findings are recorded and sent.
    Live,
    /// Findings are recorded for a share of the tenants.
    Canary,
    /// Findings are recorded only.
    Shadow,
}

/// Severity of a finding, least first; Sigma's levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Informational,
    /// Low.
    Low,
    /// Medium.
    Medium,
    /// High.
    High,
    /// Act now.
    Critical,
}

impl Severity {
    /// A Sigma level; what is absent or unknown is medium.
    pub fn of_level(level: Option<&str>) -> Self {
        match level {
            Some("informational") => Self::Informational,
            Some("low") => Self::Low,
            Some("high") => Self::High,
            Some("critical") => Self::Critical,
            _ => Self::Medium,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    fn ocsf(self) -> (i64, &'static str) {
        match self {
            Self::Informational => (1, "Informational"),
            Self::Low => (2, "Low"),
            Self::Medium => (3, "Medium"),
            Self::High => (4, "High"),
            Self::Critical => (5, "Critical"),
        }
    }
}

/// What is common to all findings of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleMeta {
    /// The rule's id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its version, see [`crate::version`].
    pub version: String,
    /// Kind of logic.
    pub kind: FindingKind,
    /// Severity of its findings.
    pub severity: Severity,
    /// Its tags, such as `attack.t1078.004`.
    pub tags: Vec<String>,
}

impl RuleMeta {
    /// ATT&CK tactics among the tags, such as `initial-access`.
    pub fn tactics(&self) -> Vec<String> {
        self.attack().filter(|t| !is_technique(t)).map(|t| t.replace('_', "-")).collect()
    }

    /// ATT&CK techniques among the tags, such as `T1078.004`.
    pub fn techniques(&self) -> Vec<String> {
        self.attack().filter(|t| is_technique(t)).map(str::to_uppercase).collect()
    }

    fn attack(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().filter_map(|t| t.strip_prefix("attack."))
    }
}

fn is_technique(tag: &str) -> bool {
    tag.strip_prefix('t').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Deterministic id.
    pub finding_id: String,
    /// Tenant.
    pub tenant: String,
    /// Environment.
    pub env: String,
    /// Region.
    pub region: String,
    /// Event time of the event that completed it, in microseconds.
    pub occurred_at: i64,
    /// When it was found: the time of the commit that made that event visible, in microseconds.
    pub detected_at: i64,
    /// Rule.
    pub rule_id: String,
    /// Its title.
    pub rule_title: String,
    /// Its version.
    pub rule_version: String,
    /// Kind of logic.
    pub kind: FindingKind,
    /// Severity.
    pub severity: Severity,
    /// ATT&CK tactics.
    pub tactics: Vec<String>,
    /// ATT&CK techniques.
    pub techniques: Vec<String>,
    /// What `entity` is, such as `user`.
    pub entity_type: String,
    /// Whom it is about.
    pub entity: String,
    /// Start of the window, in microseconds.
    pub window_start: i64,
    /// End of the window, in microseconds.
    pub window_end: i64,
    /// What was seen, in a sentence; never holds event contents beyond the entity's.
    pub summary: String,
    /// The events.
    pub evidence: Vec<EvidenceRef>,
    /// Trace of the event that completed it.
    pub trace_id: Option<String>,
    /// How far its rule was trusted.
    pub mode: Mode,
    /// Why it was not sent: `allow-list`, `window` or `dedup`, with the reason.
    pub suppressed_by: Option<String>,
}

impl Finding {
    /// `new` or `suppressed`.
    pub fn status(&self) -> &'static str {
        if self.suppressed_by.is_some() { "suppressed" } else { "new" }
    }

    /// As an OCSF Detection Finding (2004).
    pub fn ocsf(&self) -> Value {
        let (severity_id, severity) = self.severity.ocsf();
        let suppressed = self.suppressed_by.is_some();
        json!({
            "class_uid": 2004, "class_name": "Detection Finding",
            "category_uid": 2, "category_name": "Findings",
            "activity_id": 1, "activity_name": "Create",
            "type_uid": 200_401, "type_name": "Detection Finding: Create",
            "time": self.occurred_at / 1000,
            "start_time": self.window_start / 1000, "end_time": self.window_end / 1000,
            "severity_id": severity_id, "severity": severity,
            "status_id": if suppressed { 3 } else { 1 }, "status": if suppressed { "Suppressed" } else { "New" },
            "metadata": {
                "version": "1.3.0",
                "product": {"name": "CompanyOS", "vendor_name": "CompanyOS"},
                "tenant_uid": self.tenant,
                "correlation_uid": self.trace_id,
                "logged_time": self.detected_at / 1000,
            },
            "finding_info": {
                "uid": self.finding_id, "title": self.rule_title, "desc": self.summary,
                "created_time": self.detected_at / 1000,
                "analytic": {"uid": self.rule_id, "name": self.rule_title, "version": self.rule_version,
                    "type_id": 1, "type": "Rule", "category": kind_name(self.kind)},
                "attacks": self.techniques.iter().map(|t| json!({"technique": {"uid": t}}))
                    .chain(self.tactics.iter().map(|t| json!({"tactic": {"name": t}}))).collect::<Vec<_>>(),
            },
            "observables": [{"name": self.entity_type, "value": self.entity,
                "type_id": if self.entity_type == "user" { 4 } else { 99 }}],
            "evidences": self.evidence.iter().map(|e| json!({"data": e})).collect::<Vec<_>>(),
        })
    }

    /// The message to people and machines.
    pub fn notice(&self) -> Notice {
        let mut body = json!({
            "finding_id": self.finding_id, "status": self.status(), "mode": mode_name(self.mode),
            "tenant": self.tenant, "env": self.env, "region": self.region,
            "occurred_at": rfc3339(self.occurred_at), "detected_at": rfc3339(self.detected_at),
            "rule_id": self.rule_id, "rule_title": self.rule_title, "rule_version": self.rule_version,
            "kind": kind_name(self.kind), "severity": self.severity.as_str(),
            "tactics": self.tactics, "techniques": self.techniques,
            "entity_type": self.entity_type, "entity": self.entity, "summary": self.summary,
            "window_start": rfc3339(self.window_start), "window_end": rfc3339(self.window_end),
            "evidence": self.evidence, "trace_id": self.trace_id,
        });
        body["ocsf"] = self.ocsf();
        Notice {
            id: self.finding_id.clone(),
            kind: NOTICE,
            tenant: self.tenant.clone(),
            body: body.to_string(),
            // The table keeps the trace id only; the finding's own id gives the parent span.
            traceparent: self
                .trace_id
                .as_ref()
                .filter(|t| t.len() == 32)
                .and_then(|trace| self.finding_id.get(..16).map(|span| format!("00-{trace}-{span}-01"))),
        }
    }
}

/// The id of a finding: `anchor` is what tells it from others of the same rule and entity.
pub fn finding_id(rule: &RuleMeta, scope: [&str; 3], entity: &str, anchor: &str) -> String {
    let mut hash = Sha256::new();
    for part in [rule.id.as_str(), &rule.version, scope[0], scope[1], scope[2], entity, anchor] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(&hash.finalize()[..16])
}

/// The table of findings.
pub fn table() -> OutputTable {
    OutputTable { name: TABLE, schema: SCHEMA.clone() }
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name, nullable| Field::new(name, DataType::Utf8, nullable);
    let time = |name| Field::new(name, timestamp_type(), false);
    Arc::new(Schema::new(vec![
        text("finding_id", false),
        text("tenant", false),
        text("env", false),
        text("region", false),
        time("occurred_at"),
        time("detected_at"),
        text("rule_id", false),
        text("rule_title", false),
        text("rule_version", false),
        text("kind", false),
        text("severity", false),
        text("tactics", false),
        text("techniques", false),
        text("entity_type", false),
        text("entity", false),
        time("window_start"),
        time("window_end"),
        text("summary", false),
        text("evidence", false),
        text("trace_id", true),
        text("mode", false),
        text("status", false),
        text("suppressed_by", true),
        text("ocsf", false),
    ]))
});

/// Findings as rows of the table. `tactics` and `techniques` are separated by commas, `evidence` and
/// `ocsf` are JSON text.
pub fn rows(findings: &[Finding]) -> Result<RecordBatch, StreamError> {
    let text = |of: &dyn Fn(&Finding) -> String| -> ArrayRef {
        Arc::new(findings.iter().map(|f| Some(of(f))).collect::<StringArray>())
    };
    let time = |of: &dyn Fn(&Finding) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(findings.iter().map(of)).with_timezone("UTC"))
    };
    let columns = vec![
        text(&|f| f.finding_id.clone()),
        text(&|f| f.tenant.clone()),
        text(&|f| f.env.clone()),
        text(&|f| f.region.clone()),
        time(&|f| f.occurred_at),
        time(&|f| f.detected_at),
        text(&|f| f.rule_id.clone()),
        text(&|f| f.rule_title.clone()),
        text(&|f| f.rule_version.clone()),
        text(&|f| kind_name(f.kind).to_owned()),
        text(&|f| f.severity.as_str().to_owned()),
        text(&|f| f.tactics.join(",")),
        text(&|f| f.techniques.join(",")),
        text(&|f| f.entity_type.clone()),
        text(&|f| f.entity.clone()),
        time(&|f| f.window_start),
        time(&|f| f.window_end),
        text(&|f| f.summary.clone()),
        text(&|f| json!(f.evidence).to_string()),
        Arc::new(findings.iter().map(|f| f.trace_id.clone()).collect::<StringArray>()),
        text(&|f| mode_name(f.mode).to_owned()),
        text(&|f| f.status().to_owned()),
        Arc::new(findings.iter().map(|f| f.suppressed_by.clone()).collect::<StringArray>()),
        text(&|f| f.ocsf().to_string()),
    ];
    Ok(RecordBatch::try_new(SCHEMA.clone(), columns)?)
}

fn kind_name(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Sigma => "sigma",
        FindingKind::Correlation => "correlation",
        FindingKind::Stateful => "stateful",
    }
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Live => "live",
        Mode::Canary => "canary",
        Mode::Shadow => "shadow",
    }
}

fn rfc3339(micros: i64) -> String {
    chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default().to_rfc3339()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> RuleMeta {
        RuleMeta {
            id: "r".into(),
            title: "R".into(),
            version: "1".into(),
            kind: FindingKind::Sigma,
            severity: Severity::High,
            tags: vec!["attack.initial-access".into(), "attack.t1078.004".into(), "cve.2024-1".into()],
        }
    }

    #[test]
    fn tags_split_into_tactics_and_techniques() {
        assert_eq!(meta().tactics(), ["initial-access"]);
        assert_eq!(meta().techniques(), ["T1078.004"]);
    }

    #[test]
    fn ids_depend_on_every_part_and_on_where_parts_end() {
        let id = |m: &RuleMeta, scope, entity: &str, anchor: &str| finding_id(m, scope, entity, anchor);
        let base = id(&meta(), ["t", "e", "r"], "ab", "c");
        assert_eq!(base, id(&meta(), ["t", "e", "r"], "ab", "c"));
        assert_ne!(base, id(&meta(), ["t", "e", "r"], "a", "bc"));
        assert_ne!(base, id(&meta(), ["u", "e", "r"], "ab", "c"));
        let newer = RuleMeta { version: "2".into(), ..meta() };
        assert_ne!(base, id(&newer, ["t", "e", "r"], "ab", "c"));
    }

    #[test]
    fn rows_and_notices_carry_the_finding() {
        let finding = Finding {
            finding_id: "00112233445566778899aabbccddeeff".into(),
            tenant: "t".into(),
            env: "prod".into(),
            region: "eu".into(),
            occurred_at: 1_700_000_000_000_000,
            detected_at: 1_700_000_001_000_000,
            rule_id: "r".into(),
            rule_title: "R".into(),
            rule_version: "1".into(),
            kind: FindingKind::Correlation,
            severity: Severity::Critical,
            tactics: meta().tactics(),
            techniques: meta().techniques(),
            entity_type: "user".into(),
            entity: "eve".into(),
            window_start: 1_699_999_999_000_000,
            window_end: 1_700_000_000_000_000,
            summary: "s".into(),
            evidence: vec![EvidenceRef { topic: "x".into(), partition: 1, offset: 2, index: 0, event_id: "e".into() }],
            trace_id: Some("0af7651916cd43dd8448eb211c80319c".into()),
            mode: Mode::Live,
            suppressed_by: None,
        };
        let batch = rows(std::slice::from_ref(&finding)).unwrap();
        assert_eq!(batch.schema(), table().schema);
        insta::assert_json_snapshot!(finding.ocsf());
        let notice = finding.notice();
        assert_eq!(notice.traceparent.as_deref(), Some("00-0af7651916cd43dd8448eb211c80319c-0011223344556677-01"));
        let body: Value = serde_json::from_str(&notice.body).unwrap();
        assert_eq!(body["evidence"][0]["offset"], 2);
        assert_eq!(body["occurred_at"], "2023-11-14T22:13:20+00:00");
    }
}
