//! Jobs that follow the tables' logs, one instance per region and shard of tenants.
//!
//! Who runs a shard is decided by a consumer group: the topic `companyos_tasks` has one partition
//! for each shard and never a record, and owning partition i means running all jobs of shard i, in
//! every region. So shards move between workers as partitions do.
//!
//! Promises:
//! - A shard that is taken away is stopped, its last checkpoint included, before the next owner
//!   starts, unless that takes too long; then the checkpoint's fence keeps the two apart.
//! - A job that fails or panics is started again, with pauses that grow; other jobs do not notice.
//! - What an operator puts out and what it has read become durable together
//!   (see [`companyos_sinks::checkpoint`]).

mod config;
mod job;
mod notices;
mod operator_job;
mod ownership;
mod reload;
mod replay;
mod supervisor;
mod webhooks;

pub use config::TasksConfig;
pub use job::{JobContext, JobFactory, ShardJob, TaskError};
pub use notices::{NoticeRouter, NoticeSetupError};
pub use operator_job::{OperatorFactory, OperatorJob};
pub use ownership::{ShardTasks, TasksError, TasksSetup};
pub use reload::{Definitions, Reloading, watch_files};
pub use replay::{Replay, Replayed};
pub use webhooks::send_to_webhooks;
