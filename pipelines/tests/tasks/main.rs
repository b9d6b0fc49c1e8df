//! Operators that follow the log, as they move between workers and as their store fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod counting;
mod flaky;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
    time::Duration,
};

use companyos_pipelines::tasks::ShardTasks;
use world::{SHARDS, World};

const TENANTS: [&str; 6] = ["alpha", "beta", "omega", "acme", "globex", "initech"];

/// Rows committed so far.
struct Feed<'a> {
    world: &'a World,
    sequence: usize,
    rows: BTreeMap<String, i64>,
}

impl<'a> Feed<'a> {
    fn new(world: &'a World) -> Self {
        Self { world, sequence: 0, rows: BTreeMap::new() }
    }

    async fn commits(&mut self, commits: usize) {
        for _ in 0..commits {
            let tenant = TENANTS[self.sequence % TENANTS.len()];
            let rows = 1 + self.sequence % 3;
            self.world.append(self.sequence as i64, tenant, rows).await;
            *self.rows.entry(tenant.to_owned()).or_default() += rows as i64;
            self.sequence += 1;
        }
    }

    /// Each row gives one row with the running count of its tenant, so these are 1, 2, 3, … without
    /// gap or repeat exactly if state, positions and output moved together.
    async fn check(&self) {
        let mut should: Vec<(String, i64)> =
            self.rows.iter().flat_map(|(tenant, n)| (1..=*n).map(move |i| (tenant.clone(), i))).collect();
        should.sort();
        let enough = async || self.world.counted().await.len() >= should.len();
        world::until("all rows are counted", enough).await;
        // Anything that is done twice would come now.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(self.world.counted().await, should);
        let ids: BTreeSet<String> = should.iter().map(|(tenant, n)| format!("{tenant}-{n}")).collect();
        world::until("all notices are sent", async || self.world.notice_ids() == ids).await;
    }
}

/// Waits until each worker owns a share and together they own every shard.
async fn settled(workers: &[&ShardTasks]) {
    world::until("shards are spread", async || {
        let owned: Vec<usize> = workers.iter().map(|w| w.owned().len()).collect();
        owned.iter().sum::<usize>() == SHARDS as usize && owned.iter().all(|n| *n > 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn operators_move_from_one_worker_to_four_and_back_and_lose_nothing() {
    let world = World::new().await;
    let mut feed = Feed::new(&world);
    let first = world.worker().await;
    settled(&[&first]).await;
    feed.commits(12).await;
    let others = [world.worker().await, world.worker().await, world.worker().await];
    // Rows go on coming while shards move.
    feed.commits(12).await;
    let [second, third, fourth] = others;
    settled(&[&first, &second, &third, &fourth]).await;
    feed.commits(12).await;
    first.stop().await;
    feed.commits(6).await;
    second.stop().await;
    third.stop().await;
    feed.commits(6).await;
    settled(&[&fourth]).await;
    feed.commits(6).await;
    feed.check().await;
    fourth.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_that_fails_often_delays_and_changes_nothing() {
    let seed = rand::random();
    println!("seed {seed}");
    let world = World::new().await;
    let mut feed = Feed::new(&world);
    let (worker, failures) = world.flaky_worker(seed).await;
    for _ in 0..6 {
        feed.commits(6).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    feed.check().await;
    assert!(failures.load(Ordering::Relaxed) > 10, "the store hardly failed");
    worker.stop().await;
}
