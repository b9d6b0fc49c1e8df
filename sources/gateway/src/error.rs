//! What can keep a gateway from starting or running.

/// A gateway that cannot start, serve or report ready.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A setting that cannot work.
    #[error("gateway setting {key}: {detail}")]
    Config {
        /// Path of the key below `[gateway]`.
        key: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A librdkafka setting that would break the promise behind a 202.
    #[error("kafka setting {key} may not be set: the gateway's producer is idempotent and waits for all replicas")]
    ReservedSetting {
        /// The setting.
        key: String,
    },
    /// librdkafka refused the settings.
    #[error("cannot make the Kafka producer: {0}")]
    Producer(#[source] rdkafka::error::KafkaError),
    /// No broker answers.
    #[error("the Kafka brokers cannot be reached: {0}")]
    BrokerUnreachable(#[source] rdkafka::error::KafkaError),
    /// Records could not be delivered before shutdown ended.
    #[error("records were left undelivered at shutdown: {0}")]
    Flush(#[source] rdkafka::error::KafkaError),
    /// The gateway is shutting down and takes no more requests.
    #[error("the gateway is shutting down")]
    Draining,
    /// The listener failed.
    #[error("cannot serve: {0}")]
    Serve(#[from] std::io::Error),
    /// A worker thread of the process died.
    #[error("a task of the gateway died: {0}")]
    Task(#[from] tokio::task::JoinError),
}
