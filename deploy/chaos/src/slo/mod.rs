//! An outage of known size, from the events to whoever is woken: burn rates with the counts that were
//! sent, one alert that is pending, fires and resolves, in the table, on the topic and at a receiver
//! that fails at first, though the worker is killed while it tells; what no receiver takes is kept.

mod receiver;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use chrono::Utc;
use clap::Args;
use companyos_schemas::Stream;
use serde_json::{Value, json};

use crate::product::{Common, Deployment, Plan, Producer, REGION, Row, product_event, until, within};
use receiver::{FAILS, Receiver, SECRET};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Let the alert wait before it fires, and end by itself, which takes seven minutes. Without it, it
    /// fires at once and ends when its policy is taken away
    #[arg(long)]
    patient: bool,
}

const TENANT: &str = "alpha";
const OTHER: &str = "beta";
const OBJECTIVE: f64 = 0.95;
const GOOD: u64 = 200;
const BAD: u64 = 100;
/// Enough that the outage is less than the threshold of all events.
const RECOVERY: u64 = 3000;
const PROBES: u64 = 10;
const DEPLOY: &str = "deploy-before-the-outage";

/// Runs it; an error is a failed promise or a harness that could not work.
pub(crate) async fn run(options: Options) -> Result<()> {
    let (receiver, address) = Receiver::start().await?;
    let webhook = |name: &str, give_up_after: &str| {
        format!(
            "[[tasks.webhooks]]\nname = \"{name}\"\nurl = \"http://{address}/{name}\"\nsecret = \"{SECRET}\"\n\
             kinds = [\"slo_alert\"]\ngive_up_after = \"{give_up_after}\"\n"
        )
    };
    let plan = Plan {
        tenants: &[TENANT, OTHER],
        streams: &[Stream::ProductEvents, Stream::OpsEvents],
        kafka: true,
        config: format!(
            "[views]\nenabled = false\n[detect]\nenabled = false\n[slo]\npaths = [\"slo\"]\nreload_interval = \"300ms\"\n{}{}",
            webhook("pager", "60s"),
            webhook("deaf", "5s"),
        ),
    };
    let deployment = Deployment::start(&options.common, plan).await?;
    let producer = Producer::new(&deployment.bootstrap)?;
    let mut run = Run { deployment, producer, receiver, next: 0, good: 0, bad: 0 };
    let outcome = run.all(options.patient).await;
    run.deployment.finish(outcome).await
}

struct Run {
    deployment: Deployment,
    producer: Producer,
    receiver: Receiver,
    next: u64,
    /// Events sent for `TENANT`.
    good: u64,
    bad: u64,
}

impl Run {
    async fn all(&mut self, patient: bool) -> Result<()> {
        self.deployment.write("slo/slo.yaml", &slo(Some(if patient { "1m" } else { "0m" })))?;
        let checked = self.deployment.run(&["slo", "check", "slo"]).await;
        checked.context("the SLO of the run is refused")?;
        self.deployment.start_worker()?;
        self.deploy().await?;
        self.send(GOOD, true).await?;
        self.shown().await?;
        let mut delays = Vec::new();
        for _ in 0..PROBES {
            self.send(1, true).await?;
            delays.push(self.shown().await?);
        }
        delays.sort();
        println!(
            "from the event to slo_burn: median {:.2} s, slowest {:.2} s of {PROBES}",
            delays[delays.len() / 2].as_secs_f64(),
            delays[delays.len() - 1].as_secs_f64(),
        );
        self.outage(patient).await?;
        self.recovery(patient).await?;
        self.everything_once().await
    }

    /// Events up to the alert, and the worker killed while it tells.
    async fn outage(&mut self, patient: bool) -> Result<()> {
        let began = Instant::now();
        self.send(BAD, false).await?;
        self.state("pending").await?;
        println!("the outage is pending after {:.2} s", began.elapsed().as_secs_f64());
        self.state("firing").await?;
        let seconds = began.elapsed().as_secs_f64();
        println!("it fires after {seconds:.2} s{}", if patient { ", 60 of them as the policy says" } else { "" });
        until("a first attempt at the pager", within(60), async || {
            self.deployment.check()?;
            Ok((!self.receiver.attempts().is_empty()).then_some(()))
        })
        .await?;
        // The alert is in the table, the pager has refused it at least once: the next worker must go on.
        self.deployment.kill_one()?;
        until("the pager to accept", within(60), async || {
            self.deployment.check()?;
            Ok(self.receiver.attempts().iter().any(|attempt| attempt.accepted).then_some(()))
        })
        .await?;
        println!(
            "the pager took it in {} attempts, {:.2} s after the outage began, though the worker was killed",
            self.receiver.attempts().len(),
            began.elapsed().as_secs_f64(),
        );
        // What the worker was killed over must not keep the burn rates from going on.
        self.shown().await?;
        Ok(())
    }

    async fn recovery(&mut self, patient: bool) -> Result<()> {
        self.send(RECOVERY, true).await?;
        let delay = self.shown().await?;
        println!("the recovery is in slo_burn after {:.2} s", delay.as_secs_f64());
        if !patient {
            self.deployment.write("slo/slo.yaml", &slo(None))?;
        }
        let began = Instant::now();
        self.state("resolved").await?;
        println!("resolved {:.2} s later", began.elapsed().as_secs_f64());
        until("the end at the pager", within(60), async || {
            let attempts = self.receiver.attempts();
            Ok(attempts.iter().any(|attempt| attempt.accepted && attempt.body["state"] == "resolved").then_some(()))
        })
        .await?;
        // The receiver that never accepts is still being tried.
        self.send(1, true).await?;
        let delay = self.shown().await?;
        println!("from the event to slo_burn while a receiver does not accept: {:.2} s", delay.as_secs_f64());
        Ok(())
    }

    /// Table, topic, receiver and dead letters tell the same, once.
    async fn everything_once(&mut self) -> Result<()> {
        let rows = self.alerts(TENANT).await?;
        let states: Vec<&str> = rows.iter().filter_map(|row| row["state"].as_str()).collect();
        if states != ["pending", "firing", "resolved"] {
            bail!("slo_alerts says {states:?}: {rows:?}");
        }
        let alert = rows[0]["alert_id"].as_str().unwrap_or_default();
        if rows.iter().any(|row| row["alert_id"] != alert) {
            bail!("changes of more than one alert: {rows:?}");
        }
        if !self.alerts(OTHER).await?.is_empty() {
            bail!("{OTHER} sees the alerts of {TENANT}");
        }
        let (firing, resolved) = (format!("{alert}/firing"), format!("{alert}/resolved"));

        let attempts = self.receiver.attempts();
        if let Some(forged) = attempts.iter().find(|attempt| !attempt.genuine) {
            bail!("a signature that Standard Webhooks does not accept: {forged:?}");
        }
        let first: Vec<_> = attempts.iter().filter(|attempt| attempt.id == firing).collect();
        if first.len() <= FAILS || first.iter().any(|attempt| attempt.body != first[0].body) {
            bail!("attempts that differ, or too few: {first:?}");
        }
        if let Some(other) = attempts.iter().find(|attempt| attempt.id != firing && attempt.id != resolved) {
            bail!("an attempt of neither: {other:?}");
        }
        self.check_body(&first[0].body)?;

        let dead = until("both notices among the dead letters", within(60), async || {
            let dead = self.deployment.messages("webhook_dead_letters").await?;
            let has = |id: &str| dead.iter().any(|letter| letter.headers.get("id").is_some_and(|of| of == id));
            Ok((has(&firing) && has(&resolved)).then_some(dead))
        })
        .await?;
        if let Some(letter) = dead.iter().find(|letter| letter.headers.get("webhook").is_none_or(|of| of != "deaf")) {
            bail!("a dead letter of another receiver: {letter:?}");
        }
        let told = self.deployment.messages("slo_alerts").await?;
        for (id, most) in [(&firing, 2), (&resolved, 1)] {
            let of: Vec<_> = told.iter().filter(|message| message.headers.get("id") == Some(id)).collect();
            // Told again, under the same id, only by the worker that took over from the killed one.
            if of.is_empty() || of.len() > most || of.iter().any(|message| message.body != of[0].body) {
                bail!("{id} is {} times on the topic: {of:?}", of.len());
            }
            if id == &firing && of[0].body != first[0].body {
                bail!("topic and receiver differ: {of:?} {first:?}");
            }
        }
        if told.iter().any(|message| ![Some(&firing), Some(&resolved)].contains(&message.headers.get("id"))) {
            bail!("something else is on the topic: {told:?}");
        }
        println!(
            "seed {}: one alert, once in the table, {} times told on the topic under two ids, {} attempts at the pager, \
             all signed; {} dead letters",
            self.deployment.seed,
            told.len(),
            attempts.len(),
            dead.len(),
        );
        Ok(())
    }

    /// The alert says what was sent.
    fn check_body(&self, body: &Value) -> Result<()> {
        let (good, bad) = ((GOOD + PROBES) as f64, BAD as f64);
        let evidence = &body["evidence"]["long"];
        let total = evidence["total"].as_f64().unwrap_or_default();
        let counted = total - evidence["good"].as_f64().unwrap_or_default();
        // The outage may come in several commits, and the first of them that breaks the threshold alerts.
        let burn = counted / total / (1.0 - OBJECTIVE);
        let same = body["long_burn"].as_f64().is_some_and(|said| (said - burn).abs() < 1e-9);
        if !same || !(1.0..=bad).contains(&counted) || total - counted != good {
            bail!("sent {good} good and {bad} bad events, told {body}");
        }
        if !body["deploys"].to_string().contains(DEPLOY) {
            bail!("the deployment before the outage is not told: {}", body["deploys"]);
        }
        Ok(())
    }

    async fn deploy(&mut self) -> Result<()> {
        let event = json!({
            "event_id": DEPLOY, "occurred_at": Utc::now().to_rfc3339(), "tenant": TENANT, "env": "prod",
            "region": REGION, "kind": "deployment", "service": "product", "deploy_id": DEPLOY,
        });
        self.producer.send("ops_events", &[(format!("{TENANT}/{DEPLOY}"), event.to_string())]).await?;
        until("the deployment in its table", within(60), async || {
            self.deployment.check()?;
            let rows = self.deployment.ask_early(TENANT, "SELECT event_id FROM ops_events").await?;
            Ok(rows.filter(|rows| !rows.is_empty()).map(|_| ()))
        })
        .await
    }

    /// Sends events of now, and as many good ones of the other tenant.
    async fn send(&mut self, count: u64, ok: bool) -> Result<()> {
        let mut records = Vec::new();
        for _ in 0..count {
            self.next += 1;
            let id = format!("e{}", self.next);
            for (tenant, ok) in [(TENANT, ok), (OTHER, true)] {
                let event =
                    product_event(tenant, &id, Utc::now(), (Some("u1"), "user", "search"), &json!({ "ok": ok }));
                records.push((format!("{tenant}/{id}"), event.to_string()));
            }
        }
        match ok {
            true => self.good += count,
            false => self.bad += count,
        }
        self.producer.send("product_events", &records).await
    }

    /// Waits until the newest burn rates count all that was sent, checks them, and tells how long it took.
    async fn shown(&mut self) -> Result<Duration> {
        let began = Instant::now();
        let (good, total) = (self.good as f64, (self.good + self.bad) as f64);
        let sql = "SELECT good_1h, total_1h, burn_rate_1h, error_budget_remaining FROM slo_burn \
                   WHERE slo = 'chaos-success' ORDER BY evaluated_at DESC LIMIT 1";
        let row = until(&format!("{total} events in slo_burn"), within(90), async || {
            self.deployment.check()?;
            let rows = self.deployment.ask_early(TENANT, sql).await?;
            Ok(rows.and_then(|rows| rows.into_iter().next()).filter(|row| row["total_1h"].as_f64() == Some(total)))
        })
        .await?;
        let took = began.elapsed();
        let burn = (1.0 - good / total) / (1.0 - OBJECTIVE);
        let near = |column: &str, wanted: f64| row[column].as_f64().is_some_and(|is| (is - wanted).abs() < 1e-9);
        if !near("good_1h", good) || !near("burn_rate_1h", burn) || !near("error_budget_remaining", 1.0 - burn) {
            bail!("{good} good of {total} events burn at {burn}, slo_burn says {row:?}");
        }
        Ok(took)
    }

    async fn state(&mut self, state: &str) -> Result<()> {
        // Ten minutes: a patient run waits five for the end.
        until(&format!("an alert that is {state}"), within(600), async || {
            self.deployment.check()?;
            let rows = self.alerts(TENANT).await?;
            Ok(rows.iter().any(|row| row["state"] == state).then_some(()))
        })
        .await
    }

    async fn alerts(&self, tenant: &str) -> Result<Vec<Row>> {
        let sql = "SELECT alert_id, state, at FROM slo_alerts WHERE policy = 'chaos' \
                   ORDER BY at, CASE state WHEN 'pending' THEN 0 WHEN 'firing' THEN 1 ELSE 2 END";
        Ok(self.deployment.ask_early(tenant, sql).await?.unwrap_or_default())
    }
}

/// With a policy that alerts after `after`, or with one that never does.
fn slo(after: Option<&str>) -> String {
    let (name, threshold, after) = match after {
        Some(after) => ("chaos", 2, after),
        None => ("never", 1000, "0m"),
    };
    format!(
        r#"apiVersion: openslo/v1
kind: SLO
metadata:
  name: chaos-success
spec:
  service: product
  indicator:
    metadata: {{ name: worked }}
    spec:
      ratioMetric:
        good:
          metricSource:
            type: companyos
            spec: {{ stream: product_events, filter: "json_get_bool(payload, 'ok')" }}
        total:
          metricSource:
            type: companyos
            spec: {{ stream: product_events }}
  timeWindow:
    - duration: 7d
      isRolling: true
  budgetingMethod: Occurrences
  objectives:
    - target: {OBJECTIVE}
  alertPolicies:
    - kind: AlertPolicy
      metadata: {{ name: {name} }}
      spec:
        alertWhenBreaching: true
        alertWhenResolved: true
        conditions:
          - kind: AlertCondition
            metadata: {{ name: burn }}
            spec:
              severity: page
              condition: {{ kind: burnrate, op: gte, threshold: {threshold}, lookbackWindow: 1h, alertAfter: {after} }}
        notificationTargets:
          - kind: AlertNotificationTarget
            metadata: {{ name: pager }}
            spec: {{ target: pager }}
"#
    )
}
