//! Operators that follow the log, as they move between workers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod counting;
mod world;

use std::{collections::BTreeMap, time::Duration};

use companyos_pipelines::tasks::ShardTasks;
use world::{SHARDS, World};

const TENANTS: [&str; 6] = ["alpha", "beta", "gamma", "acme", "globex", "initech"];

/// Waits until each worker owns a share and together they own every shard.
async fn settled(workers: &[&ShardTasks]) {
    world::until("shards are spread", async || {
        let owned: Vec<usize> = workers.iter().map(|w| w.owned().len()).collect();
        owned.iter().sum::<usize>() == SHARDS as usize && owned.iter().all(|n| *n > 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn operators_move_from_one_worker_to_two_and_back_and_lose_nothing() {
    let world = World::new().await;
    let mut expected: BTreeMap<String, i64> = BTreeMap::new();
    let mut sequence = 0;
    let mut feed = async |commits: usize| {
        for _ in 0..commits {
            let tenant = TENANTS[sequence % TENANTS.len()];
            let rows = 1 + sequence % 3;
            world.append(sequence as i64, tenant, rows).await;
            *expected.entry(tenant.to_owned()).or_default() += rows as i64;
            sequence += 1;
        }
    };
    let first = world.worker().await;
    settled(&[&first]).await;
    feed(12).await;
    let second = world.worker().await;
    // Rows go on coming while shards move.
    feed(12).await;
    settled(&[&first, &second]).await;
    feed(12).await;
    first.stop().await;
    feed(12).await;
    settled(&[&second]).await;
    feed(6).await;
    let total: i64 = expected.values().sum();
    world::until("all rows are counted", async || world.counted().await.len() as i64 >= total).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Each row of input gave one row with the running count of its tenant, so the running counts
    // are 1, 2, 3, … without gap or repeat exactly if state and output moved together.
    let counted = world.counted().await;
    let mut should: Vec<(String, i64)> =
        expected.iter().flat_map(|(tenant, n)| (1..=*n).map(move |i| (tenant.clone(), i))).collect();
    should.sort();
    assert_eq!(counted, should);
    second.stop().await;
    let ids = world.notice_ids();
    let all: std::collections::BTreeSet<String> = should.iter().map(|(tenant, n)| format!("{tenant}-{n}")).collect();
    assert_eq!(ids, all, "each notice at least once, with the same id");
}
