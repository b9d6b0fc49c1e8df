//! How long after it was produced an event can be read with SQL.
//!
//! Events are produced at a fixed rate while one client keeps asking, one query at a time, which
//! offset of each partition is the newest visible. The time an event was handed to the producer is
//! known from its delivery report, and Kafka offsets rise by one, so each event's latency is the time
//! from there to the arrival of the first answer that covers its offset. Every answer also counts its
//! rows, so that a gap or a double would be noticed.
//!
//! The method only errs upwards: an event may have been visible up to one poll (pause and query
//! together, reported beside the result) before it was seen.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hdrhistogram::Histogram;
use rdkafka::error::KafkaError;
use serde::{Deserialize, Serialize};

use crate::{
    generator::{Generator, GeneratorConfig},
    kafka::{self, Deliveries, TopicProducer},
};

/// What to run.
#[derive(Debug, Clone)]
pub struct FreshnessConfig {
    /// Kafka's bootstrap servers.
    pub brokers: String,
    /// Topic the engine reads into the product events' table; made if it is missing.
    pub topic: String,
    /// Its partitions.
    pub partitions: i32,
    /// Events a second.
    pub rate: u64,
    /// How long to measure.
    pub seconds: u64,
    /// How long to produce before measuring.
    pub warm_up_s: u64,
    /// Root URL of the query server.
    pub url: String,
    /// Token that may query tenant `alpha`.
    pub token: String,
    /// Pause between an answer and the next query.
    pub poll_pause: Duration,
    /// How long the last event may take to appear before the run fails.
    pub timeout: Duration,
}

/// What was seen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FreshnessResult {
    /// Events measured, all of them seen.
    pub events: u64,
    /// Events a second that were produced.
    pub events_per_s: f64,
    /// Produce to visible, in milliseconds.
    pub p50_ms: f64,
    /// 90th percentile.
    pub p90_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// The slowest.
    pub max_ms: f64,
    /// Queries answered.
    pub polls: u64,
    /// From one answer to the next in milliseconds, median: the error of the method.
    pub poll_p50_ms: f64,
    /// Its 99th percentile.
    pub poll_p99_ms: f64,
}

/// Produces, asks and measures; the engine must be running.
pub async fn run(config: &FreshnessConfig) -> Result<FreshnessResult> {
    kafka::create_topic(&config.brokers, &config.topic, config.partitions, false).await?;
    let ends: Vec<i64> = kafka::positions(&config.brokers, &config.topic)?.into_iter().map(|(_, end)| end).collect();
    let partitions = ends.len();
    let started = Instant::now();
    let sent = Arc::new(Sent::new(partitions));
    let stop = Arc::new(AtomicBool::new(false));
    let producing = {
        let (config, sent, stop) = (config.clone(), sent.clone(), stop.clone());
        tokio::task::spawn_blocking(move || produce(&config, started, sent, &stop))
    };
    let mut watcher = Watcher::new(config, started, ends)?;
    let watched = watcher.watch(&producing).await;
    stop.store(true, Ordering::Relaxed);
    let produced = producing.await?;
    watched?;
    let (events, seconds) = produced?;
    watcher.watch_until_all_seen(&sent).await?;

    let mut latencies = Histogram::<u64>::new(3)?;
    let after = config.warm_up_s * 1_000_000;
    for (partition, seen) in watcher.seen.iter().enumerate() {
        for latency in latencies_us(&sent.take(partition), seen, after) {
            latencies.record(latency.context("an event was never seen")?)?;
        }
    }
    let ms = |us: u64| us as f64 / 1e3;
    Ok(FreshnessResult {
        events: latencies.len(),
        events_per_s: events as f64 / seconds,
        p50_ms: ms(latencies.value_at_quantile(0.5)),
        p90_ms: ms(latencies.value_at_quantile(0.9)),
        p99_ms: ms(latencies.value_at_quantile(0.99)),
        max_ms: ms(latencies.max()),
        polls: watcher.intervals.len(),
        poll_p50_ms: ms(watcher.intervals.value_at_quantile(0.5)),
        poll_p99_ms: ms(watcher.intervals.value_at_quantile(0.99)),
    })
}

/// Latency of each event sent after `after` (µs since the start): from `sent` (offset, time) and the
/// answers `seen` (time, newest offset), both in rising order. None for an event never seen.
fn latencies_us(sent: &[(i64, u64)], seen: &[(u64, i64)], after: u64) -> Vec<Option<u64>> {
    sent.iter()
        .filter(|(_, at)| *at >= after)
        .map(|(offset, at)| {
            let answer = seen.partition_point(|(_, newest)| newest < offset);
            seen.get(answer).map(|(visible, _)| visible.saturating_sub(*at))
        })
        .collect()
}

/// Offset and send time (µs since the start) of every delivered event, by partition.
struct Sent {
    partitions: Vec<Mutex<Vec<(i64, u64)>>>,
    failed: AtomicU64,
}

impl Sent {
    fn new(partitions: usize) -> Self {
        Self { partitions: (0..partitions).map(|_| Mutex::default()).collect(), failed: AtomicU64::new(0) }
    }

    fn newest(&self, partition: usize) -> Option<i64> {
        let events = self.partitions[partition].lock().unwrap_or_else(PoisonError::into_inner);
        events.last().map(|(offset, _)| *offset)
    }

    fn take(&self, partition: usize) -> Vec<(i64, u64)> {
        std::mem::take(&mut self.partitions[partition].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct IntoSent(Arc<Sent>);

impl Deliveries for IntoSent {
    fn delivered(&self, tag: usize, partition: i32, offset: i64) {
        let Some(events) = usize::try_from(partition).ok().and_then(|p| self.0.partitions.get(p)) else { return };
        events.lock().unwrap_or_else(PoisonError::into_inner).push((offset, tag as u64));
    }

    fn failed(&self, _tag: usize, _error: KafkaError) {
        self.0.failed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Produces at the configured rate; returns the number of events and the seconds it took.
fn produce(config: &FreshnessConfig, started: Instant, sent: Arc<Sent>, stop: &AtomicBool) -> Result<(u64, f64)> {
    let partitions = u64::try_from(sent.partitions.len())?;
    let producer = TopicProducer::new(&config.brokers, &config.topic, "lz4", 5, IntoSent(sent))?;
    let now_ms = u64::try_from(chrono::Utc::now().timestamp_millis())?;
    // The seed differs between runs: an engine that already holds an earlier run's ids would drop these.
    let generator = GeneratorConfig { only_tenant: Some("alpha"), ..GeneratorConfig::new(now_ms, now_ms) };
    let mut generator = Generator::new(generator);
    let mut event = Vec::with_capacity(1024);
    let total = config.rate * (config.warm_up_s + config.seconds);
    let mut next = 0;
    while next < total && !stop.load(Ordering::Relaxed) {
        let due = total.min((started.elapsed().as_secs_f64() * config.rate as f64) as u64);
        while next < due {
            event.clear();
            generator.write_event(next, &mut event);
            let at = usize::try_from(started.elapsed().as_micros())?;
            producer.send(i32::try_from(next % partitions)?, &event, at)?;
            next += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let seconds = started.elapsed().as_secs_f64();
    producer.flush()?;
    let failed = producer.deliveries().0.failed.load(Ordering::Relaxed);
    ensure!(failed == 0, "{failed} events were not delivered");
    Ok((next, seconds))
}

/// Asks for the newest visible offsets, again and again.
struct Watcher<'a> {
    config: &'a FreshnessConfig,
    client: reqwest::Client,
    started: Instant,
    /// Newest offset seen in each partition; at first the one before the run's first.
    newest: Vec<i64>,
    /// Arrival (µs since the start) and newest offset of each answer that had news.
    seen: Vec<Vec<(u64, i64)>>,
    intervals: Histogram<u64>,
    last_answer: Option<Instant>,
}

impl<'a> Watcher<'a> {
    fn new(config: &'a FreshnessConfig, started: Instant, ends: Vec<i64>) -> Result<Self> {
        Ok(Self {
            config,
            client: reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?,
            started,
            seen: vec![Vec::new(); ends.len()],
            newest: ends.into_iter().map(|end| end - 1).collect(),
            intervals: Histogram::new(3)?,
            last_answer: None,
        })
    }

    /// Asks until producing has ended. Before the first answer, errors are waited out: the server
    /// may be starting and the table may not exist yet.
    async fn watch<T>(&mut self, producing: &tokio::task::JoinHandle<T>) -> Result<()> {
        while !producing.is_finished() {
            match self.poll().await {
                Err(error) if self.last_answer.is_some() => return Err(error),
                Err(error) if self.started.elapsed() > self.config.timeout => {
                    return Err(error.context("the query server gave no answer"));
                }
                Ok(()) | Err(_) => tokio::time::sleep(self.config.poll_pause).await,
            }
        }
        Ok(())
    }

    async fn watch_until_all_seen(&mut self, sent: &Sent) -> Result<()> {
        let deadline = Instant::now() + self.config.timeout;
        loop {
            let missing: i64 = (0..self.newest.len())
                .filter_map(|partition| Some(sent.newest(partition)? - self.newest[partition]))
                .sum();
            if missing <= 0 {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{missing} events not visible after {:?}", self.config.timeout);
            self.poll().await?;
            tokio::time::sleep(self.config.poll_pause).await;
        }
    }

    async fn poll(&mut self) -> Result<()> {
        let response = self
            .client
            .post(format!("{}/v1/sql", self.config.url.trim_end_matches('/')))
            .bearer_auth(&self.config.token)
            .header("accept", "text/csv")
            .json(&serde_json::json!({ "sql": self.query()? }))
            .send()
            .await?;
        let status = response.status();
        let body = response.text().await?;
        let arrived = Instant::now();
        if !status.is_success() {
            bail!("the query server answered {status}: {body}");
        }
        let at = u64::try_from(arrived.duration_since(self.started).as_micros())?;
        for (partition, (newest, rows)) in parse(&body)? {
            let known = self.newest.get_mut(partition).with_context(|| format!("unknown partition {partition}"))?;
            let expected = newest - *known;
            ensure!(rows == expected, "partition {partition}: {rows} rows where {expected} offsets passed");
            *known = newest;
            self.seen[partition].push((at, newest));
        }
        if let Some(last) = self.last_answer.replace(arrived) {
            self.intervals.record(u64::try_from(arrived.duration_since(last).as_micros())?)?;
        }
        Ok(())
    }

    /// Asks for what is new only, so that file statistics spare the server the rest of the table.
    fn query(&self) -> Result<String> {
        let mut sql = format!(
            "SELECT _partition, max(_offset) AS newest, count(*) AS rows FROM product_events WHERE _topic = '{}' AND (",
            self.config.topic
        );
        for (partition, newest) in self.newest.iter().enumerate() {
            let or = if partition == 0 { "" } else { " OR " };
            write!(sql, "{or}(_partition = {partition} AND _offset > {newest})")?;
        }
        sql.push_str(") GROUP BY _partition");
        Ok(sql)
    }
}

/// Newest offset and row count by partition.
fn parse(csv: &str) -> Result<HashMap<usize, (i64, i64)>> {
    #[derive(Deserialize)]
    struct Row {
        #[serde(rename = "_partition")]
        partition: usize,
        newest: i64,
        rows: i64,
    }
    csv::Reader::from_reader(csv.as_bytes())
        .deserialize()
        .map(|row| {
            let row: Row = row.map_err(|error| anyhow!("{error} in the answer {csv:?}"))?;
            Ok((row.partition, (row.newest, row.rows)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_as_old_as_the_first_answer_that_covers_it() {
        let sent = [(10, 0), (11, 1_000), (12, 2_000), (13, 9_000)];
        let seen = [(5_000, 11), (8_000, 12)];
        assert_eq!(latencies_us(&sent, &seen, 0), [Some(5_000), Some(4_000), Some(6_000), None]);
        assert_eq!(latencies_us(&sent, &seen, 2_000), [Some(6_000), None]);
    }

    #[test]
    fn answers_are_read_by_column_name() {
        let answer = parse("rows,_partition,newest\n3,1,12\n1,0,7\n").unwrap();
        assert_eq!(answer, HashMap::from([(1, (12, 3)), (0, (7, 1))]));
        assert!(parse("_partition,newest,rows\n").unwrap().is_empty());
        assert!(parse("_partition,newest,rows\n0,x,1\n").is_err());
    }
}
