//! The gateway over HTTP, in front of a broker that speaks Kafka's protocol.

mod accepting;
mod embedded;
#[path = "../harness/mod.rs"]
mod harness;
mod refusing;
mod surviving;
