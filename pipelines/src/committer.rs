//! The task that makes epochs durable and answers where partitions stand.
//!
//! Commands are served in order, so a revocation is answered after the epoch in flight is done,
//! and an assignment reads positions no commit of ours will still move.

use std::{collections::HashMap, sync::Arc, time::Duration};

use companyos_sinks::delta::{Committed, DeltaSink, DeltaSinkError, TableEpoch};
use companyos_source_kafka::TopicPartition;
use futures::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use crate::{
    epoch::{Epoch, EpochPart, Outcome, app_id},
    quarantine_topic::QuarantineTopic,
    tables::{TableKey, Tables},
};

/// What a member asks of its committer.
pub(crate) enum Command {
    /// Take partitions over; answers the anchor's position of each.
    Assign { partitions: Vec<TopicPartition>, reply: oneshot::Sender<Result<Vec<Option<i64>>, String>> },
    /// Give partitions up; answers when nothing of theirs is in flight.
    Release { partitions: Vec<TopicPartition>, reply: oneshot::Sender<()> },
    /// Make an epoch durable; the outcome goes back over the member's channel.
    Commit(Epoch),
}

/// One per member.
pub(crate) struct Committer {
    pub pipeline: String,
    pub tables: Tables,
    pub quarantine_topic: Option<QuarantineTopic>,
    pub commands: mpsc::Receiver<Command>,
    pub outcomes: std::sync::mpsc::Sender<Outcome>,
}

impl Committer {
    /// Serves until the member drops its end.
    pub(crate) async fn run(mut self) {
        while let Some(command) = self.commands.recv().await {
            match command {
                Command::Assign { partitions, reply } => {
                    let positions = self.assign(&partitions).await;
                    // The member may have stopped waiting; then it will ask again.
                    let _ = reply.send(positions);
                }
                Command::Release { partitions, reply } => {
                    self.tables.release(&partitions);
                    let _ = reply.send(());
                }
                Command::Commit(epoch) => {
                    let started = epoch.started;
                    let outcome = self.commit(epoch).await;
                    metrics::histogram!("companyos_commit_seconds", "pipeline" => self.pipeline.clone())
                        .record(started.elapsed().as_secs_f64());
                    if self.outcomes.send(outcome).is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn assign(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>, String> {
        let mut pauses = pauses();
        loop {
            match self.tables.assign(partitions).await {
                Ok(positions) => return Ok(positions),
                Err(error) if error.is_transient() => {
                    let Some(pause) = pauses.next() else { return Err(error.to_string()) };
                    warn!(pipeline = %self.pipeline, %error, "cannot read positions yet");
                    tokio::time::sleep(pause).await;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    async fn commit(&mut self, epoch: Epoch) -> Outcome {
        match self.try_commit(epoch).await {
            Ok(outcome) => outcome,
            Err(error) => {
                error!(pipeline = %self.pipeline, %error, "epoch cannot be committed");
                Outcome { committed: Vec::new(), fenced: Vec::new(), fatal: Some(error.to_string()) }
            }
        }
    }

    async fn try_commit(&mut self, epoch: Epoch) -> Result<Outcome, DeltaSinkError> {
        // Announced before it is stored: a crash in between repeats the announcement, none is lost.
        if let Some(topic) = &self.quarantine_topic {
            topic.announce(&epoch.parts).await;
        }
        let mut shares = self.share_out(&epoch).await?;
        let anchor_key = self.tables.anchor();
        let anchor_share = shares.remove(&anchor_key);
        let mut fenced = self.commit_all(shares).await?;
        if let Some(mut share) = anchor_share {
            // A partition that lost its rows in one table must not move on in the anchor.
            share.parts.retain(|part| !fenced.contains(&part.app_id));
            if !share.parts.is_empty() {
                fenced.extend(self.commit_all(HashMap::from([(anchor_key, share)])).await?);
            }
        }
        let (lost, kept): (Vec<EpochPart>, Vec<EpochPart>) =
            epoch.parts.into_iter().partition(|part| fenced.contains(&app_id(&self.pipeline, &part.partition)));
        Ok(Outcome {
            committed: kept
                .into_iter()
                .map(|part| {
                    part.traces.committed(&part.outputs);
                    (part.partition, part.last)
                })
                .collect(),
            fenced: lost.into_iter().map(|part| part.partition).collect(),
            fatal: None,
        })
    }

    async fn share_out(&mut self, epoch: &Epoch) -> Result<HashMap<TableKey, TableEpoch>, DeltaSinkError> {
        loop {
            match self.tables.share_out(epoch.number, &epoch.parts).await {
                Err(error) if error.is_transient() => {
                    warn!(pipeline = %self.pipeline, %error, "tables cannot be opened yet");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                other => return other,
            }
        }
    }

    /// Commits the shares side by side; returns the partitions that were fenced in any.
    async fn commit_all(&mut self, shares: HashMap<TableKey, TableEpoch>) -> Result<Vec<Arc<str>>, DeltaSinkError> {
        let mut jobs = Vec::new();
        for (key, share) in shares {
            let Some(sink) = self.tables.take(&key) else { continue };
            jobs.push(commit_one(key, sink, share));
        }
        let mut fenced = Vec::new();
        let mut failure = None;
        for (key, sink, parts, result) in join_all(jobs).await {
            let region = key.region.to_string();
            let table = sink.name().to_owned();
            self.tables.put_back(key.clone(), sink);
            match result {
                Ok(done) => {
                    for (app, last) in parts.iter().filter(|(app, _)| !done.fenced.contains(app)) {
                        self.tables.advanced(&key, app, *last);
                    }
                    record(&table, &region, &done);
                    fenced.extend(done.fenced);
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(fenced),
        }
    }
}

type Finished = (TableKey, DeltaSink, Vec<(Arc<str>, i64)>, Result<Committed, DeltaSinkError>);

/// Commits to one table, for as long as it takes: the epoch's rows are nowhere else.
async fn commit_one(key: TableKey, mut sink: DeltaSink, mut share: TableEpoch) -> Finished {
    let parts: Vec<_> = share.parts.iter().map(|p| (p.app_id.clone(), p.last)).collect();
    loop {
        match sink.commit(share).await {
            Ok(done) => return (key, sink, parts, Ok(done)),
            Err(failed) if failed.error.is_transient() => {
                warn!(table = sink.name(), error = %failed.error, "epoch not stored yet");
                metrics::counter!("companyos_commit_failures_total", "table" => sink.name().to_owned()).increment(1);
                tokio::time::sleep(RETRY_PAUSE).await;
                share = failed.epoch;
            }
            Err(failed) => return (key, sink, parts, Err(failed.error)),
        }
    }
}

fn record(table: &str, region: &str, done: &Committed) {
    let labels = [("table", table.to_owned()), ("region", region.to_owned())];
    metrics::counter!("companyos_events_out_total", &labels).increment(done.rows as u64);
    metrics::counter!("companyos_bytes_out_total", &labels).increment(done.bytes);
    metrics::counter!("companyos_files_out_total", &labels).increment(done.files as u64);
}

const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Pauses between attempts during an assignment; together less than the time a member may stay away
/// from polling.
pub(crate) fn pauses() -> impl Iterator<Item = Duration> {
    std::iter::repeat_n(Duration::from_secs(1), 120)
}
