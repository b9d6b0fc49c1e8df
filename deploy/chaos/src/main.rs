//! Chaos: known events through a real Kafka and real workers into Delta tables, while workers are
//! killed, paused and moved, the broker crashes and the store fails, and maintenance compacts what
//! they write; after every round each event must be stored exactly once.
//!
//! ```sh
//! cargo run --release --package companyos-chaos -- run --rounds 50
//! ```
//!
//! `views`, `slo` and `attacks` do the like with the product's own processes, for what follows the
//! tables: see the modules. They take the `companyos` beside this program, so build the workspace.
//!
//! A failure prints the seed; `--seed` repeats the same actions at the same points (not the same
//! interleaving: processes and clocks are real).

mod action;
mod attacks;
mod faulty_store;
mod fleet;
mod ledger;
mod product;
mod run;
mod slo;
mod tables;
mod tenancy;
mod views;
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Kills, pauses and starves the engine, and checks that every event is stored once")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run rounds of chaos.
    Run(run::Options),
    /// Views while workers are killed, added and taken away, against the batch answer.
    Views(views::Options),
    /// An outage from the events to the alert, its receivers and its end, with the worker killed.
    Slo(slo::Options),
    /// Every attack that ships, through Kafka, worker and query server.
    Attacks(attacks::Options),
    /// A worker of such a run.
    #[command(hide = true)]
    Worker(worker::Options),
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match Cli::parse().command {
            Command::Run(options) => run::run(options).await,
            Command::Views(options) => views::run(options).await,
            Command::Slo(options) => slo::run(options).await,
            Command::Attacks(options) => attacks::run(options).await,
            Command::Worker(options) => worker::work(options).await,
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}
