//! Records come back as they were sent.

use std::time::Duration;

use rdkafka::{
    Message, Offset, Timestamp,
    consumer::{BaseConsumer, Consumer},
    message::{Header, Headers, OwnedHeaders},
    producer::FutureRecord,
    topic_partition_list::TopicPartitionList,
};

use crate::target::{
    DEADLINE, PARTITIONS, config, create_topic, number_of, partition_of, producer, read, send, send_numbers,
};

pub async fn idempotent_produce_keeps_order_and_offsets(brokers: &str) {
    const COUNT: u32 = 2_000;
    create_topic(brokers, "idempotent", PARTITIONS).await;
    // Small batches, so that several are in flight for each partition.
    let producer = producer(brokers, &[("batch.num.messages", "50")]);
    let mut delivered = send_numbers(&producer, "idempotent", 0, COUNT).await;
    delivered.sort_unstable();

    let found = read(brokers, "idempotent", PARTITIONS, Offset::Beginning).await;
    let mut read_back = Vec::new();
    for (partition, messages) in &found {
        let numbers: Vec<u32> = messages.iter().map(number_of).collect();
        let sent: Vec<u32> = (0..COUNT).filter(|number| partition_of(*number) == *partition).collect();
        assert_eq!(numbers, sent, "partition {partition}");
        read_back.extend(messages.iter().map(|message| (*partition, message.offset(), number_of(message))));
    }
    assert_eq!(read_back, delivered, "the acknowledged offsets are not those of the records");
    for partition in 0..PARTITIONS {
        let offsets: Vec<i64> =
            delivered.iter().filter(|(p, ..)| *p == partition).map(|(_, offset, _)| *offset).collect();
        assert_eq!(offsets, (0..i64::from(COUNT) / i64::from(PARTITIONS)).collect::<Vec<_>>());
    }
}

pub async fn every_codec_is_read_back(brokers: &str) {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("codec-{codec}");
        create_topic(brokers, &topic, 1).await;
        // One batch of many alike records: a codec that is not smaller would not be used.
        let producer = producer(brokers, &[("compression.type", codec), ("linger.ms", "50")]);
        let values: Vec<String> =
            (0..200).map(|i| format!("{{\"event\":{i},\"text\":\"{}\"}}", "again ".repeat(40))).collect();
        let sending = values.iter().map(|value| {
            let record = FutureRecord::<[u8], [u8]>::to(&topic).partition(0).payload(value.as_bytes());
            producer.send_result(record).map_err(|(error, _)| error).unwrap()
        });
        for delivery in sending.collect::<Vec<_>>() {
            delivery.await.unwrap().map_err(|(error, _)| error).unwrap();
        }
        let found = read(brokers, &topic, 1, Offset::Beginning).await;
        let texts: Vec<&[u8]> = found[&0].iter().map(|message| message.payload().unwrap()).collect();
        assert_eq!(texts, values.iter().map(String::as_bytes).collect::<Vec<_>>(), "{codec}");
    }
}

pub async fn records_of_one_mebibyte_pass(brokers: &str) {
    create_topic(brokers, "large", 1).await;
    let producer = producer(brokers, &[("message.max.bytes", "2097152")]);
    let values: Vec<Vec<u8>> = (1..=3).map(noise).collect();
    for value in &values {
        send(&producer, FutureRecord::to("large").partition(0).payload(value)).await;
    }
    let found = read(brokers, "large", 1, Offset::Beginning).await;
    assert_eq!(found[&0].len(), values.len());
    for (message, value) in found[&0].iter().zip(&values) {
        assert!(message.payload() == Some(value.as_slice()), "a record of 1 MiB came back changed");
    }
}

/// 1 MiB that does not compress (xorshift).
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..(1 << 20) / 8).flat_map(|_| next()).collect()
}

pub async fn headers_keys_and_timestamps_are_kept(brokers: &str) {
    const IN_2015: i64 = 1_431_849_600_123;
    create_topic(brokers, "headers", 1).await;
    let producer = producer(brokers, &[]);
    let headers = OwnedHeaders::new()
        .insert(Header { key: "traceparent", value: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01") })
        .insert(Header { key: "twice", value: Some("first") })
        .insert(Header { key: "twice", value: Some("second") })
        .insert(Header { key: "bytes", value: Some(&[0_u8, 255, 10][..]) })
        .insert(Header::<&str> { key: "none", value: None });
    let record = FutureRecord::to("headers").partition(0).key(&b"key \xff"[..]).payload(&b"with"[..]);
    send(&producer, record.timestamp(IN_2015).headers(headers.clone())).await;
    send(&producer, FutureRecord::to("headers").partition(0).payload(&b"without"[..]).timestamp(IN_2015 + 60_000))
        .await;

    let found = read(brokers, "headers", 1, Offset::Beginning).await;
    let [with, without] = found[&0].as_slice() else { panic!("{} records, not 2", found[&0].len()) };
    assert_eq!(with.key(), Some(&b"key \xff"[..]));
    assert_eq!(with.timestamp(), Timestamp::CreateTime(IN_2015));
    let pairs = |headers: &OwnedHeaders| {
        headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect::<Vec<_>>()
    };
    assert_eq!(pairs(with.headers().unwrap()), pairs(&headers));
    assert_eq!(without.key(), None);
    assert_eq!(without.timestamp(), Timestamp::CreateTime(IN_2015 + 60_000));
    assert_eq!(without.headers().map_or(0, Headers::count), 0);
}

pub async fn a_tombstone_is_not_an_empty_value(brokers: &str) {
    create_topic(brokers, "tombstones", 1).await;
    let producer = producer(brokers, &[]);
    send(&producer, FutureRecord::to("tombstones").partition(0).key(&b"k"[..]).payload(&b"value"[..])).await;
    send(&producer, FutureRecord::to("tombstones").partition(0).key(&b"k"[..])).await;
    send(&producer, FutureRecord::to("tombstones").partition(0).key(&b"k"[..]).payload(&b""[..])).await;
    send(&producer, FutureRecord::to("tombstones").partition(0).key(&b""[..]).payload(&b"empty key"[..])).await;

    let found = read(brokers, "tombstones", 1, Offset::Beginning).await;
    let seen: Vec<_> = found[&0].iter().map(|message| (message.key(), message.payload())).collect();
    assert_eq!(
        seen,
        [
            (Some(&b"k"[..]), Some(&b"value"[..])),
            (Some(b"k"), None),
            (Some(b"k"), Some(b"")),
            (Some(b""), Some(b"empty key")),
        ]
    );
}

pub async fn reading_starts_at_any_offset(brokers: &str) {
    create_topic(brokers, "offsets", PARTITIONS).await;
    let producer = producer(brokers, &[]);
    send_numbers(&producer, "offsets", 0, 400).await;
    for (start, first) in [(0, 0), (1, 1), (57, 57), (99, 99), (100, 100)] {
        let found = read(brokers, "offsets", PARTITIONS, Offset::Offset(start)).await;
        for (partition, messages) in found {
            let offsets: Vec<i64> = messages.iter().map(Message::offset).collect();
            assert_eq!(offsets, (first..100).collect::<Vec<_>>(), "partition {partition} from {start}");
        }
    }
    let brokers = brokers.to_owned();
    tokio::task::spawn_blocking(move || seek_and_list(&brokers)).await.unwrap();
}

/// Back to offset 0 on a running consumer, as after a lost commit; and what the broker says of its ends.
fn seek_and_list(brokers: &str) {
    let consumer: BaseConsumer = config(brokers).set("group.id", "unused").create().unwrap();
    assert_eq!(consumer.fetch_watermarks("offsets", 2, DEADLINE).unwrap(), (0, 100));
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset("offsets", 2, Offset::Offset(90)).unwrap();
    consumer.assign(&assignment).unwrap();
    let next = || consumer.poll(DEADLINE).unwrap().unwrap().offset();
    assert_eq!(next(), 90);
    consumer.seek("offsets", 2, Offset::Offset(0), Duration::from_secs(10)).unwrap();
    assert_eq!(next(), 0);
    assert_eq!(next(), 1);
}
