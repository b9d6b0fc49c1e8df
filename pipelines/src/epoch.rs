//! An epoch: what all partitions of a member put out between two barriers.

use std::{sync::Arc, time::Instant};

use companyos_operators::ChainOutput;
use companyos_source_kafka::TopicPartition;

use crate::traces::Traces;

/// Everything a committer needs to make an epoch durable.
#[derive(Debug)]
pub(crate) struct Epoch {
    /// Rising by one within a member.
    pub number: u64,
    /// When its first record arrived.
    pub started: Instant,
    /// The partitions that moved.
    pub parts: Vec<EpochPart>,
}

/// One partition's share of an epoch.
#[derive(Debug)]
pub(crate) struct EpochPart {
    /// The partition.
    pub partition: TopicPartition,
    /// Last offset included.
    pub last: i64,
    /// What its chain put out.
    pub outputs: Vec<ChainOutput>,
    /// Spans of its traced records.
    pub traces: Traces,
}

/// What became of an epoch.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Positions the tables now hold.
    pub committed: Vec<(TopicPartition, i64)>,
    /// Partitions that another worker moved on: to be read again from where the tables stand.
    pub fenced: Vec<TopicPartition>,
    /// Set if the member cannot go on.
    pub fatal: Option<String>,
}

/// `txn` application id of a partition.
pub(crate) fn app_id(pipeline: &str, partition: &TopicPartition) -> Arc<str> {
    Arc::from(format!("{pipeline}/{}/{}", partition.topic, partition.partition))
}
