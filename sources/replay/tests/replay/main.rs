//! Files replayed into a broker that speaks Kafka's protocol, and read back from it.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod formats;
mod harness;
mod problems;
mod resuming;
mod shipped_maps;
