//! The brokers the scenarios run on, each started once for the whole test process.

use std::sync::OnceLock;

use companyos_source_broker::{BrokerOptions, EmbeddedBroker};
use tokio::sync::OnceCell;
use xtask::kafka::{KafkaCluster, KafkaOptions};

/// The embedded broker, in memory, on a runtime that outlives the tests' own.
pub async fn embedded() -> String {
    static BROKER: OnceCell<String> = OnceCell::const_new();
    BROKER
        .get_or_init(async || {
            let (tell, told) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                tokio::runtime::Runtime::new().unwrap().block_on(async {
                    let broker = EmbeddedBroker::start(BrokerOptions::default()).await.unwrap();
                    tell.send(broker.bootstrap()).unwrap();
                    std::future::pending::<()>().await;
                });
            });
            told.await.unwrap()
        })
        .await
        .clone()
}

/// Apache Kafka, one broker.
pub async fn kafka() -> String {
    static CLUSTER: OnceLock<KafkaCluster> = OnceLock::new();
    tokio::task::spawn_blocking(|| {
        CLUSTER.get_or_init(|| KafkaCluster::start(KafkaOptions::default()).unwrap()).bootstrap().to_owned()
    })
    .await
    .unwrap()
}
