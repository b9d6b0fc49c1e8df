//! A broker that was down has everything it acknowledged.

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
};

use crate::target::{DEADLINE, PARTITIONS, Target, config, create_topic, number_of, producer, read, send_numbers};

pub async fn a_restart_loses_nothing(target: &mut Target) {
    let brokers = target.bootstrap();
    create_topic(&brokers, "durable", PARTITIONS).await;
    let producer = producer(&brokers, &[]);
    send_numbers(&producer, "durable", 0, 400).await;
    let owned = brokers.clone();
    tokio::task::spawn_blocking(move || commit(&owned)).await.unwrap();

    for round in 0..3_u32 {
        target.stop().await;
        // The same producer goes on: what it sends while the broker is down arrives once.
        let while_down = {
            let producer = producer.clone();
            tokio::spawn(async move { send_numbers(&producer, "durable", 400 + round * 100, 100).await })
        };
        target.start().await;
        while_down.await.unwrap();

        let count = 400 + (round + 1) * 100;
        let found = read(&brokers, "durable", PARTITIONS, Offset::Beginning).await;
        let mut numbers: Vec<u32> = found.values().flatten().map(number_of).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "{target} after restart {round}");
        let owned = brokers.clone();
        assert_eq!(tokio::task::spawn_blocking(move || committed(&owned)).await.unwrap(), Offset::Offset(77));
    }
}

fn group(brokers: &str) -> BaseConsumer {
    config(brokers).set("group.id", "survivor").create().unwrap()
}

fn commit(brokers: &str) {
    let mut positions = TopicPartitionList::new();
    positions.add_partition_offset("durable", 1, Offset::Offset(77)).unwrap();
    group(brokers).commit(&positions, CommitMode::Sync).unwrap();
}

fn committed(brokers: &str) -> Offset {
    let mut asked = TopicPartitionList::new();
    asked.add_partition("durable", 1);
    group(brokers).committed_offsets(asked, DEADLINE).unwrap().elements()[0].offset()
}
