//! What is refused, and how the client is told.

use std::time::Duration;

use crate::harness::{event, send, start};
use companyos_source_gateway::config::TenantRate;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_open_without_a_current_ingest_token() {
    let harness = start(1, |_, _| ()).await;
    let post = || harness.client.post(format!("{}/v1/events", harness.url)).json(&event("e"));
    let table = [
        (post(), 401, ""),
        (post().header("authorization", "Basic YWxwaGE6"), 401, ""),
        (post().bearer_auth("guess"), 401, "invalid_token"),
        (post().bearer_auth("expired"), 401, "invalid_token"),
        (post().bearer_auth("reader"), 403, "insufficient_scope"),
    ];
    for (request, status, error) in table {
        let answer = send(request).await;
        assert_eq!(answer.status, status);
        let challenge = answer.header("www-authenticate");
        assert!(challenge.starts_with("Bearer realm=") && challenge.contains(error), "{challenge}");
    }
    let answer = send(post().bearer_auth("beta")).await;
    assert_eq!((answer.status, answer.outcomes()), (403, vec!["out_of_scope"]));
    assert!(harness.records("product_events", 0).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn residency_holds_for_tokens_that_name_no_region() {
    let harness = start(1, |_, _| ()).await;
    let mut abroad = event("e");
    abroad["region"] = json!("us");
    let answer = harness.send_json(&abroad).await;
    assert_eq!((answer.status, answer.outcomes()), (422, vec!["region_not_allowed"]));
    assert!(harness.records("product_events", 0).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_bounded_before_and_after_decompression() {
    let harness = start(1, |config, _| {
        config.limits.max_body_bytes = 4_000;
        config.limits.max_decompressed_bytes = 20_000;
        config.limits.max_event_bytes = 1_000;
        config.limits.max_events = 3;
    })
    .await;
    let post = || harness.post("/v1/events").header("content-type", "application/json");
    let bomb = zstd::encode_all(&vec![b' '; 100_000_000][..], 3).unwrap();
    assert!(bomb.len() < 16_000);
    let gzip_bomb = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, &[b' '; 1_000_000]).unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(send(post().header("content-encoding", "gzip").body(gzip_bomb)).await.status, 413);
    assert_eq!(
        send(post().header("content-encoding", "zstd").body(bomb[..bomb.len().min(4_000)].to_vec())).await.status,
        413
    );
    assert_eq!(send(post().body(vec![b' '; 4_001])).await.status, 413);
    // Without a Content-Length the limit is met on the way.
    let chunks = futures::stream::iter((0..5).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1_000])));
    assert_eq!(send(post().body(reqwest::Body::wrap_stream(chunks))).await.status, 413);
    assert_eq!(send(post().body("[1,2,3,4]")).await.status, 413);
    let mut large = event("large");
    large["payload"] = json!("x".repeat(1_000));
    let answer = harness.send_json(&json!([large, event("small")])).await;
    assert_eq!((answer.status, answer.outcomes()), (202, vec!["too_large", "accepted"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_get_a_problem_each() {
    let harness = start(1, |config, _| config.limits.body_timeout = Duration::from_millis(200)).await;
    let post = || harness.post("/v1/events");
    let json = || post().header("content-type", "application/json");
    let table = [
        (post().body("{}"), 415),
        (post().header("content-type", "text/csv").body("a,b"), 415),
        (post().header("content-type", "application/json; charset=latin1").body("{}"), 415),
        (json().header("content-encoding", "br").body("{}"), 415),
        (json().header("content-encoding", "gzip").body("{}"), 400),
        (json().body(""), 400),
        (json().body("[{}"), 400),
        (json().body("{"), 422),
        (json().header("idempotency-key", "").body("{}"), 400),
        (harness.client.get(format!("{}/v1/event", harness.url)), 404),
    ];
    for (request, status) in table {
        let answer = send(request).await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    let wrong_method = send(harness.client.get(format!("{}/v1/events", harness.url))).await;
    assert_eq!((wrong_method.status, wrong_method.header("allow")), (405, "POST"));

    let mut slow = tokio::net::TcpStream::connect(harness.url.trim_start_matches("http://")).await.unwrap();
    let head = "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer alpha\r\ncontent-type: application/json\r\n\
                content-length: 10\r\nconnection: close\r\n\r\n{";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("urn:companyos:problem:body-timeout"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_over_its_rate_is_told_when_to_come_back() {
    let harness = start(1, |config, _| {
        let rate = TenantRate { events_per_second: 1, burst_events: 3, ..TenantRate::default() };
        config.rates.tenants.insert("alpha".to_owned(), rate);
    })
    .await;
    let pair = json!([event("a"), event("b")]);
    let first = harness.send_json(&pair).await;
    assert_eq!(first.status, 202);
    assert!(first.header("ratelimit").starts_with("\"events\";r=1;t=2, \"kib\";r="), "{}", first.header("ratelimit"));
    let second = harness.send_json(&pair).await;
    assert_eq!((second.status, second.header("retry-after")), (429, "1"));
    assert!(
        second.header("ratelimit-policy").starts_with("\"events\";q=3;w=3"),
        "{}",
        second.header("ratelimit-policy")
    );
    assert_eq!(second.body["reason"], "event_rate");
    let never = harness.send_json(&json!([event("a"), event("b"), event("c"), event("d")])).await;
    assert_eq!((never.status, never.header("retry-after")), (413, ""));
    // Others are not held back.
    let mut others = event("o");
    (others["tenant"], others["region"]) = (json!("beta"), json!("us"));
    let request = harness.client.post(format!("{}/v1/events", harness.url)).bearer_auth("beta").json(&others);
    assert_eq!(send(request).await.status, 202);
    crate::harness::eventually("the rate lets the batch through again", || async {
        harness.send_json(&pair).await.status == 202
    })
    .await;
}
