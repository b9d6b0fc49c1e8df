//! A broker inside this process that speaks Kafka's protocol: the demo, local work and tests need no Kafka.
//!
//! It is `tansu-broker`. It promises what `tests/conformance.rs` runs on it and on Apache Kafka alike; where it
//! falls short of Kafka is in `docs/adr/0002-embedded-broker.md`. It knows no authentication and no encryption,
//! so it listens on the loopback interface and nowhere else.

mod broker;
mod error;
mod mended;
mod storage;

pub use broker::{BrokerOptions, EmbeddedBroker};
pub use error::BrokerError;
pub use storage::BrokerStorage;
