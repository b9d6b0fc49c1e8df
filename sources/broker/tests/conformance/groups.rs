//! Consumer groups: partitions move one by one, positions stay.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use rdkafka::{
    ClientContext, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
};

use crate::target::{DEADLINE, PARTITIONS, config, create_topic, eventually, producer, send_numbers};

/// Gained (+) or lost (-), and which.
type Change = (char, Vec<i32>);

/// What the group told a member about partitions, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Change>>>);

impl Log {
    fn note(&self, sign: char, partitions: &TopicPartitionList) {
        let mut ids: Vec<i32> = partitions.elements().iter().map(|element| element.partition()).collect();
        ids.sort_unstable();
        self.0.lock().unwrap().push((sign, ids));
    }

    fn held(&self) -> Vec<i32> {
        let mut held = Vec::new();
        for (sign, ids) in self.0.lock().unwrap().iter() {
            match sign {
                '+' => held.extend(ids),
                _ => held.retain(|id| !ids.contains(id)),
            }
        }
        held.sort_unstable();
        held
    }
}

impl ClientContext for Log {}

impl ConsumerContext for Log {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance {
            self.note('+', partitions);
        }
    }

    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            self.note('-', partitions);
        }
    }
}

/// A group member that polls on a thread of its own until it leaves.
struct Member {
    log: Log,
    numbers: Arc<Mutex<Vec<u32>>>,
    leave: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Member {
    fn join(brokers: &str, topic: &str, group: &str, settings: &[(&str, &str)]) -> Self {
        let (log, numbers, leave) = (Log::default(), Arc::default(), Arc::new(AtomicBool::new(false)));
        let mut config = config(brokers);
        config
            .set("group.id", group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("session.timeout.ms", "10000")
            .set("heartbeat.interval.ms", "500");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let consumer: BaseConsumer<Log> = config.create_with_context(log.clone()).unwrap();
        consumer.subscribe(&[topic]).unwrap();
        let (sink, stop): (Arc<Mutex<Vec<u32>>>, _) = (Arc::clone(&numbers), Arc::clone(&leave));
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
                    sink.lock().unwrap().push(u32::from_be_bytes(message.payload().unwrap().try_into().unwrap()));
                }
            }
        });
        Self { log, numbers, leave, thread: Some(thread) }
    }

    fn leave(&mut self) {
        self.leave.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

pub async fn a_second_member_takes_half_and_gives_it_back(brokers: &str) {
    create_topic(brokers, "shared", PARTITIONS).await;
    let producer = producer(brokers, &[]);
    send_numbers(&producer, "shared", 0, 100).await;
    let first = Member::join(brokers, "shared", "two", &[]);
    eventually("the first member reads everything", || first.numbers.lock().unwrap().len() == 100).await;
    assert_eq!(first.log.held(), [0, 1, 2, 3]);

    let mut second = Member::join(brokers, "shared", "two", &[]);
    eventually("each member holds half", || first.log.held().len() == 2 && second.log.held().len() == 2).await;
    let mut all = [first.log.held(), second.log.held()].concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3], "a partition has two owners or none");
    let lost: Vec<i32> =
        first.log.0.lock().unwrap().iter().filter(|(sign, _)| *sign == '-').flat_map(|(_, ids)| ids.clone()).collect();
    assert_eq!(lost, second.log.held(), "cooperative: the first member loses what the second gets, nothing else");

    send_numbers(&producer, "shared", 100, 100).await;
    let new_ones = |member: &Member| member.numbers.lock().unwrap().iter().filter(|n| **n >= 100).count();
    eventually("both read on", || new_ones(&first) == 50 && new_ones(&second) >= 50).await;

    tokio::task::spawn_blocking(move || second.leave()).await.unwrap();
    eventually("the first member holds all again", || first.log.held() == [0, 1, 2, 3]).await;
    let mut first = first;
    tokio::task::spawn_blocking(move || first.leave()).await.unwrap();
}

pub async fn a_static_member_comes_back_to_its_partitions(brokers: &str) {
    create_topic(brokers, "static", PARTITIONS).await;
    let join = |id: &str| Member::join(brokers, "static", "fixed", &[("group.instance.id", id)]);
    let (a, mut b) = (join("a"), join("b"));
    eventually("each member holds half", || a.log.held().len() == 2 && b.log.held().len() == 2).await;
    let held = b.log.held();
    let changes_of_a = a.log.0.lock().unwrap().len();
    // A static member does not say goodbye.
    tokio::task::spawn_blocking(move || b.leave()).await.unwrap();
    let mut b = join("b");
    eventually("b holds its partitions again", || b.log.held() == held).await;
    assert_eq!(a.log.0.lock().unwrap().len(), changes_of_a, "the return of b moved partitions of a");
    let mut a = a;
    tokio::task::spawn_blocking(move || (a.leave(), b.leave())).await.unwrap();
}

pub async fn committed_offsets_are_where_the_next_member_starts(brokers: &str) {
    create_topic(brokers, "committed", PARTITIONS).await;
    send_numbers(&producer(brokers, &[]), "committed", 0, 400).await;
    let owned = brokers.to_owned();
    tokio::task::spawn_blocking(move || commit_and_ask(&owned)).await.unwrap();
    let mut member = Member::join(brokers, "committed", "positions", &[]);
    eventually("the rest is read", || member.numbers.lock().unwrap().len() == 400 - 40 - 100).await;
    let numbers = member.numbers.lock().unwrap().clone();
    assert!(numbers.iter().all(|n| n % 4 != 3), "partition 3 was committed to its end");
    assert!(numbers.iter().filter(|n| **n % 4 == 0).all(|n| *n >= 160), "partition 0 was committed up to offset 40");
    tokio::task::spawn_blocking(move || member.leave()).await.unwrap();
}

fn commit_and_ask(brokers: &str) {
    let consumer: BaseConsumer = config(brokers).set("group.id", "positions").create().unwrap();
    let mut positions = TopicPartitionList::new();
    positions.add_partition_offset("committed", 0, Offset::Offset(40)).unwrap();
    positions.add_partition_offset("committed", 3, Offset::Offset(100)).unwrap();
    consumer.commit(&positions, CommitMode::Sync).unwrap();

    let other: BaseConsumer = config(brokers).set("group.id", "positions").create().unwrap();
    let mut asked = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        asked.add_partition("committed", partition);
    }
    let answer = other.committed_offsets(asked, DEADLINE).unwrap();
    let offsets: Vec<Offset> =
        (0..PARTITIONS).map(|partition| answer.find_partition("committed", partition).unwrap().offset()).collect();
    assert_eq!(offsets, [Offset::Offset(40), Offset::Invalid, Offset::Invalid, Offset::Offset(100)]);
}
