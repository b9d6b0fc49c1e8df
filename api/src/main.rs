//! `companyos`: every role of the data path as a subcommand of one binary.

mod cli;
mod commands;
mod config;
mod roles;
mod shutdown;
mod telemetry;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("companyos: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(commands::run(cli));
    // Blocking reads of standard input must not hold the exit up.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // Each layer says what it was doing, the innermost why.
            eprintln!("companyos: {error:#}");
            ExitCode::FAILURE
        }
    }
}
