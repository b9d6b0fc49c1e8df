//! What the operator puts out, until it is taken: rows of its two tables, and notices of alerts.

use std::sync::Arc;

use arrow::error::ArrowError;
use chrono::DateTime;
use companyos_stream::{Notice, Output, OutputTable};

use crate::{
    compile::CompiledSlo,
    policy::{SEPARATOR, Severity},
    series::Head,
    tables::{AlertRow, BurnRow, Scope, alert_batch, burn_batch, slo_alerts_table, slo_burn_table},
};

const SECOND: i64 = 1_000_000;

/// Name of the alert on missing data, as a rule is named.
pub(crate) const NO_DATA: &str = "data\u{1f}no_data";

/// Rows and notices.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    burns: Vec<BurnRow>,
    alerts: Vec<AlertRow>,
    notices: Vec<Notice>,
    failure: Option<String>,
}

impl Outbox {
    pub fn burn(&mut self, row: BurnRow) {
        self.burns.push(row);
    }

    /// A change of an alert; a notice of it if wanted.
    pub fn alert(&mut self, row: AlertRow, notify: bool, targets: &[String]) {
        if notify {
            self.notices.push(notice(&row, targets));
        }
        self.alerts.push(row);
    }

    /// Ends every alert that is on, for a reason that is not in the data. Told as the definition
    /// wants it, if it is still known.
    pub fn retire(&mut self, scope: &Scope, head: &Head, slo: Option<&CompiledSlo>, reason: &str, now: i64) {
        for (id, alert) in &head.alerts {
            let rule = slo.and_then(|slo| slo.rules.iter().find(|rule| rule.id() == *id));
            let notify = alert.firing && rule.is_none_or(|rule| rule.notify_resolved);
            let severity = rule.map_or(Severity::Ticket, |rule| rule.severity);
            self.retired(scope, slo, (id, alert.started, severity), notify, reason, now);
        }
        if let Some(started) = head.no_data {
            let notify = slo.is_none_or(|slo| slo.notify_no_data);
            self.retired(scope, slo, (NO_DATA, started.div_euclid(SECOND), Severity::Ticket), notify, reason, now);
        }
    }

    fn retired(
        &mut self,
        scope: &Scope,
        slo: Option<&CompiledSlo>,
        (id, started, severity): (&str, i64, Severity),
        notify: bool,
        reason: &str,
        now: i64,
    ) {
        let (policy, condition) = id.split_once(SEPARATOR).unwrap_or((id, ""));
        let row = AlertRow {
            scope: scope.clone(),
            at: now,
            objective: slo.map_or(0.0, |slo| slo.objective),
            alert_id: alert_id(scope, id, started),
            policy: policy.to_owned(),
            condition: condition.to_owned(),
            severity: severity.name(),
            state: "resolved",
            started: started * SECOND,
            threshold: None,
            long_window: None,
            short_window: None,
            long_burn: None,
            short_burn: None,
            budget_spent: None,
            deploys: "[]".to_owned(),
            evidence: serde_json::json!({"reason": reason}).to_string(),
        };
        self.alert(row, notify, slo.map_or(&[], |slo| slo.targets.as_slice()));
    }

    /// Everything since the last call. Rows that cannot be put out are told by [`failure`](Self::failure).
    pub fn take(&mut self) -> Output {
        let mut output = Output { rows: Vec::new(), notices: std::mem::take(&mut self.notices) };
        let (burns, alerts) = (std::mem::take(&mut self.burns), std::mem::take(&mut self.alerts));
        let mut put = |table: OutputTable, batch: Result<_, ArrowError>| match batch {
            Ok(batch) => output.rows.push((table, batch)),
            Err(e) => self.failure = Some(e.to_string()),
        };
        if !burns.is_empty() {
            let table = slo_burn_table();
            let batch = burn_batch(Arc::clone(&table.schema), &burns);
            put(table, batch);
        }
        if !alerts.is_empty() {
            let table = slo_alerts_table();
            let batch = alert_batch(Arc::clone(&table.schema), &alerts);
            put(table, batch);
        }
        output
    }

    /// Why rows could not be put out, once.
    pub fn failure(&mut self) -> Option<String> {
        self.failure.take()
    }
}

fn notice(row: &AlertRow, targets: &[String]) -> Notice {
    let time = |at| DateTime::from_timestamp_micros(at).map(|t| t.to_rfc3339());
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
    let body = serde_json::json!({
        "alert_id": row.alert_id, "state": row.state, "severity": row.severity, "policy": row.policy,
        "condition": row.condition, "tenant": row.scope.tenant, "env": row.scope.env,
        "region": row.scope.region, "service": row.scope.service, "slo": row.scope.slo,
        "objective": row.objective, "at": time(row.at), "started_at": time(row.started),
        "threshold": row.threshold, "long_window": row.long_window, "short_window": row.short_window,
        "long_burn": row.long_burn, "short_burn": row.short_burn, "budget_spent": row.budget_spent,
        "deploys": json(&row.deploys), "evidence": json(&row.evidence), "targets": targets,
    });
    Notice {
        id: format!("{}/{}", row.alert_id, row.state),
        kind: "slo_alert",
        tenant: row.scope.tenant.clone(),
        body: body.to_string(),
        traceparent: None,
    }
}

/// The same for all states of an alert.
pub(crate) fn alert_id(scope: &Scope, rule: &str, started: i64) -> String {
    let Scope { tenant, env, region, service, slo } = scope;
    let rule = rule.replace(SEPARATOR, "/");
    format!("slo/{tenant}/{env}/{region}/{service}/{slo}/{rule}/{started}")
}
