//! The run: reader thread → pace → window → checkpoint.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    Counts, Outcome, ReplayError, ReplayMap, ReplayOptions, ReplaySummary, StopReason,
    checkpoint::{Identity, Store},
    deliver::{self, Acknowledged, Done, Window},
    map::Converter,
    pace::Pacer,
    progress::Progress,
    reader::{self, Feed, Plan, Prepare, Prepared},
    rows::{self, OpenError},
};

/// How often the bar moves.
const REDRAW: Duration = Duration::from_millis(200);
/// How long to let librdkafka's queue empty when it is full though nothing of ours is in flight.
const QUEUE_FULL: Duration = Duration::from_millis(20);

/// Replays a file.
///
/// Returns when the whole file (or `limit` rows) is acknowledged by Kafka, when `shutdown` is
/// cancelled (then with [`Outcome::Interrupted`], what was sent flushed and the checkpoint saved),
/// or with an error that tells how far it came.
pub async fn replay(options: ReplayOptions, shutdown: CancellationToken) -> Result<ReplaySummary, ReplayError> {
    let map = ReplayMap::load(&options.map)?;
    let topic = options.topic.clone().unwrap_or_else(|| map.stream.name().to_owned());
    let file = rows::open(&options.file, &map, options.max_row_bytes)?;
    let identity = Identity::of(&options.file, &map.digest, &topic)
        .map_err(|source| OpenError::Io { path: options.file.clone(), source })?;
    let progress_file = ProgressFile::open(&options, identity)?;
    let before = progress_file.before;

    let mut summary = ReplaySummary::new(topic.clone(), before.rows(), before);
    summary.checkpoint = progress_file.path();
    if progress_file.complete {
        summary.outcome = Outcome::Complete;
        return Ok(summary);
    }
    let producer = deliver::connect(&options, &topic).await?;
    let plan = Plan {
        skip: before.rows(),
        limit: options.limit,
        strict: options.strict,
        max_row_bytes: options.max_row_bytes,
    };
    let progress = Progress::new(file.total, file.in_bytes, options.progress);
    let position = file.position;
    let mut run = Run {
        window: Window::new(producer, topic, &options),
        pacer: Pacer::new(options.speed, options.max_pause),
        queue: VecDeque::new(),
        front_due: None,
        summary,
        saved: before.rows(),
        progress_file,
        started: Instant::now(),
    };
    let feed = reader::spawn(file.rows, Converter::new(map, file.name), plan);
    let show = |summary: &ReplaySummary| progress.update(position.load(Ordering::Relaxed), summary.counts.rows());
    let ended = run.drive(feed, &options, &shutdown, show).await;
    let ended = run.finish(ended, &options).await;
    progress.finish();
    ended
}

/// The checkpoint of this run, where there is a place for one.
struct ProgressFile {
    store: Option<Store>,
    identity: Identity,
    before: Counts,
    complete: bool,
}

impl ProgressFile {
    /// Loads what there is to resume; otherwise makes sure that there is a place to save to.
    fn open(options: &ReplayOptions, identity: Identity) -> Result<Self, ReplayError> {
        let store = Store::new(&options.file, &options.map, &identity.topic, options.state_dir.as_deref());
        let saved = match options.resume {
            true => store.load(&identity)?,
            false => None,
        };
        let (before, complete) = saved.map_or((Counts::default(), false), |saved| (saved.counts, saved.complete));
        let store = match store.save(&identity, before, complete) {
            Ok(()) => Some(store),
            Err(e) if options.resume || options.state_dir.is_some() => return Err(e.into()),
            Err(e) => {
                tracing::warn!(error = %e, "this replay cannot be resumed");
                None
            }
        };
        Ok(Self { store, identity, before, complete })
    }

    fn path(&self) -> Option<PathBuf> {
        self.store.as_ref().map(|store| store.path().to_owned())
    }

    async fn save(&self, counts: Counts, complete: bool) -> Result<(), StopReason> {
        let Some(store) = self.store.clone() else { return Ok(()) };
        let identity = self.identity.clone();
        let saving = tokio::task::spawn_blocking(move || store.save(&identity, counts, complete));
        match saving.await {
            Ok(saved) => Ok(saved?),
            Err(_) => Err(StopReason::ReaderDied),
        }
    }
}

struct Run {
    window: Window,
    pacer: Pacer,
    queue: VecDeque<Prepared>,
    /// When the row at the front of `queue` is due, once asked.
    front_due: Option<Option<tokio::time::Instant>>,
    summary: ReplaySummary,
    saved: u64,
    progress_file: ProgressFile,
    started: Instant,
}

/// What the loop waits for after it has sent what it can.
enum Next {
    Due(tokio::time::Instant),
    Retry,
    Acknowledgement,
    Rows,
}

impl Run {
    async fn drive(
        &mut self,
        mut feed: tokio::sync::mpsc::Receiver<Feed>,
        options: &ReplayOptions,
        shutdown: &CancellationToken,
        show: impl Fn(&ReplaySummary),
    ) -> Result<Outcome, StopReason> {
        let mut save = interval(options.checkpoint_interval.max(Duration::from_millis(10)));
        let mut redraw = interval(REDRAW);
        save.set_missed_tick_behavior(MissedTickBehavior::Delay);
        redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while let Some(acknowledged) = self.window.acknowledged_now() {
                tally(&mut self.summary, acknowledged?);
            }
            let next = self.send_due()?;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(Outcome::Interrupted),
                _ = save.tick() => self.save().await?,
                _ = redraw.tick() => show(&self.summary),
                acknowledged = self.window.acknowledged() => tally(&mut self.summary, acknowledged?),
                () = async {
                    match next {
                        Next::Due(due) => sleep_until(due).await,
                        Next::Retry => sleep(QUEUE_FULL).await,
                        Next::Acknowledgement | Next::Rows => std::future::pending().await,
                    }
                } => {}
                item = feed.recv(), if matches!(next, Next::Rows) => match item {
                    Some(Feed::Rows(rows)) => self.queue.extend(rows),
                    Some(Feed::End { limited: true }) => return Ok(Outcome::LimitReached),
                    Some(Feed::End { limited: false }) => return Ok(Outcome::Complete),
                    Some(Feed::Failed(reason)) => {
                        // What was readable counts: it is acknowledged before the error is told.
                        self.drain(None).await?;
                        return Err(reason);
                    }
                    None => return Err(StopReason::ReaderDied),
                },
            }
        }
    }

    /// Sends the rows that are due, as far as the window allows.
    fn send_due(&mut self) -> Result<Next, StopReason> {
        while let Some(row) = self.queue.pop_front() {
            if !self.window.has_room() {
                self.queue.push_front(row);
                return Ok(Next::Acknowledgement);
            }
            let due = match self.front_due {
                Some(due) => due,
                None => {
                    let event_time = match &row.content {
                        Prepare::Event(event) => event.occurred_at,
                        _ => None,
                    };
                    *self.front_due.insert(self.pacer.due(event_time))
                }
            };
            if let Some(due) = due.filter(|due| *due > tokio::time::Instant::now()) {
                self.queue.push_front(row);
                return Ok(Next::Due(due));
            }
            if let Some(row) = self.window.send(row)? {
                self.queue.push_front(row);
                return Ok(Next::Retry);
            }
            self.front_due = None;
        }
        Ok(Next::Rows)
    }

    async fn save(&mut self) -> Result<(), StopReason> {
        if self.summary.total.rows() > self.saved {
            self.progress_file.save(self.summary.total, false).await?;
            self.saved = self.summary.total.rows();
        }
        Ok(())
    }

    async fn drain(&mut self, patience: Option<Duration>) -> Result<(), StopReason> {
        let summary = &mut self.summary;
        self.window.drain(patience, |row| tally(summary, row)).await
    }

    /// Flushes, saves the checkpoint, and puts summary and error together.
    async fn finish(
        mut self,
        ended: Result<Outcome, StopReason>,
        options: &ReplayOptions,
    ) -> Result<ReplaySummary, ReplayError> {
        let ended = match ended {
            Ok(Outcome::Interrupted) => self.drain(Some(options.broker_timeout)).await.map(|()| Outcome::Interrupted),
            Ok(outcome) => self.drain(None).await.map(|()| outcome),
            // After a failed delivery nothing behind it can be claimed.
            Err(reason) => Err(reason),
        };
        let complete = matches!(ended, Ok(Outcome::Complete));
        let saved = self.progress_file.save(self.summary.total, complete).await;
        self.summary.elapsed = self.started.elapsed();
        match ended.and_then(|outcome| saved.map(|()| outcome)) {
            Ok(outcome) => Ok(ReplaySummary { outcome, ..self.summary }),
            Err(reason) => Err(ReplayError::Stopped { reason, summary: Box::new(self.summary) }),
        }
    }
}

fn tally(summary: &mut ReplaySummary, row: Acknowledged) {
    for counts in [&mut summary.counts, &mut summary.total] {
        match &row.done {
            Done::Mapped => counts.mapped += 1,
            Done::Unmapped(_) => counts.unmapped += 1,
            Done::Blank => counts.blank += 1,
            Done::Oversized(_) => counts.oversized += 1,
        }
    }
    summary.bytes += row.bytes as u64;
    if let Done::Unmapped(problem) | Done::Oversized(problem) = row.done {
        summary.describe(row.line, problem);
    }
}
