//! What happens when partitions come and go, on the polling thread inside a rebalance.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use companyos_operators::{ChainConfig, OperatorError, PartitionChain, Redactor, Sealer};
use companyos_schemas::tenancy::Tenancy;
use companyos_sinks::{
    delta::{DeltaSinkError, recent_ids},
    storage::Storage,
};
use companyos_source_kafka::{AssignmentHandler, Start, TopicPartition};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};
use tracing::{info, warn};

use crate::{
    committer::{Command, pauses},
    spec::PipelineSpec,
};

/// What the member does after the poll that served a rebalance.
pub(crate) enum Change {
    /// Run this partition.
    Run { partition: TopicPartition, chain: Box<PartitionChain> },
    /// Forget it; what it buffered is read again by the next owner.
    Drop { partition: TopicPartition },
}

/// Everything needed to build a partition's chain.
pub(crate) struct ChainParts {
    pub spec: PipelineSpec,
    pub tenancy: Arc<Tenancy>,
    pub redactor: Option<Arc<Redactor>>,
    pub sealer: Option<Arc<Sealer>>,
    pub storages: HashMap<Arc<str>, Storage>,
}

/// The member's half of a rebalance.
pub(crate) struct Assignments {
    pub runtime: Handle,
    pub commands: mpsc::Sender<Command>,
    pub parts: ChainParts,
    pub changes: Mutex<Vec<Change>>,
    /// Whether `changes` holds any, so that the poll loop need not lock for every record.
    pub changed: AtomicBool,
}

/// How long a revocation waits for the commit in flight. After that the new owner may find the
/// table moved under it once, re-read and go on.
const RELEASE_WAIT: Duration = Duration::from_secs(8);

impl Assignments {
    /// Changes since the last call, in order.
    pub(crate) fn take_changes(&self) -> Vec<Change> {
        if !self.changed.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, change: Change) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
        self.changed.store(true, Ordering::Release);
    }

    fn positions(&self, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>, String> {
        let (reply, answer) = oneshot::channel();
        let ask = Command::Assign { partitions: partitions.to_vec(), reply };
        self.commands.blocking_send(ask).map_err(|_| "the committer has stopped".to_owned())?;
        answer.blocking_recv().map_err(|_| "the committer has stopped".to_owned())?
    }

    /// A chain that remembers what the tables took in within the deduplication horizon.
    fn chain(&self, partition: &TopicPartition) -> Result<PartitionChain, String> {
        let mut pauses = pauses();
        loop {
            match self.runtime.block_on(self.restored_chain(partition)) {
                Ok(chain) => return Ok(chain),
                Err(RestoreError::Table(error)) if error.is_transient() => {
                    let Some(pause) = pauses.next() else { return Err(error.to_string()) };
                    warn!(topic = %partition.topic, partition = partition.partition, %error, "cannot read back yet");
                    thread::sleep(pause);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    async fn restored_chain(&self, partition: &TopicPartition) -> Result<PartitionChain, RestoreError> {
        let parts = &self.parts;
        let config = ChainConfig {
            stream: parts.spec.stream,
            topic: partition.topic.clone(),
            partition: partition.partition,
            decode: parts.spec.decode.clone(),
            dedup: parts.spec.dedup.clone(),
        };
        let mut chain =
            PartitionChain::new(config, parts.tenancy.clone(), parts.redactor.clone(), parts.sealer.clone());
        let horizon =
            i64::try_from(parts.spec.dedup.horizon_seconds).unwrap_or(i64::MAX / 1_000_000).saturating_mul(1_000_000);
        if horizon == 0 {
            return Ok(chain);
        }
        let since = now_us() - horizon;
        let table = parts.spec.stream.name();
        let mut rows = 0;
        for storage in parts.storages.values() {
            let mut failure = None;
            let visit = |tenant: &str, id: &str, ingested_at| {
                if let Err(error) = chain.restore_dedup(std::iter::once((tenant, id, ingested_at))) {
                    failure = Some(error);
                }
            };
            rows += recent_ids(storage, table, &partition.topic, partition.partition, since, visit).await?;
            if let Some(error) = failure {
                return Err(error.into());
            }
        }
        info!(topic = %partition.topic, partition = partition.partition, rows, "deduplication state restored");
        Ok(chain)
    }
}

#[derive(Debug, thiserror::Error)]
enum RestoreError {
    #[error(transparent)]
    Table(#[from] DeltaSinkError),
    #[error(transparent)]
    Operator(#[from] OperatorError),
}

impl AssignmentHandler for Assignments {
    fn assigned(&self, partitions: &[TopicPartition]) -> Result<Vec<Start>, String> {
        let positions = self.positions(partitions)?;
        let mut starts = Vec::with_capacity(partitions.len());
        for (partition, position) in partitions.iter().zip(positions) {
            let chain = Box::new(self.chain(partition)?);
            self.add(Change::Run { partition: partition.clone(), chain });
            let start = position.map_or(Start::Earliest, |last| Start::At(last + 1));
            info!(topic = %partition.topic, partition = partition.partition, ?start, "partition starts");
            starts.push(start);
        }
        Ok(starts)
    }

    fn revoked(&self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.add(Change::Drop { partition: partition.clone() });
        }
        let (reply, done) = oneshot::channel();
        let release = Command::Release { partitions: partitions.to_vec(), reply };
        if self.commands.blocking_send(release).is_err() {
            return;
        }
        // The timer must be made inside the runtime: this is a plain thread.
        if self.runtime.block_on(async { tokio::time::timeout(RELEASE_WAIT, done).await }).is_err() {
            warn!("partitions are released with a commit still in flight");
        }
    }
}

pub(crate) fn now_us() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}
