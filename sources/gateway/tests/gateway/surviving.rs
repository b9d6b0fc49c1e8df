//! Retries, a broker that is down, clients that hang up, shutdown: what was promised holds.

use std::time::{Duration, Instant};

use crate::harness::{DEADLINE, PARTITIONS, event, eventually, send, start};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_repeats_the_answer_and_not_the_work() {
    let harness = start(1, |_, _| ()).await;
    let body = event("once");
    let post = |body: &Value| harness.post("/v1/events").header("idempotency-key", "k-1").json(body);
    let first = send(post(&body)).await;
    let again = send(post(&body)).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (202, ""));
    assert_eq!((again.status, again.header("idempotency-replayed")), (202, "true"));
    assert_eq!(first.body, again.body);
    assert_eq!(harness.event_ids("product_events", 1), ["once"]);
    let other = send(post(&event("other"))).await;
    assert_eq!((other.status, &other.body["type"]), (422, &json!("urn:companyos:problem:idempotency-key-reused")));
    // The key is the token's own.
    let stranger = harness.client.post(format!("{}/v1/events", harness.url)).bearer_auth("beta");
    assert_eq!(send(stranger.header("idempotency-key", "k-1").json(&body)).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_requests_with_one_key_at_once_one_is_told_to_wait() {
    let harness = start(1, |_, _| ()).await;
    // Connected first, so that only the record itself is slow.
    assert_eq!(harness.send_json(&event("first")).await.status, 202);
    harness.cluster.broker_round_trip_time(-1, Duration::from_secs(1)).unwrap();
    let body = event("once");
    let post = || send(harness.post("/v1/events").header("idempotency-key", "k").json(&body));
    let (a, b) = tokio::join!(post(), post());
    let (done, told) = if a.status == 202 { (a, b) } else { (b, a) };
    assert_eq!((done.status, told.status, told.header("retry-after")), (202, 409, "1"));
    assert_eq!(send(harness.post("/v1/events").header("idempotency-key", "k").json(&body)).await.body, done.body);
    assert_eq!(harness.event_ids("product_events", 2), ["first", "once"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_finds_its_answer_waiting() {
    let harness = start(1, |_, _| ()).await;
    assert_eq!(harness.send_json(&event("first")).await.status, 202);
    harness.cluster.broker_round_trip_time(-1, Duration::from_secs(1)).unwrap();
    let body = event("kept");
    let post = || harness.post("/v1/events").header("idempotency-key", "k").json(&body);
    let hung_up = post().timeout(Duration::from_millis(300)).send().await.unwrap_err();
    assert!(hung_up.is_timeout());
    eventually("the answer is replayed", || async {
        let retry = send(post()).await;
        assert!([202, 409].contains(&retry.status), "{}", retry.body);
        retry.header("idempotency-replayed") == "true"
    })
    .await;
    assert_eq!(harness.event_ids("product_events", 2), ["first", "kept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_down_means_503_and_not_ready_until_it_is_back() {
    let harness = start(1, |_, producer| producer.delivery_timeout = Duration::from_millis(500)).await;
    let ready = || async { send(harness.client.get(format!("{}/readyz", harness.url))).await.status };
    eventually("ready", || async { ready().await == 200 }).await;
    assert_eq!(harness.send_json(&event("before")).await.status, 202);
    harness.cluster.broker_down(-1).unwrap();
    let body = event("during");
    let post = || harness.post("/v1/events").header("idempotency-key", "k").json(&body);
    let answer = send(post()).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, "5"));
    assert_eq!((answer.outcomes(), &answer.body["accepted"]), (vec!["broker_unavailable"], &json!(0)));
    eventually("not ready", || async { ready().await == 503 }).await;
    assert!(harness.gateway.ready().await.is_err());
    let health = send(harness.client.get(format!("{}/healthz", harness.url))).await;
    assert_eq!(health.status, 200);
    harness.cluster.broker_up(-1).unwrap();
    eventually("ready again", || async { ready().await == 200 }).await;
    // The refusal was not kept under the key: the retry is worked on.
    eventually("accepted again", || async { send(post()).await.status == 202 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_met_a_fatal_error_is_replaced() {
    let harness = start(1, |_, producer| producer.delivery_timeout = Duration::from_secs(2)).await;
    assert_eq!(harness.send_json(&event("before")).await.status, 202);
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    harness.cluster.request_errors(RDKafkaApiKey::Produce, &[error]);
    assert_eq!(harness.send_json(&event("during")).await.status, 503);
    assert_eq!(harness.send_json(&event("after")).await.status, 202);
    assert_eq!(harness.event_ids("product_events", 2), ["after", "before"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_too_large_for_the_broker_is_the_clients_to_fix() {
    let harness = start(1, |_, _| ()).await;
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    harness.cluster.request_errors(RDKafkaApiKey::Produce, &[error]);
    let answer = harness.send_json(&event("large")).await;
    assert_eq!((answer.status, answer.outcomes()), (422, vec!["too_large"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_half_the_brokers_are_down_the_answer_says_which_events_are_safe() {
    let harness = start(2, |_, producer| producer.delivery_timeout = Duration::from_secs(2)).await;
    for partition in 0..PARTITIONS {
        harness.cluster.partition_leader("product_events", partition, Some(1 + partition % 2)).unwrap();
    }
    let events: Vec<Value> = (0..40).map(|i| event(&format!("e-{i:02}"))).collect();
    assert_eq!(harness.send_json(&json!(events)).await.status, 202);
    let known = harness.records("product_events", 40).len();
    harness.cluster.broker_down(2).unwrap();
    let events: Vec<Value> = (0..40).map(|i| event(&format!("f-{i:02}"))).collect();
    let answer = harness.send_json(&json!(events)).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    let acked: Vec<&Value> =
        answer.body["results"].as_array().unwrap().iter().filter(|r| r["status"] == "accepted").collect();
    assert!(!acked.is_empty() && acked.len() < 40, "{} acknowledged", acked.len());
    assert!(acked.iter().all(|r| r["partition"].as_i64().unwrap() % 2 == 0));
    harness.cluster.broker_up(2).unwrap();
    let stored = harness.event_ids("product_events", known + acked.len());
    assert!(acked.iter().all(|r| stored.iter().any(|id| r["event_id"] == id.as_str())));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_allowed_are_told_to_come_back() {
    let harness = start(1, |config, _| config.limits.max_requests = 1).await;
    assert_eq!(harness.send_json(&event("first")).await.status, 202);
    harness.cluster.broker_round_trip_time(-1, Duration::from_secs(1)).unwrap();
    let (a, b) = (event("a"), event("b"));
    let (a, b) = tokio::join!(harness.send_json(&a), harness.send_json(&b));
    let (taken, told) = if a.status == 202 { (a, b) } else { (b, a) };
    assert_eq!((taken.status, told.status, told.header("retry-after")), (202, 503, "1"));
    assert_eq!(told.body["type"], "urn:companyos:problem:overloaded");
    assert_eq!(harness.gateway.requests_in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_finishes_what_is_under_way() {
    let harness = start(1, |_, _| ()).await;
    assert_eq!(harness.send_json(&event("first")).await.status, 202);
    harness.cluster.broker_round_trip_time(-1, Duration::from_secs(1)).unwrap();
    let request = tokio::spawn(send(harness.post("/v1/events").json(&event("last"))));
    let gateway = harness.gateway.clone();
    eventually("the request is under way", || async { gateway.requests_in_flight() == 1 }).await;
    let (stop, server) = (harness.stop, harness.server);
    stop.send(()).unwrap();
    eventually("draining", || async { gateway.ready().await.is_err() }).await;
    assert_eq!(request.await.unwrap().status, 202);
    let started = Instant::now();
    server.await.unwrap().unwrap();
    assert!(started.elapsed() < DEADLINE);
    let refused = reqwest::get(format!("{}/healthz", harness.url)).await.unwrap_err();
    assert!(refused.is_connect());
}
