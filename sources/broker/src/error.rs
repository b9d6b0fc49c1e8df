//! What can go wrong with the embedded broker.

use std::{io, net::SocketAddr, path::PathBuf};

/// Why the broker did not start or refused a topic.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The broker has no authentication.
    #[error("the embedded broker listens on the loopback interface only, not on {0}")]
    NotLoopback(SocketAddr),
    /// Usually the port is in use.
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    /// The folder cannot be made or the file cannot be written.
    #[error("cannot use {} as the broker's storage: {source}", path.display())]
    StorageFile { path: PathBuf, source: io::Error },
    /// The storage takes its path from a URL, without decoding it.
    #[error("cannot use {} as the broker's storage: the path has characters that a URL must encode", .0.display())]
    StoragePath(PathBuf),
    /// Two brokers on one file would hand out the same offsets.
    #[error("{} is in use by another broker", .0.display())]
    StorageInUse(PathBuf),
    /// What tansu says about its storage.
    #[error("the broker's storage failed: {0}")]
    Storage(#[from] tansu_storage::Error),
    /// What tansu says about itself.
    #[error("the broker failed: {0}")]
    Broker(#[from] tansu_broker::Error),
    /// A topic has at least one partition.
    #[error("topic {topic} cannot have {partitions} partitions")]
    Partitions { topic: String, partitions: i32 },
}
