//! The broker of a run: the product's own, or Apache Kafka.

use std::path::Path;

use anyhow::Result;
use companyos_schemas::Stream;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use xtask::kafka::{KafkaCluster, KafkaOptions};

use super::Process;

/// Stops when dropped.
pub(crate) enum Broker {
    Embedded(Process),
    Kafka(KafkaCluster),
}

const PARTITIONS: i32 = 4;

impl Broker {
    pub(crate) async fn start(kafka: bool, binary: &Path, folder: &Path) -> Result<Self> {
        if kafka {
            let cluster = tokio::task::spawn_blocking(|| KafkaCluster::start(KafkaOptions::default())).await??;
            make_topics(cluster.bootstrap()).await?;
            return Ok(Self::Kafka(cluster));
        }
        let arguments = ["broker", "--memory", "--listen", "127.0.0.1:0"].map(AsRef::as_ref);
        Ok(Self::Embedded(Process::start(binary, folder, "broker", &arguments)?))
    }

    /// For `bootstrap.servers`.
    pub(crate) async fn bootstrap(&mut self) -> Result<String> {
        match self {
            Self::Embedded(process) => process.word_after("broker listens on ").await,
            Self::Kafka(cluster) => Ok(cluster.bootstrap().to_owned()),
        }
    }

    /// Fails if it ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self {
            Self::Embedded(process) => process.check(),
            Self::Kafka(_) => Ok(()),
        }
    }
}

/// As `companyos broker` makes them.
async fn make_topics(bootstrap: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
    let topic = |name, partitions| NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let mut topics: Vec<_> = Stream::ALL.iter().map(|stream| topic(stream.name(), PARTITIONS)).collect();
    topics.push(topic("quarantine", 1));
    for result in admin.create_topics(&topics, &AdminOptions::new()).await? {
        result.map_err(|(topic, code)| anyhow::anyhow!("topic {topic}: {code}"))?;
    }
    Ok(())
}
