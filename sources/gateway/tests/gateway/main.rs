//! The gateway over HTTP, in front of a broker that speaks Kafka's protocol.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod accepting;
mod embedded;
#[path = "../harness/mod.rs"]
mod harness;
mod refusing;
mod surviving;
