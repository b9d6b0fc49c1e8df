//! A worker: every member of every pipeline it was asked to run, started, watched and stopped.

use std::{
    collections::{BTreeMap, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use companyos_operators::{Redactor, Sealer};
use companyos_schemas::tenancy::Tenancy;
use companyos_sinks::{
    kafka::{KafkaSink, KafkaSinkError},
    storage::{Storage, StorageError},
};
use companyos_source_kafka::{KafkaConfig, KafkaSource, SourceError};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};
use tracing::{error, info, warn};

use crate::{
    assignment::{Assignments, ChainParts},
    committer::Committer,
    config::WorkerConfig,
    health::WorkerHealth,
    member::{Bounds, Member, MemberError},
    quarantine_topic::QuarantineTopic,
    spec::PipelineSpec,
    tables::Tables,
};

/// What a worker needs from the process around it.
pub struct WorkerSetup {
    /// `[worker]`.
    pub config: WorkerConfig,
    /// What to run; usually [`WorkerConfig::load_pipelines`].
    pub pipelines: Vec<PipelineSpec>,
    /// First part of the consumer groups' names; the pipeline's name follows.
    pub group: String,
    /// `[kafka]`.
    pub kafka: KafkaConfig,
    /// `[tenancy]`, validated.
    pub tenancy: Arc<Tenancy>,
    /// Data loss prevention; none runs without.
    pub redactor: Option<Arc<Redactor>>,
    /// Encrypts originals in quarantine; none keeps no originals.
    pub sealer: Option<Arc<Sealer>>,
    /// Storage by region; usually [`WorkerSetup::storages`].
    pub storages: HashMap<Arc<str>, Storage>,
}

impl WorkerSetup {
    /// Opens the storage of every region.
    pub fn storages(tenancy: &Tenancy) -> Result<HashMap<Arc<str>, Storage>, StorageError> {
        tenancy
            .regions
            .iter()
            .map(|(name, region)| Ok((Arc::from(name.as_str()), Storage::for_region(region)?)))
            .collect()
    }
}

/// Why a worker cannot start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Kafka cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The quarantine topic cannot be used.
    #[error(transparent)]
    QuarantineTopic(#[from] KafkaSinkError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// A member ended by itself.
    #[error("{member}: {error}")]
    Member {
        /// Which.
        member: String,
        /// Why.
        error: MemberError,
    },
    /// A member's thread is gone without a word: a bug.
    #[error("{0} ended unexpectedly")]
    Lost(String),
}

/// A running worker.
pub struct Worker {
    stop: Arc<AtomicBool>,
    health: Arc<WorkerHealth>,
    members: Vec<(String, JoinHandle<Result<(), MemberError>>)>,
}

impl Worker {
    /// Starts all members. Call within a multi-threaded tokio runtime.
    pub async fn start(setup: WorkerSetup) -> Result<Self, WorkerError> {
        let quarantine_topic = quarantine_topic(&setup).await?;
        let mut worker = Worker { stop: Arc::default(), health: Arc::default(), members: Vec::new() };
        for spec in &setup.pipelines {
            for index in 0..setup.config.members.max(1) {
                let name = format!("{}#{index}", spec.name);
                let member = start_member(&setup, spec, &name, quarantine_topic.clone(), &worker)?;
                worker.members.push((name, member));
            }
        }
        info!(pipelines = setup.pipelines.len(), members = worker.members.len(), "worker started");
        Ok(worker)
    }

    /// Shared with /readyz and the metrics.
    pub fn health(&self) -> Arc<WorkerHealth> {
        self.health.clone()
    }

    /// Runs until `shutdown` resolves, then commits what is held; or until a member fails, which
    /// stops the others the same way.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), WorkerError> {
        let any_ended = futures::future::select_all(self.members.iter_mut().map(|(_, handle)| handle));
        let first = tokio::select! {
            () = shutdown => None,
            (result, index, _) = any_ended => Some((index, result)),
        };
        self.stop.store(true, Ordering::Relaxed);
        let mut outcome = Ok(());
        for (index, (name, handle)) in self.members.into_iter().enumerate() {
            let result = match &first {
                Some((ended, _)) if *ended == index => continue,
                _ => handle.await,
            };
            outcome = outcome.and(judge(name, result));
        }
        match first {
            Some((index, result)) => judge(format!("member {index}"), result).and(outcome),
            None => outcome,
        }
    }
}

fn judge(member: String, result: Result<Result<(), MemberError>, tokio::task::JoinError>) -> Result<(), WorkerError> {
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            error!(%member, %error, "member failed");
            Err(WorkerError::Member { member, error })
        }
        Err(_) => Err(WorkerError::Lost(member)),
    }
}

fn start_member(
    setup: &WorkerSetup,
    spec: &PipelineSpec,
    name: &str,
    quarantine_topic: Option<QuarantineTopic>,
    worker: &Worker,
) -> Result<JoinHandle<Result<(), MemberError>>, WorkerError> {
    let (commands, receiver) = mpsc::channel(4);
    let (outcomes, outcome_receiver) = std::sync::mpsc::channel();
    let committer = Committer {
        pipeline: spec.name.clone(),
        tables: Tables::new(
            &spec.name,
            spec.stream,
            &setup.tenancy,
            setup.storages.clone(),
            setup.config.files.clone(),
        ),
        quarantine_topic,
        commands: receiver,
        outcomes,
    };
    tokio::spawn(committer.run());
    let assignments = Arc::new(Assignments {
        runtime: Handle::current(),
        commands: commands.clone(),
        parts: ChainParts {
            spec: spec.clone(),
            tenancy: setup.tenancy.clone(),
            redactor: setup.redactor.clone().filter(|_| spec.dlp),
            sealer: setup.sealer.clone(),
            storages: setup.storages.clone(),
        },
        changes: Mutex::default(),
        changed: AtomicBool::default(),
    });
    let mut kafka = setup.kafka.clone();
    // Static membership needs a name per member, not per process.
    kafka.instance_id = kafka.instance_id.map(|id| format!("{id}.{name}"));
    let source = KafkaSource::subscribe(&kafka, &spec.group(&setup.group), &spec.topics, assignments.clone())?;
    let bounds = Bounds {
        commit_interval: setup.config.commit_interval,
        epoch_max_bytes: setup.config.epoch_max_bytes,
        batch_rows: setup.config.batch_rows,
    };
    let mut member = Member::new(
        name.to_owned(),
        &spec.name,
        source,
        assignments,
        commands,
        outcome_receiver,
        worker.health.clone(),
        bounds,
    );
    let stop = worker.stop.clone();
    let (done, result) = tokio::sync::oneshot::channel();
    // A thread of its own: rebalance callbacks block, and must not block the async runtime.
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| member.run(&stop))).unwrap_or(Err(MemberError::Panicked));
        match outcome {
            // Closing the consumer would call back into what just broke, and wait for it. The process
            // is about to end, and the group notices by the session's timeout.
            Err(MemberError::Panicked) => std::mem::forget(member),
            _ => drop(member),
        }
        let _ = done.send(outcome);
    })?;
    Ok(tokio::spawn(async move { result.await.unwrap_or(Err(MemberError::CommitterGone)) }))
}

async fn quarantine_topic(setup: &WorkerSetup) -> Result<Option<QuarantineTopic>, WorkerError> {
    let topic = setup.config.quarantine_topic.clone();
    if topic.is_empty() {
        return Ok(None);
    }
    let settings: BTreeMap<String, String> = setup.kafka.settings.clone();
    let sink = KafkaSink::new(&setup.kafka.brokers, &settings)?;
    ensure_topic(&setup.kafka, &topic).await;
    Ok(Some(QuarantineTopic { topic, sink }))
}

/// Creates the topic where it is missing. Where creating is not allowed it must exist already, and
/// the first announcement will say so if it does not.
async fn ensure_topic(kafka: &KafkaConfig, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = match kafka.client().create() {
        Ok(admin) => admin,
        Err(error) => return warn!(%error, "no admin client"),
    };
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1));
    match admin.create_topics([&new], &options).await {
        Ok(results) => {
            for result in results {
                match result {
                    Ok(_) => info!(topic, "topic created"),
                    Err((_, rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists)) => {}
                    Err((_, code)) => warn!(topic, %code, "topic could not be created"),
                }
            }
        }
        Err(error) => warn!(topic, %error, "topic could not be created"),
    }
}
