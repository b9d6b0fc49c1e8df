//! Each event once, whoever reads it and whatever is sent twice.

use std::collections::HashSet;

use crate::world::{World, event, until};

crate::on_both_brokers!(
    events_land_once_in_their_region_with_lineage,
    a_restart_goes_on_where_the_table_stands,
    an_event_sent_again_after_a_restart_is_a_duplicate,
    partitions_move_between_workers_while_events_arrive,
    a_consumer_group_that_lies_changes_nothing,
);

fn ids(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|i| match i % 3 {
        0 => event(&format!("e{i}"), "alpha", "eu", "x"),
        1 => event(&format!("e{i}"), "alpha", "us", "x"),
        _ => event(&format!("e{i}"), "beta", "us", "x"),
    })
}

async fn events_land_once_in_their_region_with_lineage(world: World) {
    let at: HashSet<(i32, i64)> = world.send(ids(0..300)).await.into_iter().collect();
    let worker = world.worker().await;
    world.settled(300, 0).await;
    for (region, tenant, rows) in [("eu", "alpha", 100), ("us", "alpha", 100), ("us", "beta", 100)] {
        let sql =
            format!("SELECT count(*) FROM product_events_{region} WHERE region = '{region}' AND tenant = '{tenant}'");
        assert_eq!(world.count(&sql).await, rows, "{tenant} in {region}");
    }
    let lineage = world.sql("SELECT _partition, _offset FROM product_events WHERE _topic <> ''").await;
    let lineage: HashSet<(i32, i64)> =
        lineage.iter().map(|row| (row[0].parse().unwrap(), row[1].parse().unwrap())).collect();
    assert_eq!(lineage, at);
    worker.stop().await;
}

async fn a_restart_goes_on_where_the_table_stands(world: World) {
    for round in 0..3 {
        world.send(ids(round * 90..(round + 1) * 90)).await;
        let worker = world.worker().await;
        world.settled((round as u64 + 1) * 90, 0).await;
        worker.stop().await;
    }
}

async fn an_event_sent_again_after_a_restart_is_a_duplicate(world: World) {
    let first: Vec<String> = ids(0..60).collect();
    world.send(first.clone()).await;
    let worker = world.worker().await;
    world.settled(60, 0).await;
    worker.stop().await;
    // The key decides the partition, so the same text goes to the partition that knows it.
    world.send(first).await;
    world.send(ids(60..90)).await;
    let worker = world.worker().await;
    world.settled(90, 0).await;
    worker.stop().await;
}

async fn partitions_move_between_workers_while_events_arrive(world: World) {
    let first = world.worker().await;
    first.owns(4).await;
    world.send(ids(0..200)).await;
    let second = world.worker().await;
    world.send(ids(200..400)).await;
    until("both workers have partitions", async || {
        let (a, b) = (first.health.partitions(), second.health.partitions());
        a > 0 && b > 0 && a + b == 4
    })
    .await;
    world.send(ids(400..600)).await;
    first.stop().await;
    world.send(ids(600..800)).await;
    second.owns(4).await;
    world.settled(800, 0).await;
    second.stop().await;
}

async fn a_consumer_group_that_lies_changes_nothing(world: World) {
    world.send(ids(0..100)).await;
    let worker = world.worker().await;
    world.settled(100, 0).await;
    worker.stop().await;
    // Someone resets the group's offsets to the start; the table knows better.
    let consumer: rdkafka::consumer::BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &world.bootstrap)
        .set("group.id", format!("companyos.{}", world.topic))
        .create()
        .unwrap();
    let mut offsets = rdkafka::TopicPartitionList::new();
    for partition in 0..4 {
        offsets.add_partition_offset(&world.topic, partition, rdkafka::Offset::Offset(0)).unwrap();
    }
    tokio::task::spawn_blocking(move || {
        rdkafka::consumer::Consumer::commit(&consumer, &offsets, rdkafka::consumer::CommitMode::Sync).unwrap();
    })
    .await
    .unwrap();
    world.send(ids(100..150)).await;
    let worker = world.worker().await;
    world.settled(150, 0).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_topic_made_anew_is_refused_instead_of_skipped() {
    let world = World::new(&crate::brokers::kafka().await).await;
    world.send(ids(0..60)).await;
    let worker = world.worker().await;
    world.settled(60, 0).await;
    worker.stop().await;
    world.make_topic_anew().await;
    world.send(ids(60..63)).await;
    let error = world.worker().await.failure().await;
    assert!(error.contains("made anew"), "{error}");
}
