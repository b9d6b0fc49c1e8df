//! Retention: whole `day` partitions past their time are deleted, by file, never by row.

use chrono::{NaiveDate, Utc};
use deltalake::protocol::DeltaOperation;
use serde_json::json;
use tracing::info;

use crate::{
    MaintenanceError, RetentionRule, Work,
    commit::{Change, commit},
    live_table::{LiveFile, LiveTable},
};

/// Most files one commit removes, so that no log entry grows without bound.
const FILES_PER_COMMIT: usize = 5_000;

/// Deletes the days that no rule keeps. `today` counts as day 0.
pub(crate) async fn run(
    table: &LiveTable,
    region: &str,
    rules: &[RetentionRule],
    today: NaiveDate,
) -> Result<Work, MaintenanceError> {
    let mut work = Work { version: Some(table.version), ..Default::default() };
    let expired: Vec<LiveFile> =
        table.files.iter().filter(|f| is_expired(f, &table.name, region, rules, today)).cloned().collect();
    if expired.is_empty() {
        return Ok(work);
    }
    table.check_deletable()?;
    for files in expired.chunks(FILES_PER_COMMIT) {
        let days: std::collections::BTreeSet<NaiveDate> = files.iter().filter_map(LiveFile::day).collect();
        let rows = files.iter().filter_map(|f| f.rows).sum();
        let now = Utc::now().timestamp_millis();
        let named: Vec<String> = days.iter().map(|day| format!("'{day}'")).collect();
        let change = Change {
            removes: files.iter().map(|f| f.remove(true, now)).collect(),
            adds: Vec::new(),
            position: None,
            operation: DeltaOperation::Delete { predicate: Some(format!("day IN ({})", named.join(", "))) },
            lineage: json!({"task": "retention", "sourceVersion": table.version, "rows": rows, "days": days}),
        };
        let version = commit(table, change).await?;
        info!(table = %table.name, region, version, files = files.len(), rows, ?days, "days past retention deleted");
        work.add(&Work {
            commits: 1,
            files_removed: files.len() as u64,
            bytes_removed: files.iter().map(|f| f.size).sum(),
            rows,
            version: Some(version),
            ..Default::default()
        });
    }
    Ok(work)
}

fn is_expired(file: &LiveFile, table: &str, region: &str, rules: &[RetentionRule], today: NaiveDate) -> bool {
    let Some(day) = file.day() else { return false };
    let tenant = file.value("tenant");
    let applies = |rule: &&RetentionRule| {
        rule.region.as_deref().is_none_or(|r| r == region)
            && rule.table.as_deref().is_none_or(|t| t == table)
            && rule.tenant.as_deref().is_none_or(|t| Some(t) == tenant)
    };
    let named = |rule: &RetentionRule| {
        usize::from(rule.tenant.is_some()) + usize::from(rule.table.is_some()) + usize::from(rule.region.is_some())
    };
    rules
        .iter()
        .filter(applies)
        .max_by_key(|rule| (named(rule), std::cmp::Reverse(rule.retention_days)))
        .is_some_and(|rule| (today - day).num_days() > i64::from(rule.retention_days))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(tenant: Option<&str>, table: Option<&str>, retention_days: u32) -> RetentionRule {
        RetentionRule { region: None, table: table.map(Into::into), tenant: tenant.map(Into::into), retention_days }
    }

    #[test]
    fn the_rule_that_names_the_most_wins_and_of_equals_the_shorter() {
        let today: NaiveDate = "2026-03-31".parse().unwrap();
        let file = |tenant: &str, day: &str| LiveFile {
            path: String::new(),
            partition: [("tenant".into(), Some(tenant.into())), ("day".into(), Some(day.into()))].into(),
            size: 0,
            modified: 0,
            rows: None,
        };
        let rules = [rule(None, None, 10), rule(Some("alpha"), None, 20), rule(None, Some("events"), 25)];
        let expired = |tenant, day| is_expired(&file(tenant, day), "events", "eu", &rules, today);
        assert!(!expired("alpha", "2026-03-11"), "exactly 20 days old: kept");
        assert!(expired("alpha", "2026-03-10"));
        assert!(!expired("beta", "2026-03-10"), "beta follows the table's rule");
        assert!(expired("beta", "2026-03-05"));
        assert!(!is_expired(&file("beta", "2020-01-01"), "events", "eu", &rules[1..2], today), "no rule, kept");
    }
}
