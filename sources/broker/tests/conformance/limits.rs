//! Where the brokers differ; docs/adr/0002-embedded-broker.md lists it. A limit that falls fails its test.

use std::time::Duration;

use rdkafka::{
    Offset,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
    topic_partition_list::TopicPartitionList,
};

use crate::target::{DEADLINE, config, create_topic};

pub async fn kafka_has_transactions(brokers: &str) {
    create_topic(brokers, "transactions", 1).await;
    let brokers = brokers.to_owned();
    tokio::task::spawn_blocking(move || transaction(&brokers).unwrap()).await.unwrap();
}

pub async fn embedded_has_no_transactions(brokers: &str) {
    create_topic(brokers, "transactions", 1).await;
    let brokers = brokers.to_owned();
    let error = tokio::task::spawn_blocking(move || transaction(&brokers)).await.unwrap();
    println!("a transaction on the embedded broker: {error:?}");
    assert!(error.is_err(), "the embedded broker has learned transactions: update the ADR");
}

fn transaction(brokers: &str) -> Result<(), KafkaError> {
    let wait = Duration::from_secs(10);
    let producer: ThreadedProducer<DefaultProducerContext> = config(brokers)
        .set("transactional.id", "limits")
        .set("transaction.timeout.ms", "10000")
        .set("message.timeout.ms", "10000")
        .create()?;
    producer.init_transactions(wait)?;
    producer.begin_transaction()?;
    let record = BaseRecord::<[u8], [u8]>::to("transactions").partition(0).payload(b"in a transaction");
    producer.send(record).map_err(|(error, _)| error)?;
    producer.commit_transaction(wait)?;

    let consumer: BaseConsumer =
        config(brokers).set("group.id", "unused").set("isolation.level", "read_committed").create()?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset("transactions", 0, Offset::Beginning)?;
    consumer.assign(&assignment)?;
    consumer.poll(DEADLINE).unwrap_or(Err(KafkaError::NoMessageReceived)).map(drop)
}
