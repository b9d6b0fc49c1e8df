//! HTTP event gateway: producers that cannot speak Kafka post their events here.
//!
//! A request is answered 202 only when Kafka has acknowledged every event it reports as accepted;
//! each event gets a result of its own, so one bad event never costs the good ones beside it.
//! Nothing is open by default: without a token in the [`TokenRegistry`] every post is refused.
//!
//! The payload of an event is forwarded byte for byte as it was sent; the gateway only adds a
//! member (such as `payload_hash`) to the event's object text where the contract asks for one.
//!
//! [`TokenRegistry`]: companyos_schemas::access::TokenRegistry

mod admission;
mod answer;
mod batch;
pub mod cloudevents;
mod coerce;
pub mod config;
mod decompress;
mod error;
pub mod event;
mod idempotency;
mod ingest;
mod members;
pub mod openapi;
mod problem;
mod producer;
mod rate;
mod server;
mod splice;
mod telemetry;
mod trace_context;

pub use config::{GatewayConfig, ProducerConfig};
pub use error::GatewayError;
pub use server::Gateway;
