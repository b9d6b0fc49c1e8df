//! `companyos broker`: the embedded Kafka broker on its own, for local work.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use companyos_schemas::{Stream, quarantine};
use companyos_source_broker::{BrokerOptions, BrokerStorage, EmbeddedBroker};

use crate::{config::TelemetrySection, shutdown, telemetry::Telemetry};

/// Where the broker listens and keeps its records.
#[derive(Debug, Args)]
pub struct BrokerArgs {
    /// Loopback address; it has no authentication
    #[arg(long, default_value = "127.0.0.1:9092")]
    listen: SocketAddr,
    /// Folder of its SQLite file
    #[arg(long, default_value = ".companyos/broker", conflicts_with = "memory")]
    data: PathBuf,
    /// Keep records in memory only
    #[arg(long)]
    memory: bool,
    /// Partitions of the streams' topics, where they do not exist yet
    #[arg(long, default_value_t = 4)]
    partitions: i32,
}

/// Serves until SIGINT or SIGTERM.
pub async fn run(args: BrokerArgs) -> Result<ExitCode> {
    let _telemetry = Telemetry::install(&TelemetrySection::default(), "broker")?;
    let shutdown = shutdown::on_signals()?;
    let storage = match args.memory {
        true => BrokerStorage::Memory,
        false => BrokerStorage::Sqlite(args.data.join("broker.db")),
    };
    let broker = EmbeddedBroker::start(BrokerOptions { storage, listen: args.listen, ..Default::default() }).await?;
    create_topics(&broker, args.partitions).await?;
    println!("broker listens on {}", broker.bootstrap());
    shutdown.cancelled().await;
    broker.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

/// The topics of all streams, and the one that announces quarantined events.
pub async fn create_topics(broker: &EmbeddedBroker, partitions: i32) -> Result<()> {
    for stream in Stream::ALL {
        broker.create_topic(stream.name(), partitions).await?;
    }
    broker.create_topic(quarantine::TABLE, 1).await?;
    Ok(())
}
