//! The alerts of one region and shard at work.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use companyos_sinks::checkpoint::{CheckpointError, CheckpointLine, LineOptions, NoticeSink};
use companyos_stream::{KeyedState, Notice, Output};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    AlertError, Evaluator, FiringRow, ViewAlert,
    definition::{distinct, load_alerts, shipped_alerts},
    table::{AlertRow, batch, view_alerts_table},
};
use crate::{
    tasks::{JobContext, JobFactory, ShardJob, TaskError},
    views::ViewRegistry,
};

/// `[alerts]` of the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertsConfig {
    /// Whether alerts on views are watched.
    pub enabled: bool,
    /// Whether those that come with the product are.
    pub built_in: bool,
    /// Files and folders of more.
    pub paths: Vec<PathBuf>,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self { enabled: true, built_in: true, paths: Vec::new() }
    }
}

impl AlertsConfig {
    /// The alerts to watch.
    pub fn load(&self) -> Result<Vec<ViewAlert>, AlertError> {
        let mut alerts = load_alerts(&self.paths)?;
        if self.built_in {
            alerts.extend(shipped_alerts()?);
        }
        distinct(&alerts)?;
        Ok(alerts)
    }
}

/// Makes the job that watches these alerts in a region and shard.
pub fn alert_jobs(alerts: Vec<ViewAlert>, notices: Arc<dyn NoticeSink>) -> JobFactory {
    let alerts = Arc::new(alerts);
    Arc::new(move |_| Box::new(AlertJob { alerts: alerts.clone(), notices: notices.clone() }))
}

struct AlertJob {
    alerts: Arc<Vec<ViewAlert>>,
    notices: Arc<dyn NoticeSink>,
}

/// Name of the line of checkpoints.
const LINE: &str = "view_alerts";
/// How often it is looked which alerts are due.
const TICK: Duration = Duration::from_secs(1);

#[async_trait]
impl ShardJob for AlertJob {
    async fn run(&mut self, context: JobContext, stop: CancellationToken) -> Result<(), TaskError> {
        let mut watch = Watch::open(context, self.alerts.clone(), self.notices.clone()).await?;
        while !stop.is_cancelled() {
            // To its end: what is told halfway is told again by the next owner.
            watch.round(Utc::now()).await?;
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(TICK) => {}
            }
        }
        Ok(())
    }
}

/// What is known of an alert that fires.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Firing {
    /// Microseconds.
    since: i64,
    alert: String,
    row: [String; 5],
}

struct Watch {
    alerts: Arc<Vec<ViewAlert>>,
    notices: Arc<dyn NoticeSink>,
    registry: ViewRegistry,
    evaluator: Evaluator,
    line: CheckpointLine,
    firing: KeyedState<Firing>,
    asked: BTreeMap<String, DateTime<Utc>>,
}

impl Watch {
    async fn open(
        context: JobContext,
        alerts: Arc<Vec<ViewAlert>>,
        notices: Arc<dyn NoticeSink>,
    ) -> Result<Self, TaskError> {
        let shard = format!("{}-of-{}", context.shard.index, context.shard.of);
        let mut line = CheckpointLine::open(&context.storage, LINE, &shard, LineOptions::default()).await?;
        line.deliver(notices.as_ref()).await?;
        let mut firing = KeyedState::new("firing");
        line.restore(|state| firing.restore(state)).await?;
        let registry = ViewRegistry::new(&context.home);
        let evaluator = Evaluator::new(context).map_err(|e| TaskError::Other(e.to_string()))?;
        Ok(Self { alerts, notices, registry, evaluator, line, firing, asked: BTreeMap::new() })
    }

    /// Asks the alerts that are due and tells what changed.
    async fn round(&mut self, now: DateTime<Utc>) -> Result<(), TaskError> {
        let alerts = self.alerts.clone();
        let due = |alert: &&ViewAlert| {
            let every = TimeDelta::from_std(alert.every).unwrap_or(TimeDelta::MAX);
            self.asked.get(&alert.name).is_none_or(|at| now - *at >= every)
        };
        let due: Vec<&ViewAlert> = alerts.iter().filter(due).collect();
        if due.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.registry.refresh().await {
            warn!(%error, "the registry of views cannot be read; alerts wait");
            return Ok(());
        }
        let mut changes = Vec::new();
        for alert in due {
            self.asked.insert(alert.name.clone(), now);
            match self.evaluator.ask(alert, &self.registry, now).await {
                Ok(Some(rows)) => self.compare(alert, rows, now, &mut changes),
                Ok(None) => {}
                Err(error) => {
                    warn!(alert = alert.name, %error, "an alert's query has no answer");
                    metrics::counter!("companyos_view_alert_failures_total", "alert" => alert.name.clone())
                        .increment(1);
                }
            }
        }
        self.tell(changes, now).await
    }

    fn compare(&mut self, alert: &ViewAlert, rows: Vec<FiringRow>, now: DateTime<Utc>, changes: &mut Vec<Change>) {
        let mut seen = BTreeSet::new();
        for row in rows {
            let key =
                [&alert.name, &row.tenant, &row.env, &row.region, &row.subject].map(String::as_str).join("\u{1f}");
            let new = self.firing.get(&key).is_none();
            if seen.insert(key.clone()) && new {
                let row = [row.tenant, row.env, row.region, row.subject, row.details];
                let firing = Firing { since: now.timestamp_micros(), alert: alert.name.clone(), row };
                changes.push(Change { alert: alert.clone(), firing: firing.clone(), state: "firing" });
                self.firing.insert(&key, i64::MAX, firing);
            }
        }
        let ended = self.firing.iter().filter(|(key, firing)| firing.alert == alert.name && !seen.contains(*key));
        let ended: Vec<String> = ended.map(|(key, _)| key.to_owned()).collect();
        for key in ended {
            if let Some(firing) = self.firing.remove(&key) {
                changes.push(Change { alert: alert.clone(), firing, state: "resolved" });
            }
        }
    }

    async fn tell(&mut self, changes: Vec<Change>, now: DateTime<Utc>) -> Result<(), TaskError> {
        if changes.is_empty() {
            return Ok(());
        }
        let rows: Vec<AlertRow> = changes.iter().map(|change| change.row(now)).collect();
        let rows = batch(&rows).map_err(|e| TaskError::Checkpoint(CheckpointError::State(e.into())))?;
        let output = Output {
            rows: vec![(view_alerts_table(), rows)],
            notices: changes.iter().map(|change| change.notice(now)).collect(),
        };
        let state = self.firing.snapshot(self.line.next_kind()).map_err(CheckpointError::State)?;
        self.line.write(BTreeMap::new(), vec![state], &output).await?;
        for change in &changes {
            let [tenant, _, _, subject, _] = &change.firing.row;
            info!(alert = change.alert.name, tenant, subject, state = change.state, "alert on a view");
        }
        self.line.deliver(self.notices.as_ref()).await?;
        Ok(())
    }
}

struct Change {
    alert: ViewAlert,
    firing: Firing,
    state: &'static str,
}

impl Change {
    /// The same for one firing from its start to its end.
    fn id(&self) -> String {
        let [tenant, env, region, subject, _] = &self.firing.row;
        let text = json!([self.alert.name, tenant, env, region, subject, self.firing.since]).to_string();
        hex::encode(&Sha256::digest(text.as_bytes())[..16])
    }

    fn row(&self, now: DateTime<Utc>) -> AlertRow {
        let [tenant, env, region, subject, details] = self.firing.row.clone();
        let (alert, severity) = (self.alert.name.clone(), self.alert.severity.name().to_owned());
        let (summary, state) = (self.alert.summary.clone(), self.state.to_owned());
        AlertRow {
            at: now.timestamp_micros(),
            started_at: self.firing.since,
            texts: [tenant, env, region, alert, severity, state, self.id(), summary, subject, details],
        }
    }

    fn notice(&self, now: DateTime<Utc>) -> Notice {
        let [tenant, env, region, subject, details] = &self.firing.row;
        let object = |text: &str| serde_json::from_str(text).unwrap_or(serde_json::Value::Null);
        let body = json!({
            "alert": self.alert.name,
            "alert_id": self.id(),
            "state": self.state,
            "severity": self.alert.severity.name(),
            "summary": self.alert.summary,
            "tenant": tenant,
            "env": env,
            "region": region,
            "subject": object(subject),
            "details": object(details),
            "started_at": DateTime::from_timestamp_micros(self.firing.since),
            "at": now,
        });
        Notice {
            id: format!("{}/{}", self.id(), self.state),
            kind: "view_alert",
            tenant: tenant.clone(),
            body: body.to_string(),
            traceparent: None,
        }
    }
}
