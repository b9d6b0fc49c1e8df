//! What is accepted: every kind of body, and what then lies in Kafka.

use std::io::Write;

use crate::harness::{body_of, event, header_of, send, start};
use chrono::{DateTime, Utc};
use companyos_schemas::payload_hash;
use rdkafka::Message;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_in_kafka_stamped_and_otherwise_as_sent() {
    let harness = start(1, |_, _| ()).await;
    let before = Utc::now();
    let payload = "{ \"clicks\" : 1.50,\n \"name\":\"é\" }";
    let mut sent = event("e-1");
    sent.as_object_mut().unwrap().remove("payload");
    let text = sent.to_string().replacen('}', &format!(",\"payload\": {payload}, \"extra\":[1]}}"), 1);
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let post = || {
        let request = harness.post("/v1/events").header("content-type", "application/json; charset=utf-8");
        request.header("traceparent", traceparent).body(text.clone())
    };
    let answer = send(post()).await;
    assert_eq!((answer.status, answer.body["accepted"].as_i64()), (202, Some(1)), "{}", answer.body);

    let record = &harness.records("product_events", 1)[0];
    let result = &answer.body["results"][0];
    assert_eq!(result["event_id"], "e-1");
    assert_eq!((&result["partition"], &result["offset"]), (&json!(record.partition()), &json!(record.offset())));
    assert_eq!(record.key().unwrap(), b"alpha/e-1");
    let stored = std::str::from_utf8(record.payload().unwrap()).unwrap();
    let added = format!("\"payload_hash\":\"{}\",", payload_hash::compute(payload));
    assert_eq!(stored.replacen(&added, "", 1), text);
    assert_eq!(header_of(record, "content-type"), "application/json");
    assert_eq!(header_of(record, "companyos-region"), "eu");
    assert_eq!(header_of(record, "companyos-token-id"), "alpha-id");
    assert_eq!(header_of(record, "traceparent"), traceparent);
    let received = header_of(record, "companyos-received-at").parse::<DateTime<Utc>>().unwrap();
    assert!(before <= received && received <= Utc::now());

    // A retry lands in the same partition, where the worker sees both.
    let again = send(post()).await;
    assert_eq!(again.body["results"][0]["partition"], result["partition"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_body_is_read() {
    let harness = start(1, |_, _| ()).await;
    let array = json!([event("array-1"), event("array-2")]);
    let ndjson = format!("{}\r\n\n{}", event("line-1"), event("line-2"));
    let cloud = |id: &str, data: Value| {
        json!({
            "specversion": "1.0", "id": id, "source": "/shop", "type": "shop.export", "time": Utc::now().to_rfc3339(),
            "tenant": "alpha", "env": "prod", "region": "eu", "role": "admin", "feature": "export", "client": "web/1",
            "piiclassification": "none", "data": data,
        })
    };
    let mut enveloped = event("-");
    enveloped.as_object_mut().unwrap().remove("event_id");
    let batch = json!([cloud("cloud-2", json!({"n": 2})), cloud("cloud-3", enveloped)]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(event("gzip").to_string().as_bytes()).unwrap();
    let zstd = zstd::encode_all(event("zstd").to_string().as_bytes(), 3).unwrap();
    let bodies: [(&str, &str, Vec<u8>); 6] = [
        ("application/json", "", array.to_string().into()),
        ("application/x-ndjson", "", ndjson.into()),
        ("application/cloudevents+json", "", cloud("cloud-1", json!([1])).to_string().into()),
        ("application/cloudevents-batch+json; charset=UTF-8", "identity", batch.to_string().into()),
        ("application/json", "gzip", gzip.finish().unwrap()),
        ("application/json", "zstd", zstd),
    ];
    for (media_type, encoding, body) in bodies {
        let mut request = harness.post("/v1/events").header("content-type", media_type).body(body);
        if !encoding.is_empty() {
            request = request.header("content-encoding", encoding);
        }
        let answer = send(request).await;
        assert_eq!((answer.status, &answer.body["rejected"]), (202, &json!(0)), "{media_type} {}", answer.body);
    }
    let mut binary = harness.post("/v1/events").header("content-type", "application/json").body("{\"n\": 4}");
    for (name, value) in cloud("cloud-4", Value::Null).as_object().unwrap() {
        if let Some(value) = value.as_str() {
            binary = binary.header(format!("ce-{name}"), value);
        }
    }
    assert_eq!(send(binary).await.status, 202);

    let ids = harness.event_ids("product_events", 10);
    let expected =
        ["array-1", "array-2", "cloud-1", "cloud-2", "cloud-3", "cloud-4", "gzip", "line-1", "line-2", "zstd"];
    assert_eq!(ids, expected);
    let records = harness.records("product_events", 10);
    let cloud_4 = records.iter().map(body_of).find(|b| b["event_id"] == "cloud-4").unwrap();
    assert_eq!(cloud_4["payload_hash"], payload_hash::compute("{\"n\": 4}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_have_topics_of_their_own() {
    let harness = start(1, |_, _| ()).await;
    let metric = json!({
        "event_id": "m-1", "occurred_at": Utc::now().timestamp_millis(), "tenant": "alpha", "service": "api", "env": "prod",
        "region": "eu", "sli_type": "latency", "window": "1m", "value": 0.25, "objective": 0.5,
    });
    let answer = send(harness.post("/v1/events/sli_metrics").json(&metric)).await;
    assert_eq!((answer.status, &answer.body["results"][0]["topic"]), (202, &json!("sli_metrics")));
    assert_eq!(harness.records("sli_metrics", 1)[0].payload().unwrap(), metric.to_string().as_bytes());
    assert_eq!(send(harness.post("/v1/events/nothing").json(&metric)).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn good_events_of_a_mixed_batch_are_accepted_and_bad_ones_named() {
    let harness = start(1, |_, _| ()).await;
    let (mut stranger, mut other_env, mut wrong) = (event("b"), event("c"), event("d"));
    stranger["tenant"] = json!("beta");
    other_env["env"] = json!("dev");
    wrong["pii_classification"] = json!("secret");
    let array = format!("[{}, {stranger}, {other_env}, {wrong}, {{broken}}, {}]", event("a"), event("f"));
    let answer = send(harness.post("/v1/events").header("content-type", "application/json").body(array)).await;
    assert_eq!(answer.status, 202);
    assert_eq!((&answer.body["accepted"], &answer.body["rejected"]), (&json!(2), &json!(4)));
    let expected = ["accepted", "out_of_scope", "out_of_scope", "invalid_value", "invalid_json", "accepted"];
    assert_eq!(answer.outcomes(), expected);
    assert_eq!(answer.body["results"][1]["problem"]["status"], 403);
    assert_eq!(answer.body["results"][3]["problem"]["field"], "pii_classification");
    assert_eq!(answer.body["results"][3]["event_id"], "d");
    assert_eq!(harness.event_ids("product_events", 2), ["a", "f"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_events_in_one_request_are_each_in_kafka_once() {
    let harness = start(1, |_, _| ()).await;
    let ids: Vec<String> = (0..10_000).map(|i| format!("e-{i:05}")).collect();
    let lines: Vec<String> = ids.iter().map(|id| event(id).to_string()).collect();
    let body = zstd::encode_all(lines.join("\n").as_bytes(), 1).unwrap();
    let request = harness.post("/v1/events").header("content-type", "application/x-ndjson");
    let answer = send(request.header("content-encoding", "zstd").body(body)).await;
    assert_eq!((answer.status, &answer.body["accepted"]), (202, &json!(10_000)));
    assert_eq!(harness.event_ids("product_events", 10_000), ids);
}
