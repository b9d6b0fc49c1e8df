//! Files replayed into a broker that speaks Kafka's protocol, and read back from it.

mod formats;
mod harness;
mod problems;
mod resuming;
mod shipped_maps;
