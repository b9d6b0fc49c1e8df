//! Everything a producer may send: arrays, CloudEvents, codecs, trace context, large records.

use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};

use crate::world::{PATIENCE, Sent, World, event};

crate::on_both_brokers!(
    arrays_and_cloud_events_become_rows,
    every_codec_is_read,
    a_worker_with_a_small_epoch_reads_more_than_fits,
    trace_context_is_carried_into_the_row,
);

async fn arrays_and_cloud_events_become_rows(world: World) {
    let (a, b, c, d) = (
        event("a", "alpha", "eu", "1"),
        event("b", "beta", "us", "2"),
        event("c", "alpha", "eu", "3"),
        event("d", "alpha", "us", "4"),
    );
    let structured = format!(
        r#"{{"specversion":"1.0","id":"c","source":"/shop","type":"com.example.used","time":"2026-01-01T00:00:00Z","datacontenttype":"application/json","data":{c}}}"#
    );
    let binary = Sent {
        payload: Some(d.into_bytes()),
        headers: vec![
            ("ce_specversion", "1.0".into()),
            ("ce_id", "d".into()),
            ("ce_source", "/shop".into()),
            ("ce_type", "com.example.used".into()),
            ("content-type", "application/json".into()),
        ],
        ..Sent::default()
    };
    let structured = Sent {
        payload: Some(structured.into_bytes()),
        headers: vec![("content-type", "application/cloudevents+json".into())],
        ..Sent::default()
    };
    world.send([Sent::from(format!("[{a},{b},7]")), structured, binary]).await;
    let worker = world.worker().await;
    world.settled(4, 1).await;
    let rows = world.sql("SELECT event_id, _index FROM product_events ORDER BY 1").await;
    assert_eq!(rows, [["a", "0"], ["b", "1"], ["c", "0"], ["d", "0"]]);
    assert_eq!(world.sql("SELECT reason, _index FROM quarantine").await, [["not_an_object", "2"]]);
    worker.stop().await;
}

async fn every_codec_is_read(world: World) {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", &world.bootstrap)
            .set("compression.codec", codec)
            .create()
            .unwrap();
        let record = event(codec, "alpha", "eu", &"long ".repeat(500));
        producer.send(FutureRecord::to(&world.topic).key(codec).payload(&record), PATIENCE).await.unwrap();
    }
    let worker = world.worker().await;
    world.settled(5, 0).await;
    worker.stop().await;
}

async fn a_worker_with_a_small_epoch_reads_more_than_fits(world: World) {
    let note = "x".repeat(20_000);
    world.send((0..400).map(|i| event(&format!("big{i}"), "alpha", "eu", &note))).await;
    let worker = world
        .worker_with(|setup| {
            setup.config.epoch_max_bytes = 1 << 20;
            setup.config.batch_rows = 16;
        })
        .await;
    world.settled(400, 0).await;
    worker.stop().await;
}

async fn trace_context_is_carried_into_the_row(world: World) {
    let traced = Sent {
        headers: vec![("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into())],
        ..Sent::from(event("t", "alpha", "eu", "x"))
    };
    world.send([traced]).await;
    let worker = world.worker().await;
    world.settled(1, 0).await;
    assert_eq!(world.sql("SELECT _trace_id FROM product_events").await, [["4bf92f3577b34da6a3ce929d0e0e4736"]]);
    worker.stop().await;
}
