//! The brokers under test, and the clients that ask them.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use companyos_source_broker::{BrokerOptions, BrokerStorage, EmbeddedBroker};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::OwnedMessage,
    producer::{FutureProducer, FutureRecord},
};
use xtask::kafka::{KafkaCluster, KafkaOptions};

pub const PARTITIONS: i32 = 4;
/// Long enough for a loaded machine; nothing waits that long when all is well.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub enum Target {
    Embedded { broker: Option<Box<EmbeddedBroker>>, options: BrokerOptions },
    Kafka(Arc<KafkaCluster>),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { options, .. } => write!(f, "embedded broker on {:?}", options.storage),
            Self::Kafka(_) => f.write_str("Apache Kafka"),
        }
    }
}

impl Target {
    pub async fn embedded(storage: BrokerStorage) -> Self {
        let mut options = BrokerOptions { storage, ..BrokerOptions::default() };
        let broker = EmbeddedBroker::start(options.clone()).await.unwrap();
        options.listen = broker.bootstrap().parse().unwrap();
        Self::Embedded { broker: Some(Box::new(broker)), options }
    }

    pub async fn kafka() -> Self {
        let start = || KafkaCluster::start(KafkaOptions::default());
        Self::Kafka(Arc::new(tokio::task::spawn_blocking(start).await.unwrap().unwrap()))
    }

    pub fn bootstrap(&self) -> String {
        match self {
            Self::Embedded { options, .. } => options.listen.to_string(),
            Self::Kafka(cluster) => cluster.bootstrap().to_owned(),
        }
    }

    /// Down: Kafka by SIGKILL, the embedded broker by dropping every connection.
    pub async fn stop(&mut self) {
        match self {
            Self::Embedded { broker, .. } => broker.take().unwrap().shutdown().await,
            Self::Kafka(cluster) => cluster.kill(1).unwrap(),
        }
    }

    /// Up again on the same data and port.
    pub async fn start(&mut self) {
        match self {
            Self::Embedded { broker, options } => {
                *broker = Some(Box::new(EmbeddedBroker::start(options.clone()).await.unwrap()));
            }
            Self::Kafka(cluster) => {
                let cluster = Arc::clone(cluster);
                tokio::task::spawn_blocking(move || cluster.restart(1)).await.unwrap().unwrap();
            }
        }
    }
}

pub fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

/// A producer as ours are: idempotent, acks of all replicas.
pub fn producer(brokers: &str, settings: &[(&str, &str)]) -> FutureProducer {
    let mut config = config(brokers);
    config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "5");
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config.create().unwrap()
}

pub async fn create_topic(brokers: &str, topic: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = config(brokers).create().unwrap();
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(DEADLINE));
    for result in admin.create_topics([&new], &options).await.unwrap() {
        result.unwrap();
    }
}

pub async fn send(producer: &FutureProducer, record: FutureRecord<'_, [u8], [u8]>) -> (i32, i64) {
    let delivery = producer.send(record, DEADLINE).await.map_err(|(error, _)| error).unwrap();
    (delivery.partition, delivery.offset)
}

/// Sends values `first..first + count` in order to their partitions, all in flight at once.
pub async fn send_numbers(producer: &FutureProducer, topic: &str, first: u32, count: u32) -> Vec<(i32, i64, u32)> {
    let mut deliveries = Vec::new();
    for number in first..first + count {
        let value = number.to_be_bytes();
        let record = FutureRecord::<[u8], [u8]>::to(topic).partition(partition_of(number)).payload(&value);
        deliveries.push((number, producer.send_result(record).map_err(|(error, _)| error).unwrap()));
    }
    let mut done = Vec::new();
    for (number, delivery) in deliveries {
        let delivery = delivery.await.unwrap().map_err(|(error, _)| error).unwrap();
        done.push((delivery.partition, delivery.offset, number));
    }
    done
}

pub fn partition_of(number: u32) -> i32 {
    i32::try_from(number).unwrap() % PARTITIONS
}

pub fn number_of(message: &OwnedMessage) -> u32 {
    u32::from_be_bytes(message.payload().unwrap().try_into().unwrap())
}

/// Everything from `start` to the end that each partition has now, without a group.
pub async fn read(brokers: &str, topic: &str, partitions: i32, start: Offset) -> BTreeMap<i32, Vec<OwnedMessage>> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    tokio::task::spawn_blocking(move || read_blocking(&brokers, &topic, partitions, start)).await.unwrap()
}

fn read_blocking(brokers: &str, topic: &str, partitions: i32, start: Offset) -> BTreeMap<i32, Vec<OwnedMessage>> {
    let consumer: BaseConsumer = config(brokers)
        .set("group.id", "unused")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("fetch.message.max.bytes", "4194304")
        .set("auto.offset.reset", "error")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    let mut found = BTreeMap::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition, start).unwrap();
        found.insert(partition, Vec::new());
    }
    consumer.assign(&assignment).unwrap();
    let deadline = std::time::Instant::now() + DEADLINE;
    let mut ended = 0;
    while ended < partitions {
        assert!(
            std::time::Instant::now() < deadline,
            "{topic}: {ended} of {partitions} partitions were read to the end"
        );
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("reading {topic}: {error}"),
            Some(Ok(message)) => found.get_mut(&message.partition()).unwrap().push(message.detach()),
        }
    }
    found
}

/// Waits for a condition that other threads bring about.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
