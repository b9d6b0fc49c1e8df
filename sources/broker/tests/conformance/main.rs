//! One suite on the embedded broker (memory and SQLite) and on Apache Kafka: what our pipelines ask of a broker.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod groups;
mod limits;
mod records;
mod restart;
mod target;

use std::{future::Future, pin::Pin};

use companyos_source_broker::BrokerStorage;
use target::Target;
use tokio::task::JoinSet;

type Check = (&'static str, fn(String) -> Pin<Box<dyn Future<Output = ()> + Send>>);

macro_rules! checks {
    ($($module:ident :: $name:ident),* $(,)?) => {
        [$((stringify!($name), |brokers| Box::pin(async move { $module::$name(&brokers).await }))),*]
    };
}

/// Each on topics and groups of its own, all at once: a broker serves more than one client.
async fn run_all(target: &Target) {
    let all: &[Check] = &checks![
        records::idempotent_produce_keeps_order_and_offsets,
        records::every_codec_is_read_back,
        records::records_of_one_mebibyte_pass,
        records::headers_keys_and_timestamps_are_kept,
        records::a_tombstone_is_not_an_empty_value,
        records::reading_starts_at_any_offset,
        groups::a_second_member_takes_half_and_gives_it_back,
        groups::a_static_member_comes_back_to_its_partitions,
        groups::committed_offsets_are_where_the_next_member_starts,
    ];
    let mut running = JoinSet::new();
    for (name, check) in all {
        let brokers = target.bootstrap();
        running.spawn(async move { (*name, tokio::spawn(check(brokers)).await.err()) });
    }
    let failed: Vec<_> = running.join_all().await.into_iter().filter_map(|(name, error)| error.map(|_| name)).collect();
    assert!(failed.is_empty(), "{target} fails: {failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_memory() {
    let target = Target::embedded(BrokerStorage::Memory).await;
    run_all(&target).await;
    limits::embedded_has_no_transactions(&target.bootstrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    let mut target = Target::embedded(BrokerStorage::Sqlite(dir.path().join("broker.db"))).await;
    run_all(&target).await;
    limits::embedded_has_no_transactions(&target.bootstrap()).await;
    restart::a_restart_loses_nothing(&mut target).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_apache_kafka() {
    let mut target = Target::kafka().await;
    run_all(&target).await;
    limits::kafka_has_transactions(&target.bootstrap()).await;
    restart::a_restart_loses_nothing(&mut target).await;
}
