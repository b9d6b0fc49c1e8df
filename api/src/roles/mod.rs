//! The roles of the data path, each a future that runs until told to stop. `companyos <role>` runs
//! one in a process, `companyos demo` all of them.

pub mod gateway;
pub mod maintain;
pub mod query;
pub mod worker;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{config::Config, telemetry::Readiness};

/// What a role gets from its process.
#[derive(Clone)]
pub struct Context {
    /// The configuration, validated.
    pub config: Arc<Config>,
    /// Where it registers its check.
    pub readiness: Readiness,
    /// When to stop.
    pub shutdown: CancellationToken,
}
