//! What the gateway counts. Labels are low in cardinality: tenants are those that have a token.

use std::time::Duration;

use axum::http::StatusCode;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

const EVENTS: &str = "companyos_gateway_events_total";
const BYTES: &str = "companyos_gateway_bytes_total";
const REQUEST_SECONDS: &str = "companyos_gateway_request_seconds";
const IN_FLIGHT_REQUESTS: &str = "companyos_gateway_in_flight_requests";
const IN_FLIGHT_BYTES: &str = "companyos_gateway_in_flight_bytes";

/// Names the metrics to the installed recorder.
pub fn describe() {
    describe_counter!(EVENTS, "Events answered, by tenant, result and reason");
    describe_counter!(BYTES, metrics::Unit::Bytes, "Bytes of accepted events, by tenant");
    describe_histogram!(REQUEST_SECONDS, metrics::Unit::Seconds, "Time from request to answer, by status");
    describe_gauge!(IN_FLIGHT_REQUESTS, "Requests being worked on");
    describe_gauge!(IN_FLIGHT_BYTES, metrics::Unit::Bytes, "Body bytes held by requests");
}

/// An event Kafka has acknowledged.
pub fn accepted(tenant: &str, bytes: usize) {
    counter!(EVENTS, "tenant" => tenant.to_owned(), "result" => "accepted", "reason" => "").increment(1);
    counter!(BYTES, "tenant" => tenant.to_owned()).increment(bytes as u64);
}

/// An event that was not taken.
pub fn rejected(tenant: &str, reason: &'static str) {
    counter!(EVENTS, "tenant" => tenant.to_owned(), "result" => "rejected", "reason" => reason).increment(1);
}

/// A request that was answered.
pub fn request(status: StatusCode, took: Duration) {
    histogram!(REQUEST_SECONDS, "status" => status.as_str().to_owned()).record(took.as_secs_f64());
}

/// Requests that came (or, negative, went).
pub fn in_flight_requests(change: f64) {
    gauge!(IN_FLIGHT_REQUESTS).increment(change);
}

/// Body bytes that came (or, negative, went).
pub fn in_flight_bytes(change: f64) {
    gauge!(IN_FLIGHT_BYTES).increment(change);
}
