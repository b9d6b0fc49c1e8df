//! What a job is.

use std::sync::Arc;

use async_trait::async_trait;
use companyos_sinks::{checkpoint::CheckpointError, delta::DeltaSinkError, storage::Storage};
use companyos_stream::StreamError;
use tokio_util::sync::CancellationToken;

use crate::views::Shard;

/// What a job works on.
#[derive(Debug, Clone)]
pub struct JobContext {
    /// Region.
    pub region: Arc<str>,
    /// Whose rows.
    pub shard: Shard,
    /// The region's storage.
    pub storage: Storage,
    /// The home region's storage.
    pub home: Storage,
}

/// Work on one region and shard.
#[async_trait]
pub trait ShardJob: Send {
    /// Works until `stop`, then makes durable what is cheap to, and returns. It may also be dropped
    /// at any await, when the shard has to be handed over: what is not durable then is done again.
    async fn run(&mut self, context: JobContext, stop: CancellationToken) -> Result<(), TaskError>;
}

/// Makes a job for each region and shard, and again after each failure.
pub type JobFactory = Arc<dyn Fn(&JobContext) -> Box<dyn ShardJob> + Send + Sync>;

/// Why a job cannot go on; it is started again.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// A table cannot be read or written.
    #[error(transparent)]
    Table(#[from] DeltaSinkError),
    /// A checkpoint cannot be written, read or delivered.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The operator gave up.
    #[error("operator {operator}: {source}")]
    Operator {
        /// Which.
        operator: String,
        /// Why.
        source: StreamError,
    },
    /// Anything else, in the job's words.
    #[error("{0}")]
    Other(String),
}
