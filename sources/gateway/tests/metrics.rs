//! What the metrics say after known requests. One test: the recorder belongs to the process.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[expect(dead_code, reason = "made for the whole suite")]
mod harness;

use harness::{event, start};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn events_bytes_and_requests_are_counted() {
    let metrics = PrometheusBuilder::new().install_recorder().unwrap();
    let harness = start(1, |_, _| ()).await;
    let mut wrong = event("b");
    wrong["role"] = json!(7);
    assert_eq!(harness.send_json(&json!([event("a"), wrong, event("c")])).await.status, 202);
    let text = metrics.render();
    let line = |name: &str, labels: &[&str]| {
        let found = text.lines().find(|l| l.starts_with(name) && labels.iter().all(|label| l.contains(label)));
        let value = found.unwrap_or_else(|| panic!("no {name} {labels:?} in\n{text}")).rsplit(' ').next();
        value.unwrap().parse::<f64>().unwrap()
    };
    let events = "companyos_gateway_events_total";
    assert_eq!(line(events, &["tenant=\"alpha\"", "result=\"accepted\""]), 2.0);
    assert_eq!(line(events, &["tenant=\"alpha\"", "reason=\"wrong_type\""]), 1.0);
    assert!(line("companyos_gateway_bytes_total", &["tenant=\"alpha\""]) > 400.0);
    assert_eq!(line("companyos_gateway_request_seconds_count", &["status=\"202\""]), 1.0);
    assert_eq!(line("companyos_gateway_in_flight_requests", &[]), 0.0);
    assert_eq!(line("companyos_gateway_in_flight_bytes", &[]), 0.0);
}
