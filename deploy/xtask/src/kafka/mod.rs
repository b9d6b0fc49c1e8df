//! A real Apache Kafka (KRaft, no ZooKeeper) on this machine.
//!
//! [`KafkaCluster`] is for tests: free ports, a temporary folder, brokers that can be killed, paused and
//! started again on their data, and nothing left behind when it is dropped or its process dies.
//! [`daemon`] is for the command line: a cluster that outlives the command.

mod cluster;
pub mod daemon;
pub mod jars;
mod layout;
mod probe;
mod process;

pub use cluster::{KafkaCluster, KafkaOptions};
