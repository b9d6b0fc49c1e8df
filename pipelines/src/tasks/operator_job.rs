//! A [`ShardOperator`] as a job: reads the logs, feeds it, makes checkpoints, delivers.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use chrono::Utc;
use companyos_schemas::{Stream, arrow_schema::table_schema};
use companyos_sinks::{
    checkpoint::{CheckpointLine, LineOptions, NoticeSink},
    delta::{DeltaSinkError, FileReader, TableTail, TailEntry},
};
use companyos_stream::{Columns, ShardOperator, StreamError, TailRows};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{JobContext, JobFactory, ShardJob, TaskError, TasksConfig};

/// Makes an operator for a region and shard, without state.
pub type OperatorFactory = Arc<dyn Fn(&JobContext) -> Result<Box<dyn ShardOperator>, StreamError> + Send + Sync>;

/// The job of one operator, region and shard.
pub struct OperatorJob {
    make: OperatorFactory,
    config: TasksConfig,
    notices: Arc<dyn NoticeSink>,
}

impl OperatorJob {
    /// A factory of such jobs, to be given to [`ShardTasks`](super::ShardTasks).
    pub fn factory(make: OperatorFactory, config: &TasksConfig, notices: Arc<dyn NoticeSink>) -> JobFactory {
        let config = config.clone();
        Arc::new(move |_| {
            Box::new(OperatorJob { make: make.clone(), config: config.clone(), notices: notices.clone() })
        })
    }
}

#[async_trait]
impl ShardJob for OperatorJob {
    async fn run(&mut self, context: JobContext, stop: CancellationToken) -> Result<(), TaskError> {
        let operator = (self.make)(&context).map_err(|source| TaskError::Operator { operator: "?".into(), source })?;
        let mut run = Run::open(operator, context, self.config.clone(), self.notices.clone(), &stop).await?;
        while !stop.is_cancelled() {
            let behind = run.read(&stop).await?;
            run.pass_time()?;
            run.checkpoint(false, &stop).await?;
            run.report();
            if !behind {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(self.config.poll_interval) => {}
                }
            }
        }
        run.checkpoint(true, &stop).await
    }
}

/// An input that is followed.
struct Followed {
    stream: Stream,
    tail: TableTail,
    reader: FileReader,
}

struct Run {
    name: &'static str,
    operator: Box<dyn ShardOperator>,
    context: JobContext,
    config: TasksConfig,
    notices: Arc<dyn NoticeSink>,
    line: CheckpointLine,
    inputs: Vec<Followed>,
    positions: BTreeMap<String, u64>,
    /// Whether anything was read since the last checkpoint.
    moved: bool,
    checkpointed: Instant,
    time_passed: Option<Instant>,
    late_rows: u64,
}

/// The contract: time passes at least this often.
const TIME_PASSES: Duration = Duration::from_millis(900);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Run {
    /// Delivers what the last owner could not, and takes its state and positions over.
    async fn open(
        operator: Box<dyn ShardOperator>,
        context: JobContext,
        config: TasksConfig,
        notices: Arc<dyn NoticeSink>,
        stop: &CancellationToken,
    ) -> Result<Self, TaskError> {
        let name = operator.name();
        let shard = format!("{}-of-{}", context.shard.index, context.shard.of);
        let options = LineOptions { full_every: config.full_every, ..LineOptions::default() };
        let line = CheckpointLine::open(&context.storage, name, &shard, options).await?;
        let positions = line.positions();
        let mut inputs = Vec::new();
        for input in operator.inputs() {
            let table = input.stream.name();
            inputs.push(Followed {
                stream: input.stream,
                tail: TableTail::at(&context.storage, table, positions.get(table).copied()),
                reader: FileReader::new(&context.storage, table, columns(input.stream, &input.columns)),
            });
        }
        let mut run = Self {
            name,
            operator,
            context,
            config,
            notices,
            line,
            inputs,
            positions,
            moved: false,
            checkpointed: Instant::now(),
            time_passed: None,
            late_rows: 0,
        };
        run.deliver(stop).await?;
        let operator = &mut run.operator;
        run.line.restore(|state| operator.restore(state)).await?;
        let (region, sequence) = (&run.context.region, run.line.newest().map_or(0, |newest| newest.sequence));
        info!(operator = name, %region, shard, sequence, "operator started");
        Ok(run)
    }

    /// Feeds what is new, up to the bound; true if there may be more.
    async fn read(&mut self, stop: &CancellationToken) -> Result<bool, TaskError> {
        let mut behind = false;
        for index in 0..self.inputs.len() {
            let mut budget = self.config.round_max_bytes.max(1);
            while !stop.is_cancelled() {
                if budget == 0 {
                    behind = true;
                    break;
                }
                let table = self.inputs[index].stream.name();
                let entry = match self.inputs[index].tail.next().await {
                    Ok(Some(entry)) => entry,
                    Ok(None) => break,
                    Err(DeltaSinkError::Gap { version, .. }) => {
                        self.skip_gap(index, version).await?;
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                budget = budget.saturating_sub(self.feed(index, &entry).await?);
                self.positions.insert(table.to_owned(), entry.version);
                self.moved = true;
                self.pass_time_if_due()?;
            }
            self.report_lag(index, budget == 0).await;
        }
        Ok(behind)
    }

    /// Gives the operator its shard's rows of one entry; returns the bytes read.
    async fn feed(&mut self, index: usize, entry: &TailEntry) -> Result<u64, TaskError> {
        let input = &self.inputs[index];
        let (operator, name) = (&mut self.operator, self.name);
        let mut bytes = 0;
        for add in &entry.adds {
            let tenant = add.partition_values.get("tenant").and_then(Option::as_deref).unwrap_or_default();
            if !self.context.shard.has(tenant) {
                continue;
            }
            bytes += add.size.unsigned_abs();
            let mut failure = None;
            let visit = |batch| {
                if failure.is_none() {
                    let (stream, version, committed_at) = (input.stream, entry.version, entry.committed_at);
                    failure = operator.on_rows(&TailRows { stream, version, committed_at, batch: &batch }).err();
                }
                Ok(())
            };
            input.reader.read(add, visit).await?;
            if let Some(source) = failure {
                return Err(TaskError::Operator { operator: name.to_owned(), source });
            }
        }
        Ok(bytes)
    }

    /// Entries that were cleaned up unread are lost to this operator, but not silently.
    async fn skip_gap(&mut self, index: usize, version: u64) -> Result<(), TaskError> {
        let table = self.inputs[index].stream.name();
        let next = match TableTail::oldest(&self.context.storage, table, version).await? {
            Some(oldest) => oldest,
            // Nothing but a table checkpoint is left.
            None => self.inputs[index].tail.latest().await.map_or(version, |latest| latest + 1),
        };
        let lost = next.saturating_sub(version);
        error!(operator = self.name, region = %self.context.region, table, version, lost, "the log was cleaned up unread");
        metrics::counter!("companyos_tail_lost_versions_total", "operator" => self.name, "table" => table)
            .increment(lost);
        self.inputs[index].tail = TableTail::at(&self.context.storage, table, next.checked_sub(1));
        Ok(())
    }

    fn pass_time_if_due(&mut self) -> Result<(), TaskError> {
        match self.time_passed.is_none_or(|at| at.elapsed() >= TIME_PASSES) {
            true => self.pass_time(),
            false => Ok(()),
        }
    }

    fn pass_time(&mut self) -> Result<(), TaskError> {
        self.time_passed = Some(Instant::now());
        self.operator.on_time(Utc::now()).map_err(|source| self.failed(source))
    }

    /// Writes and delivers a checkpoint if anything came out, or if there is something to write and
    /// it is time, or the end.
    async fn checkpoint(&mut self, last: bool, stop: &CancellationToken) -> Result<(), TaskError> {
        let output = self.operator.take_output();
        let due = last || self.checkpointed.elapsed() >= self.config.checkpoint_interval;
        if output.is_empty() && !(self.moved && due) {
            return Ok(());
        }
        // The first thing delivered is what was written last, which a stop may have cut short.
        self.deliver(stop).await?;
        let started = Instant::now();
        let state = self.operator.snapshot(self.line.next_kind()).map_err(|source| self.failed(source))?;
        let written = self.line.write(self.positions.clone(), state, &output).await?;
        self.deliver(stop).await?;
        self.moved = false;
        self.checkpointed = Instant::now();
        let labels = self.labels();
        metrics::histogram!("companyos_checkpoint_seconds", &labels).record(started.elapsed().as_secs_f64());
        metrics::histogram!("companyos_checkpoint_bytes", &labels).record(written.bytes as f64);
        Ok(())
    }

    /// Delivers until it is done. A store or receiver that is away is waited for, as nothing can go
    /// on before; when told to stop, the next owner goes on with it.
    async fn deliver(&mut self, stop: &CancellationToken) -> Result<(), TaskError> {
        let mut pause = self.config.poll_interval;
        loop {
            match self.line.deliver(self.notices.as_ref()).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_transient() && !stop.is_cancelled() => {
                    warn!(operator = self.name, region = %self.context.region, %error, ?pause, "output not delivered yet");
                }
                Err(error) => return Err(error.into()),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn failed(&self, source: StreamError) -> TaskError {
        TaskError::Operator { operator: self.name.to_owned(), source }
    }

    fn labels(&self) -> [(&'static str, String); 3] {
        [
            ("operator", self.name.to_owned()),
            ("region", self.context.region.to_string()),
            ("shard", self.context.shard.index.to_string()),
        ]
    }

    fn report(&mut self) {
        let (stats, labels) = (self.operator.stats(), self.labels());
        metrics::gauge!("companyos_state_bytes", &labels).set(stats.state_bytes as f64);
        metrics::gauge!("companyos_state_keys", &labels).set(stats.state_keys as f64);
        if let Some(watermark) = stats.watermark {
            let lag = (Utc::now() - watermark).as_seconds_f64();
            metrics::gauge!("companyos_watermark_lag_seconds", &labels).set(lag);
        }
        let late = stats.late_rows.saturating_sub(self.late_rows);
        self.late_rows = stats.late_rows;
        metrics::counter!("companyos_late_rows_total", &labels).increment(late);
    }

    async fn report_lag(&mut self, index: usize, behind: bool) {
        let input = &self.inputs[index];
        let lag = match (behind, input.tail.version()) {
            (true, Some(version)) => input.tail.latest().await.unwrap_or(version).saturating_sub(version),
            _ => 0,
        };
        let [operator, region, shard] = self.labels();
        let labels = [operator, region, shard, ("table", input.stream.name().to_owned())];
        metrics::gauge!("companyos_tail_lag_versions", &labels).set(lag as f64);
    }
}

pub(super) fn columns(stream: Stream, wanted: &Columns) -> SchemaRef {
    let table = table_schema(stream);
    match wanted {
        Columns::All => table,
        Columns::Named(names) => {
            let fields = table.fields().iter().filter(|field| names.contains(field.name())).cloned();
            Arc::new(Schema::new(fields.collect::<Vec<_>>()))
        }
    }
}
