//! Every attack that ships, through Kafka, a worker and the query server: found by the rules it names
//! and no others, each finding once in the table and on the topic, and seen by nobody else.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use clap::Args;
use companyos_pipelines::detections::shipped_scenarios;
use companyos_schemas::Stream;
use serde_json::Value;

use crate::product::{Common, Deployment, Plan, until, within};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
}

const VICTIM: &str = "alpha";
const OTHER: &str = "beta";
/// How long a finding may take. Generous: what it took is printed.
const WAIT: &str = "60s";

/// Runs them one after the other.
pub(crate) async fn run(options: Options) -> Result<()> {
    let plan = Plan {
        tenants: &[VICTIM, OTHER],
        streams: &[Stream::SecuritySignals, Stream::OpsEvents, Stream::AuditEvents],
        kafka: false,
        config: "[views]\nenabled = false\n".to_owned(),
    };
    let mut deployment = Deployment::start(&options.common, plan).await?;
    let outcome = all(&mut deployment).await;
    deployment.finish(outcome).await
}

async fn all(deployment: &mut Deployment) -> Result<()> {
    deployment.start_worker()?;
    let scenarios = shipped_scenarios();
    if scenarios.len() < 8 {
        bail!("only {} scenarios ship: {}", scenarios.len(), scenarios.join(", "));
    }
    let mut slowest: f64 = 0.0;
    for scenario in &scenarios {
        let seconds = one(deployment, scenario).await.with_context(|| scenario.clone())?;
        slowest = slowest.max(seconds);
        deployment.check()?;
    }
    println!("{} attacks found, the slowest after {slowest:.2} s", scenarios.len());
    Ok(())
}

async fn one(deployment: &Deployment, scenario: &str) -> Result<f64> {
    let said = deployment.run(&["simulate", "attack", scenario, "--tenant", VICTIM, "--wait", WAIT, "--json"]).await?;
    let report: Value = serde_json::from_str(&said).context(said)?;
    let (run, seconds) = (report["run"].as_str().unwrap_or_default(), report["seconds"].as_f64().unwrap_or_default());
    let strings = |value: &Value| -> BTreeSet<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let expected = strings(&report["expected"]);
    if run.is_empty() || expected.is_empty() {
        bail!("a report that says nothing: {report}");
    }
    let of_run = format!("FROM detections WHERE evidence LIKE '%sim-{run}-%'");
    let found = deployment
        .ask(
            VICTIM,
            &format!("SELECT finding_id, rule_id, count(*) AS times, max(status) AS status {of_run} GROUP BY 1, 2"),
        )
        .await?;
    let rules: BTreeSet<String> = found.iter().filter_map(|row| row["rule_id"].as_str()).map(str::to_owned).collect();
    if rules != expected {
        bail!("found by {rules:?}, not by {expected:?}");
    }
    if let Some(row) = found.iter().find(|row| row["times"] != 1) {
        bail!("a finding is in the table more than once: {row:?}");
    }
    // Repeats of a finding are in the table only.
    let told: BTreeSet<&str> =
        found.iter().filter(|row| row["status"] == "new").filter_map(|row| row["finding_id"].as_str()).collect();
    until("the findings on the topic", within(60), async || {
        let messages = deployment.messages("findings").await?;
        let ids: Vec<&str> = messages
            .iter()
            .filter_map(|message| message.body["finding_id"].as_str())
            .filter(|id| told.contains(id))
            .collect();
        if ids.len() > told.len() {
            bail!("a finding is on the topic more than once: {ids:?}");
        }
        Ok((ids.len() == told.len()).then_some(()))
    })
    .await?;
    let seen = deployment.number(OTHER, &format!("SELECT count(*) {of_run}")).await?;
    if seen != 0 {
        bail!("{OTHER} sees {seen} findings of {VICTIM}");
    }
    println!(
        "{scenario:<20} {:>2} events, {} rules, {} findings, {seconds:>5.2} s from the first event to the last finding",
        report["events"],
        rules.len(),
        found.len(),
    );
    Ok(seconds)
}
