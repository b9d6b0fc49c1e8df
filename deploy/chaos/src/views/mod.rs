//! Views while everything moves: workers are killed, added and taken away in mid-stream, a view is
//! made in mid-stream, tables are compacted, events come late and twice; in the end each view gives
//! the batch answer, and the tables hold what was sent.

mod compare;
mod definitions;
mod traffic;

use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use companyos_schemas::Stream;

use crate::{
    product::{Common, Deployment, Plan, until, within},
    tables::Tables,
};
use compare::compare;
use definitions::{LATER, OWN, all};
use traffic::{TENANTS, Traffic};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Workers killed while there are four
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// Product events between two disturbances
    #[arg(long, default_value_t = 2000)]
    events: usize,
}

/// Views, and maintenance that compacts beside them as often as it can.
const CONFIG: &str = r#"
[tasks]
enabled = true
[detect]
enabled = false
[maintenance.compaction]
interval = "3s"
min_age = "1s"
[maintenance.checkpoint]
interval = "3s"
every_commits = 10
"#;

/// Runs it; an error is a failed promise or a harness that could not work.
pub(crate) async fn run(options: Options) -> Result<()> {
    let plan = Plan {
        tenants: &TENANTS,
        streams: &[Stream::ProductEvents, Stream::OpsEvents, Stream::SliMetrics],
        kafka: true,
        config: CONFIG.to_owned(),
    };
    let deployment = Deployment::start(&options.common, plan).await?;
    let mut run = Run {
        traffic: Traffic::new(&deployment.bootstrap, deployment.seed)?,
        tables: Tables::open(&deployment.tenancy)?,
        deployment,
        started: Instant::now(),
    };
    let outcome = run.all(&options).await;
    run.deployment.finish(outcome).await
}

struct Run {
    deployment: Deployment,
    traffic: Traffic,
    tables: Tables,
    started: Instant,
}

impl Run {
    async fn all(&mut self, options: &Options) -> Result<()> {
        let events = options.events;
        self.deployment.start_maintenance()?;
        self.deployment.start_worker()?;
        self.apply(OWN.iter().filter_map(|view| view.create)).await?;
        self.traffic.send(events).await?;
        self.stored_some(0).await?;
        self.say("one worker stores and keeps views");

        for _ in 0..3 {
            self.deployment.start_worker()?;
            self.traffic.send(events / 4).await?;
        }
        self.all_have_shards().await?;
        self.say("four workers, each with a shard");

        for number in 0..options.kills {
            if self.deployment.random.bool() {
                self.all_have_shards().await?;
            }
            let before = (self.tables.counts().await?.0, self.deployment.view_commits()?);
            self.traffic.send(events).await?;
            if number == options.kills / 2 {
                self.apply(LATER.create).await?;
            }
            // Not before something of it is stored and before the rest is: in the middle of the work, and
            // now and then between the commits of two views.
            self.stored_some(before.0).await?;
            if self.deployment.random.bool() {
                until("a view to go on", within(60), async || {
                    Ok((self.deployment.view_commits()? > before.1).then_some(()))
                })
                .await?;
            }
            self.deployment.kill_one()?;
        }
        self.say("workers killed, a view made in mid-stream");

        self.traffic.send(events).await?;
        let victim = self.deployment.random.usize(..self.deployment.workers.len());
        self.deployment.workers.remove(victim).kill()?;
        while self.deployment.workers.len() > 1 {
            self.deployment.workers.remove(0).stop().await?;
            self.traffic.send(events / 4).await?;
        }
        self.say("back to one worker");
        let before = self.tables.counts().await?.0;
        self.traffic.send(events).await?;
        self.stored_some(before).await?;
        self.deployment.kill_one()?;
        self.traffic.send(events / 4).await?;
        self.say("the last worker killed and started again");

        self.check().await
    }

    fn say(&self, what: &str) {
        println!(
            "{:>6.1} s  {what}; {} events sent",
            self.started.elapsed().as_secs_f64(),
            self.traffic.product_events()
        );
    }

    async fn apply(&self, statements: impl IntoIterator<Item = &'static str>) -> Result<()> {
        let text: Vec<&str> = statements.into_iter().collect();
        let file = self.deployment.write("views.sql", &text.join(";\n"))?;
        let said = self.deployment.run(&["pipeline", "apply", &file.display().to_string()]).await?;
        if said.lines().count() != text.len() {
            bail!("{} statements applied, but:\n{said}", text.len());
        }
        Ok(())
    }

    /// Waits until there are more rows than `before`.
    async fn stored_some(&mut self, before: usize) -> Result<()> {
        until("more events to be stored", within(60), async || {
            self.deployment.check()?;
            Ok((self.tables.counts().await?.0 > before).then_some(()))
        })
        .await
    }

    /// Waits until every worker has run a shard's jobs: state has moved to each.
    async fn all_have_shards(&mut self) -> Result<()> {
        until("shards on every worker", within(60), async || {
            self.deployment.check()?;
            for worker in &self.deployment.workers {
                if !worker.has_logged("shard started")? {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await
    }

    async fn check(&mut self) -> Result<()> {
        let sent = self.traffic.product_events();
        until(&format!("{sent} events to be stored"), within(90), async || {
            self.deployment.check()?;
            Ok((self.tables.counts().await?.0 >= sent).then_some(()))
        })
        .await?;
        let stored = until("the other streams to be stored", within(60), async || {
            Ok(self.traffic.check_stored(&self.deployment).await.ok())
        })
        .await;
        let stored = match stored {
            Ok(stored) => stored,
            Err(_) => self.traffic.check_stored(&self.deployment).await?,
        };
        self.say("all is stored as it was sent");
        let (mut views, mut rows) = (0, 0);
        for view in all() {
            for tenant in TENANTS {
                let mut last = String::new();
                let agreed = until(view.name, within(60), async || {
                    self.deployment.check()?;
                    match compare(&self.deployment, tenant, view).await? {
                        Ok(rows) => Ok(Some(rows)),
                        Err(difference) => {
                            last = difference;
                            Ok(None)
                        }
                    }
                })
                .await;
                let agreed = agreed.with_context(|| format!("view {} of {tenant}: {last}", view.name))?;
                if agreed == 0 {
                    bail!("view {} of {tenant} has no rows to compare", view.name);
                }
                rows += agreed;
            }
            views += 1;
        }
        let taken = self.deployment.logged(&format!("history taken in view={}", LATER.name))?;
        if taken.iter().all(|line| line.contains(" files=0")) {
            bail!("{} was made before there was any history: nothing was handed over: {taken:?}", LATER.name);
        }
        println!(
            "seed {}: {stored} events stored once and as sent ({} copies dropped, {} came late); {views} views equal \
             their batch answers in {rows} rows; {:.0} s",
            self.deployment.seed,
            self.traffic.copies,
            self.traffic.late,
            self.started.elapsed().as_secs_f64(),
        );
        Ok(())
    }
}
