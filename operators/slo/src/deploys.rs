//! Deployments of the last hour, to stand beside an alert.

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::TimestampMicrosecondType,
};
use companyos_stream::KeyedState;
use serde::{Deserialize, Serialize};

use crate::measure::text_column;

/// A deployment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Deploy {
    /// When, microseconds since 1970.
    pub at: i64,
    pub deploy_id: Option<String>,
    pub service: String,
    pub commit: Option<String>,
}

/// Microseconds of an hour.
const HOUR: i64 = 3_600_000_000;
/// Most deployments kept of one scope.
const MOST: usize = 100;

/// Columns of ops_events that are read.
pub(crate) const COLUMNS: [&str; 8] =
    ["tenant", "env", "region", "kind", "service", "deploy_id", "commit", "occurred_at"];

/// Takes the deployments among rows of ops_events in.
pub(crate) fn take(state: &mut KeyedState<Vec<Deploy>>, batch: &RecordBatch, now: i64) {
    let column = |name| text_column(batch, name);
    let (Some(tenant), Some(env), Some(region), Some(kind), Some(service)) =
        (column("tenant"), column("env"), column("region"), column("kind"), column("service"))
    else {
        return;
    };
    let (ids, commits) = (column("deploy_id"), column("commit"));
    let Some(times) =
        batch.column_by_name("occurred_at").and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>())
    else {
        return;
    };
    let optional = |c: &Option<arrow::array::StringArray>, row: usize| {
        c.as_ref().filter(|c| !c.is_null(row)).map(|c| c.value(row).to_owned())
    };
    for row in 0..batch.num_rows() {
        if kind.value(row) != "deployment"
            || times.is_null(row)
            || times.value(row).saturating_sub(now).saturating_abs() >= HOUR
        {
            continue;
        }
        let deploy = Deploy {
            at: times.value(row),
            deploy_id: optional(&ids, row),
            service: service.value(row).to_owned(),
            commit: optional(&commits, row),
        };
        let key = scope(tenant.value(row), env.value(row), region.value(row));
        // A producer's clock may be ahead; then its hour begins when ours has come so far.
        let last = state.get(&key).and_then(|deploys| deploys.last()).map_or(deploy.at, |last| last.at.max(deploy.at));
        state.update(&key, now.max(last) + HOUR, |deploys| {
            if let Err(place) = deploys.binary_search(&deploy) {
                deploys.insert(place, deploy);
            }
            let old = deploys.partition_point(|d| d.at <= now - HOUR);
            deploys.drain(..old.max(deploys.len().saturating_sub(MOST)));
        });
    }
}

/// Key of the deployments that may concern an alert.
pub(crate) fn scope(tenant: &str, env: &str, region: &str) -> String {
    [tenant, env, region].join("\u{1f}")
}

/// The deployments of the hour up to `now`, as JSON.
pub(crate) fn recent(state: &KeyedState<Vec<Deploy>>, scope: &str, now: i64) -> serde_json::Value {
    let recent = state.get(scope).into_iter().flatten().filter(|d| d.at > now - HOUR && d.at <= now);
    recent
        .map(|d| {
            serde_json::json!({
                "deploy_id": d.deploy_id, "service": d.service, "commit": d.commit,
                "occurred_at": chrono::DateTime::from_timestamp_micros(d.at).map(|t| t.to_rfc3339()),
            })
        })
        .collect()
}
