//! The gateway on a whole broker: idempotent producing with acks=all, on the one the demo runs.

use std::sync::Arc;

use companyos_source_broker::{BrokerOptions, EmbeddedBroker};
use companyos_source_gateway::{Gateway, GatewayConfig, ProducerConfig};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use serde_json::json;
use tokio::net::TcpListener;

use crate::harness::{DEADLINE, PARTITIONS, event, send, tenancy, tokens};

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_events_are_at_the_offsets_the_answer_names() {
    let broker = EmbeddedBroker::start(BrokerOptions::default()).await.unwrap();
    assert!(broker.create_topic("product_events", PARTITIONS).await.unwrap());
    let producer = ProducerConfig { bootstrap_servers: broker.bootstrap(), ..ProducerConfig::default() };
    let (tenancy, tokens) = (Arc::new(tenancy()), Arc::new(tokens()));
    let gateway = Gateway::new(GatewayConfig::default(), tenancy, tokens, &producer).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/events", listener.local_addr().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = gateway.clone();
    let server = tokio::spawn(async move { serving.serve(listener, async { drop(stopped.await) }).await });
    gateway.ready().await.unwrap();

    let client = reqwest::Client::new();
    for round in 0..2 {
        let events: Vec<_> = (0..200).map(|i| event(&format!("e-{round}-{i}"))).collect();
        let answer = send(client.post(&url).bearer_auth("alpha").json(&json!(events))).await;
        assert_eq!((answer.status, &answer.body["accepted"]), (202, &json!(200)), "{}", answer.body);
    }
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();

    let servers = broker.bootstrap();
    let stored = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", servers).create().unwrap();
        let size = |partition| {
            let (low, high) = consumer.fetch_watermarks("product_events", partition, DEADLINE).unwrap();
            high - low
        };
        (0..PARTITIONS).map(size).sum::<i64>()
    });
    assert_eq!(stored.await.unwrap(), 400);
    broker.shutdown().await;
}
