//! `companyos quarantine`: look at refused events, let them go through the operators again, or
//! remove them.
//!
//! Works on the tables themselves, so it needs the configuration's storage and, for release, its
//! Kafka. Every release and purge is recorded in the `quarantine_actions` table of the row's region.

mod actions;
mod original;
mod purge;
mod release;
mod rows;
mod show;

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::{cli::ConfigArgs, config::Config, telemetry};
use rows::Filter;

/// What to do with quarantined events.
#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// List rows, newest first
    List {
        #[command(flatten)]
        select: SelectArgs,
        /// Most rows to show
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show one row in full, its payload masked, and what was done with it
    Show {
        #[command(flatten)]
        select: SelectArgs,
    },
    /// Send the originals to their topics again
    Release {
        #[command(flatten)]
        select: SelectArgs,
        #[command(flatten)]
        act: ActArgs,
        /// Release rows again that were released before
        #[arg(long)]
        again: bool,
        /// Let each event pass the rule that refused it, this once; needs quarantine.key
        #[arg(long)]
        waive: bool,
    },
    /// Delete rows, with the sealed originals in them
    Purge {
        #[command(flatten)]
        select: SelectArgs,
        #[command(flatten)]
        act: ActArgs,
        /// Only rows quarantined longer ago than this, such as 30days
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        older_than: Option<Duration>,
    },
}

/// Which rows.
#[derive(Debug, Clone, Args)]
pub struct SelectArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Ids (topic/partition/offset/index); all that the options below allow if none is given
    ids: Vec<String>,
    /// Only this tenant's rows
    #[arg(long, required_unless_present = "all_tenants")]
    tenant: Option<String>,
    /// Rows of every tenant, and those that name none
    #[arg(long, conflicts_with = "tenant")]
    all_tenants: bool,
    /// Only rows of this stream
    #[arg(long)]
    stream: Option<String>,
    /// Only rows refused for this reason, such as clock_skew_past
    #[arg(long)]
    reason: Option<String>,
}

/// Who acts, and whether in earnest.
#[derive(Debug, Clone, Args)]
pub struct ActArgs {
    /// Act on all rows the options select, though no id is given
    #[arg(long)]
    all: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Who acts, for the record; the user's login name if not given
    #[arg(long)]
    actor: Option<String>,
    /// Why, for the record
    #[arg(long)]
    why: Option<String>,
}

impl SelectArgs {
    fn filter(&self) -> Filter {
        Filter {
            ids: self.ids.clone(),
            tenant: self.tenant.clone(),
            stream: self.stream.clone(),
            reason: self.reason.clone(),
            before: None,
        }
    }
}

impl ActArgs {
    fn check(&self, select: &SelectArgs) -> Result<()> {
        if select.ids.is_empty() && !self.all {
            bail!("name the rows by id, or say --all for every row that the options select");
        }
        Ok(())
    }

    fn actor(&self) -> String {
        let login = || std::env::var("USER").ok().filter(|user| !user.is_empty());
        self.actor.clone().or_else(login).unwrap_or_else(|| "unknown".to_owned())
    }
}

/// Runs a quarantine command.
pub async fn run(command: QuarantineCommand) -> Result<ExitCode> {
    telemetry::log_warnings();
    match command {
        QuarantineCommand::List { select, limit, json } => {
            let config = Config::load(select.config.config.as_deref())?;
            show::list(&config, &select.filter(), limit, json).await
        }
        QuarantineCommand::Show { select } => {
            let config = Config::load(select.config.config.as_deref())?;
            if select.ids.is_empty() {
                bail!("name the row by id; `companyos quarantine list` shows ids");
            }
            show::show(&config, &select.filter()).await
        }
        QuarantineCommand::Release { select, act, again, waive } => {
            act.check(&select)?;
            let config = Config::load(select.config.config.as_deref())?;
            release::release(&config, &select.filter(), &act, release::Terms { again, waive }).await
        }
        QuarantineCommand::Purge { select, act, older_than } => {
            act.check(&select)?;
            let config = Config::load(select.config.config.as_deref())?;
            let before = older_than.map(rows::micros_ago).transpose()?;
            purge::purge(&config, &Filter { before, ..select.filter() }, &act).await
        }
    }
}
