//! One consumer-group member: the thread that polls, drives the chains and closes epochs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use companyos_operators::{ChainOutput, OperatorError, PartitionChain, Record};
use companyos_source_kafka::{AssignmentHandler, KafkaSource, SourceError, SourceRecord, TopicPartition};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::{
    assignment::{Assignments, Change, now_us},
    committer::Command,
    epoch::{Epoch, EpochPart, Outcome},
    headers::{record_headers, waived_rules},
    health::WorkerHealth,
    stats::Counters,
    traces::Traces,
};

/// Why a member ends.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// The source gave up.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// An operator failed on data it should have judged: a bug.
    #[error(transparent)]
    Operator(#[from] OperatorError),
    /// The tables cannot be written.
    #[error("cannot commit: {0}")]
    Commit(String),
    /// The committer is gone.
    #[error("the committer has stopped")]
    CommitterGone,
    /// A bug; its message was printed when it happened.
    #[error("panicked")]
    Panicked,
}

/// Bounds of a member's epochs and batches.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub commit_interval: Duration,
    pub epoch_max_bytes: usize,
    pub batch_rows: usize,
}

/// A partition this member owns.
struct Task {
    partition: TopicPartition,
    chain: Box<PartitionChain>,
    /// Last offset pushed since the epoch began.
    last: Option<i64>,
    outputs: Vec<ChainOutput>,
    traces: Traces,
}

pub(crate) struct Member {
    name: String,
    pipeline: String,
    source: KafkaSource,
    assignments: Arc<Assignments>,
    commands: mpsc::Sender<Command>,
    outcomes: Receiver<Outcome>,
    health: Arc<WorkerHealth>,
    bounds: Bounds,
    counters: Counters,
    tasks: Vec<Task>,
    /// Index of the task of the last record: records come in runs of one partition.
    current: usize,
    epoch: u64,
    epoch_started: Option<Instant>,
    epoch_bytes: usize,
    in_flight: bool,
}

impl Member {
    #[allow(clippy::too_many_arguments)] // Called once; every part has a name of its own.
    pub(crate) fn new(
        name: String,
        pipeline: &str,
        source: KafkaSource,
        assignments: Arc<Assignments>,
        commands: mpsc::Sender<Command>,
        outcomes: Receiver<Outcome>,
        health: Arc<WorkerHealth>,
        bounds: Bounds,
    ) -> Self {
        health.joined(&name);
        Self {
            name,
            pipeline: pipeline.to_owned(),
            source,
            assignments,
            commands,
            outcomes,
            health,
            bounds,
            counters: Counters::new(pipeline),
            tasks: Vec::new(),
            current: 0,
            epoch: 0,
            epoch_started: None,
            epoch_bytes: 0,
            in_flight: false,
        }
    }

    /// Polls until told to stop, then commits what it holds.
    pub(crate) fn run(&mut self, stop: &AtomicBool) -> Result<(), MemberError> {
        let mut heartbeat = Instant::now();
        self.health.polled(&self.name, 0, self.source.is_connected());
        while !stop.load(Ordering::Relaxed) {
            self.poll_once()?;
            if heartbeat.elapsed() > Duration::from_millis(500) {
                heartbeat = Instant::now();
                self.health.polled(&self.name, self.tasks.len(), self.source.is_connected());
                self.health.waiting(&self.name, self.epoch_started);
            }
            self.take_outcomes()?;
            if self.epoch_is_due() {
                self.close_epoch()?;
            }
        }
        info!(member = %self.name, "stopping: committing what is held");
        self.close_epoch()?;
        self.wait_for_outcome(Duration::from_secs(30))?;
        Ok(())
    }

    fn poll_once(&mut self) -> Result<(), MemberError> {
        let until_due = self
            .epoch_started
            .map_or(IDLE_POLL, |started| self.bounds.commit_interval.saturating_sub(started.elapsed()).min(IDLE_POLL));
        // A burst between clock reads: at full speed the clock would cost as much as the poll.
        let now = now_us();
        for i in 0..BURST {
            let wait = if i == 0 { until_due } else { Duration::ZERO };
            let polled = self.source.poll(wait)?;
            let changes = self.assignments.take_changes();
            let Some(record) = polled else {
                apply(&mut self.tasks, changes);
                return Ok(());
            };
            apply(&mut self.tasks, changes);
            let Some(index) = find_task(&self.tasks, self.current, &record) else { continue };
            self.current = index;
            let task = &mut self.tasks[index];
            let waived = waived_rules(&record, self.assignments.parts.sealer.as_deref());
            let mut headers = record_headers(&record);
            headers.waive = waived.as_deref();
            if let Some(traceparent) = headers.traceparent {
                task.traces.record(&self.pipeline, &task.partition, record.offset(), traceparent);
            }
            task.chain.push(
                &Record {
                    offset: record.offset(),
                    timestamp_ms: record.timestamp_ms(),
                    key: record.key(),
                    payload: record.payload(),
                    headers,
                },
                now,
            );
            task.last = Some(record.offset());
            if self.epoch_started.is_none() {
                self.epoch_started = Some(Instant::now());
            }
            if task.chain.buffered_rows() >= self.bounds.batch_rows || task.chain.buffered_bytes() >= BATCH_BYTES {
                self.epoch_bytes += flush(task, &mut self.counters)?;
                return Ok(());
            }
        }
        Ok(())
    }

    fn epoch_is_due(&self) -> bool {
        let Some(started) = self.epoch_started else { return false };
        let full = self.epoch_bytes >= self.bounds.epoch_max_bytes;
        // While one epoch is being committed the next may go on filling.
        full || (!self.in_flight && started.elapsed() >= self.bounds.commit_interval)
    }

    /// The barrier: flushes every chain and hands the epoch over, waiting for the one before.
    fn close_epoch(&mut self) -> Result<(), MemberError> {
        for task in &mut self.tasks {
            self.epoch_bytes += flush(task, &mut self.counters)?;
        }
        self.wait_for_turn()?;
        let parts: Vec<EpochPart> = self
            .tasks
            .iter_mut()
            .filter_map(|task| {
                let last = task.last.take()?;
                let outputs = std::mem::take(&mut task.outputs);
                let traces = std::mem::take(&mut task.traces);
                Some(EpochPart { partition: task.partition.clone(), last, outputs, traces })
            })
            .collect();
        let started = self.epoch_started.take().unwrap_or_else(Instant::now);
        self.epoch_bytes = 0;
        if parts.is_empty() {
            return Ok(());
        }
        self.epoch += 1;
        let epoch = Epoch { number: self.epoch, started, parts };
        self.commands.blocking_send(Command::Commit(epoch)).map_err(|_| MemberError::CommitterGone)?;
        self.in_flight = true;
        Ok(())
    }

    /// Waits for the epoch in flight. Short waits just wait; longer ones pause fetching and go on
    /// polling, so that the group does not think this member dead.
    fn wait_for_turn(&mut self) -> Result<(), MemberError> {
        if !self.in_flight || self.wait_for_outcome(PATIENCE)? {
            return Ok(());
        }
        warn!(member = %self.name, "the store is slow: reading is paused");
        self.source.pause()?;
        while self.in_flight {
            if let Some(record) = self.source.poll(Duration::from_millis(100))? {
                // Fetched before the pause took hold, or from a partition assigned since. It cannot
                // be pushed (the epoch is full), so its partition is read again from the tables.
                let partition = partition_of(&record);
                drop(record);
                self.reset(&partition)?;
                self.source.pause()?;
            }
            apply(&mut self.tasks, self.assignments.take_changes());
            self.health.polled(&self.name, self.tasks.len(), self.source.is_connected());
            self.health.waiting(&self.name, self.epoch_started);
            self.take_outcomes()?;
        }
        self.source.resume()?;
        Ok(())
    }

    /// True once nothing is in flight.
    fn wait_for_outcome(&mut self, timeout: Duration) -> Result<bool, MemberError> {
        if !self.in_flight {
            return Ok(true);
        }
        match self.outcomes.recv_timeout(timeout) {
            Ok(outcome) => self.handle(outcome).map(|()| true),
            Err(RecvTimeoutError::Timeout) => Ok(false),
            Err(RecvTimeoutError::Disconnected) => Err(MemberError::CommitterGone),
        }
    }

    fn take_outcomes(&mut self) -> Result<(), MemberError> {
        while let Ok(outcome) = self.outcomes.try_recv() {
            self.handle(outcome)?;
        }
        Ok(())
    }

    fn handle(&mut self, outcome: Outcome) -> Result<(), MemberError> {
        self.in_flight = false;
        if let Some(reason) = outcome.fatal {
            return Err(MemberError::Commit(reason));
        }
        self.source.report_progress(outcome.committed);
        for partition in outcome.fenced {
            if self.tasks.iter().any(|t| t.partition == partition) {
                self.reset(&partition)?;
            }
        }
        Ok(())
    }

    /// Starts a partition again from where the tables stand.
    fn reset(&mut self, partition: &TopicPartition) -> Result<(), MemberError> {
        info!(member = %self.name, ?partition, "reading again from where the tables stand");
        self.tasks.retain(|t| &t.partition != partition);
        let starts = self.assignments.assigned(std::slice::from_ref(partition)).map_err(MemberError::Commit)?;
        apply(&mut self.tasks, self.assignments.take_changes());
        for start in starts {
            self.source.seek(partition, start)?;
        }
        Ok(())
    }
}

const IDLE_POLL: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(2);
const BURST: usize = 256;
/// A batch is also flushed when its columns reach this size, so that large events do not pile up.
const BATCH_BYTES: usize = 8 << 20;

fn apply(tasks: &mut Vec<Task>, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Run { partition, chain } => {
                tasks.retain(|t| t.partition != partition);
                tasks.push(Task { partition, chain, last: None, outputs: Vec::new(), traces: Traces::default() });
            }
            Change::Drop { partition } => tasks.retain(|t| t.partition != partition),
        }
    }
}

fn find_task(tasks: &[Task], current: usize, record: &SourceRecord<'_>) -> Option<usize> {
    let is = |task: &Task| task.partition.partition == record.partition() && *task.partition.topic == *record.topic();
    match tasks.get(current) {
        Some(task) if is(task) => Some(current),
        _ => tasks.iter().position(is),
    }
}

fn partition_of(record: &SourceRecord<'_>) -> TopicPartition {
    TopicPartition { topic: Arc::from(record.topic()), partition: record.partition() }
}

/// Runs the operators over what a chain has decoded; returns the bytes now held.
fn flush(task: &mut Task, counters: &mut Counters) -> Result<usize, OperatorError> {
    let started = Instant::now();
    let output = task.chain.flush()?;
    counters.record(&output.stats, started.elapsed());
    let bytes = held_bytes(&output);
    if output.rows.is_some() || !output.quarantine.is_empty() {
        task.outputs.push(output);
    }
    Ok(bytes)
}

fn held_bytes(output: &ChainOutput) -> usize {
    let rows = output.rows.as_ref().map_or(0, |b| b.get_array_memory_size());
    let quarantine: usize = output.quarantine.iter().map(|(_, b)| b.get_array_memory_size()).sum();
    rows + quarantine
}
