//! Which shards this process runs: those whose partitions of the tasks topic it was assigned.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use companyos_sinks::storage::Storage;
use companyos_source_kafka::{AssignmentHandler, KafkaConfig, KafkaSource, SourceError, Start, TopicPartition};
use futures::future::join_all;
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    types::RDKafkaErrorCode,
};
use tokio::{runtime::Handle, sync::oneshot, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{JobContext, JobFactory, TasksConfig, supervisor::supervise};
use crate::views::Shard;

/// What the tasks need from the process around them.
pub struct TasksSetup {
    /// `[tasks]`.
    pub config: TasksConfig,
    /// First part of the consumer group's name; `.tasks` follows.
    pub group: String,
    /// `[kafka]`.
    pub kafka: KafkaConfig,
    /// Storage by region.
    pub storages: HashMap<Arc<str>, Storage>,
    /// The home region.
    pub home_region: Arc<str>,
    /// Jobs to run in every region and shard, by name.
    pub jobs: Vec<(String, JobFactory)>,
}

/// Why the tasks cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TasksError {
    /// There is no storage of the home region.
    #[error("home region {0} has no storage")]
    NoHome(Arc<str>),
    /// Shards and partitions do not match.
    #[error("topic {topic} has {partitions} partitions, but [tasks] shards = {shards}: they must be equal")]
    Partitions {
        /// The topic.
        topic: String,
        /// What it has.
        partitions: usize,
        /// What is configured.
        shards: u32,
    },
    /// Kafka's settings are wrong.
    #[error("tasks topic: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// The group cannot be joined.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// The running tasks of this process.
pub struct ShardTasks {
    stop: Arc<AtomicBool>,
    owner: Arc<Owner>,
    ended: oneshot::Receiver<()>,
}

impl ShardTasks {
    /// Joins the group; shards start as they are assigned. Call within a multi-threaded runtime.
    pub async fn start(setup: TasksSetup) -> Result<Self, TasksError> {
        let home = setup.storages.get(&setup.home_region).cloned();
        let home = home.ok_or_else(|| TasksError::NoHome(setup.home_region.clone()))?;
        let topic = setup.config.topic.clone();
        make_topics(&setup.kafka, &setup.config).await?;
        let owner = Arc::new(Owner {
            runtime: Handle::current(),
            shards: setup.config.shards,
            storages: setup.storages.into_iter().collect(),
            home,
            jobs: setup.jobs,
            running: Mutex::default(),
        });
        let mut kafka = setup.kafka;
        // Static membership needs a name per member, not per process.
        kafka.instance_id = kafka.instance_id.map(|id| format!("{id}.tasks"));
        let group = format!("{}.tasks", setup.group);
        let source = KafkaSource::subscribe(&kafka, &group, std::slice::from_ref(&topic), owner.clone())?;
        let stop = Arc::new(AtomicBool::new(false));
        let (done, ended) = oneshot::channel();
        let member = Member { kafka, group, topic, owner: owner.clone(), stop: stop.clone() };
        // A thread of its own: rebalance callbacks wait for jobs, and must not block the runtime.
        thread::Builder::new().name("tasks".to_owned()).spawn(move || {
            member.run(source);
            let _ = done.send(());
        })?;
        Ok(Self { stop, owner, ended })
    }

    /// Shards that run here.
    pub fn owned(&self) -> BTreeSet<u32> {
        self.owner.lock().keys().copied().collect()
    }

    /// Stops all shards, writes their checkpoints and leaves the group.
    pub async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = (&mut self.ended).await;
    }

    /// Runs until `shutdown` resolves, then stops.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        shutdown.await;
        self.stop().await;
    }
}

impl Drop for ShardTasks {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The polling side.
struct Member {
    kafka: KafkaConfig,
    group: String,
    topic: String,
    owner: Arc<Owner>,
    stop: Arc<AtomicBool>,
}

const POLL: Duration = Duration::from_millis(100);
const JOIN_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Member {
    fn run(&self, first: KafkaSource) {
        let mut source = Some(first);
        while !self.stop.load(Ordering::Relaxed) {
            let problem = match &source {
                Some(joined) => joined.poll(POLL).err(),
                None => {
                    let topics = std::slice::from_ref(&self.topic);
                    match KafkaSource::subscribe(&self.kafka, &self.group, topics, self.owner.clone()) {
                        Ok(joined) => {
                            source = Some(joined);
                            None
                        }
                        Err(error) => Some(error),
                    }
                }
            };
            if let Some(error) = problem {
                error!(%error, "the tasks' group is lost; joining again");
                self.owner.stop_all();
                source = None;
                thread::sleep(JOIN_AGAIN_AFTER);
            }
        }
        // Before leaving the group, so that the next owner finds the last checkpoints.
        self.owner.stop_all();
        drop(source);
    }
}

struct Owner {
    runtime: Handle,
    shards: u32,
    storages: BTreeMap<Arc<str>, Storage>,
    home: Storage,
    jobs: Vec<(String, JobFactory)>,
    running: Mutex<BTreeMap<u32, RunningShard>>,
}

struct RunningShard {
    stop: CancellationToken,
    jobs: Vec<JoinHandle<()>>,
}

/// A group waits for its members longer than this; jobs that need more are cut short, and fenced.
const STOP_WITHIN: Duration = Duration::from_secs(8);

impl Owner {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, RunningShard>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_shard(&self, index: u32) {
        let stop = CancellationToken::new();
        let mut jobs = Vec::new();
        for (region, storage) in &self.storages {
            for (name, factory) in &self.jobs {
                let context = JobContext {
                    region: region.clone(),
                    shard: Shard { index, of: self.shards },
                    storage: storage.clone(),
                    home: self.home.clone(),
                };
                jobs.push(self.runtime.spawn(supervise(name.clone(), factory.clone(), context, stop.clone())));
            }
        }
        info!(shard = index, jobs = jobs.len(), "shard started");
        self.lock().insert(index, RunningShard { stop, jobs });
    }

    fn stop_shards(&self, shards: Vec<(u32, RunningShard)>) {
        for (_, shard) in &shards {
            shard.stop.cancel();
        }
        let numbers: Vec<u32> = shards.iter().map(|(index, _)| *index).collect();
        let mut jobs: Vec<JoinHandle<()>> = shards.into_iter().flat_map(|(_, shard)| shard.jobs).collect();
        self.runtime.block_on(async {
            if tokio::time::timeout(STOP_WITHIN, join_all(jobs.iter_mut())).await.is_err() {
                warn!(shards = ?numbers, "jobs did not stop in time");
                jobs.iter().for_each(JoinHandle::abort);
            }
        });
        if !numbers.is_empty() {
            info!(shards = ?numbers, "shards stopped");
        }
    }

    fn stop_all(&self) {
        let all = std::mem::take(&mut *self.lock());
        self.stop_shards(all.into_iter().collect());
    }
}

impl AssignmentHandler for Owner {
    fn assigned(&self, partitions: &[TopicPartition]) -> Result<Vec<Start>, String> {
        for partition in partitions {
            let Ok(index) = u32::try_from(partition.partition) else { continue };
            if index < self.shards && !self.lock().contains_key(&index) {
                self.start_shard(index);
            }
        }
        Ok(vec![Start::Earliest; partitions.len()])
    }

    fn revoked(&self, partitions: &[TopicPartition]) {
        let mut taken = Vec::new();
        {
            let mut running = self.lock();
            for index in partitions.iter().filter_map(|p| u32::try_from(p.partition).ok()) {
                taken.extend(running.remove(&index).map(|shard| (index, shard)));
            }
        }
        self.stop_shards(taken);
    }
}

/// Makes the topics that are missing, and checks that the tasks topic's partitions are the shards. Where
/// that cannot be done now, they must be there and right.
async fn make_topics(kafka: &KafkaConfig, config: &TasksConfig) -> Result<(), TasksError> {
    let (topic, shards) = (config.topic.as_str(), config.shards);
    let admin: AdminClient<DefaultClientContext> = kafka.client().create()?;
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
    let make = |name, partitions| NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
    let mut topics: BTreeSet<&str> = config.topics.values().map(String::as_str).collect();
    if !config.webhooks.is_empty() && !config.dead_letter_topic.is_empty() {
        topics.insert(&config.dead_letter_topic);
    }
    let mut wanted = vec![make(topic, shards as i32)];
    wanted.extend(topics.into_iter().map(|name| make(name, 1)));
    match admin.create_topics(&wanted, &options).await {
        Ok(results) => {
            for result in results {
                match result {
                    Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                    Err((topic, code)) => warn!(topic, %code, "topic could not be created"),
                }
            }
        }
        Err(error) => warn!(topic, %error, "topics could not be created"),
    }
    let name = topic.to_owned();
    let found = tokio::task::spawn_blocking(move || {
        let metadata = admin.inner().fetch_metadata(Some(&name), Duration::from_secs(10)).ok()?;
        metadata.topics().iter().find(|t| t.name() == name).map(|t| t.partitions().len())
    });
    match found.await.ok().flatten() {
        Some(partitions) if partitions > 0 && partitions != shards as usize => {
            Err(TasksError::Partitions { topic: topic.to_owned(), partitions, shards })
        }
        _ => Ok(()),
    }
}
