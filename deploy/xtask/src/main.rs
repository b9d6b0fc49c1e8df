//! `cargo xtask TASK`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{
    checks::{self, Step},
    kafka::{daemon, jars},
    layers,
};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of this repository")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// A real Apache Kafka on this machine
    Kafka {
        #[command(subcommand)]
        action: KafkaAction,
    },
    /// Check that the crates depend on each other in layer order only
    Layers,
    /// Everything a change must pass: format, lints, all tests (on a real Kafka too), layers, licences
    Test {
        /// Run these steps only
        #[arg(long, value_delimiter = ',')]
        only: Vec<Step>,
    },
}

#[derive(Subcommand)]
enum KafkaAction {
    /// Start it in the background and print its bootstrap servers
    Up {
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=3))]
        brokers: u16,
        /// The first broker's port, the others follow; 0 takes free ones
        #[arg(long, default_value_t = daemon::DEFAULT_PORT)]
        port: u16,
        /// Keep the data here; without it every start is empty
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Stop it
    Down {
        /// The folder given to `up`
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Fetch its jars through Maven, unless they are there, and print where they are
    Jars,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().task {
        Task::Kafka { action: KafkaAction::Up { brokers, port, dir } } => {
            println!("{}", daemon::up(brokers, port, dir)?);
        }
        Task::Kafka { action: KafkaAction::Down { dir } } => {
            let stopped = daemon::down(dir)?;
            println!("{stopped} broker{} stopped", if stopped == 1 { "" } else { "s" });
        }
        Task::Kafka { action: KafkaAction::Jars } => println!("{}", jars::fetch()?.display()),
        Task::Layers => {
            let violations = layers::check()?;
            for violation in &violations {
                eprintln!("{violation}");
            }
            if !violations.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
            println!("the crates follow the layer order");
        }
        Task::Test { only } => return checks::run(&only),
    }
    Ok(ExitCode::SUCCESS)
}
