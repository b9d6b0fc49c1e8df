//! The engine as its users meet it: records on a broker, workers that come, go and die, rows in
//! tables. Every scenario runs on the embedded broker and on Apache Kafka.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod brokers;
mod exactly_once;
mod governed;
mod poison;
mod reading;
mod world;

/// Runs a scenario on both brokers, as two tests.
#[macro_export]
macro_rules! on_both_brokers {
    ($($scenario:ident),+ $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $scenario() {
                super::$scenario($crate::world::World::new(&$crate::brokers::embedded().await).await).await;
            })+
        }
        mod kafka {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $scenario() {
                super::$scenario($crate::world::World::new(&$crate::brokers::kafka().await).await).await;
            })+
        }
    };
}
