//! The view maintainer as a job of the shard runtime.

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{
    maintainer::{MaintainerSetup, ViewMaintainer, ViewsConfig},
    registry::{RegistryError, ViewRegistry},
};
use crate::tasks::{JobContext, JobFactory, ShardJob, TaskError};

struct ViewJob {
    config: ViewsConfig,
}

/// Makes the job that keeps all views of a region and shard.
pub fn view_jobs(config: &ViewsConfig) -> JobFactory {
    let config = config.clone();
    Arc::new(move |_| Box::new(ViewJob { config: config.clone() }))
}

#[async_trait]
impl ShardJob for ViewJob {
    async fn run(&mut self, context: JobContext, stop: CancellationToken) -> Result<(), TaskError> {
        let JobContext { region, shard, storage, home } = context;
        let setup = MaintainerSetup { config: self.config.clone(), home, region, storage, shard };
        ViewMaintainer::new(setup).run(stop).await;
        Ok(())
    }
}

impl ViewRegistry {
    /// Makes the views that come with the product, where they are missing or have changed.
    pub async fn create_built_in(
        &mut self,
        regions: &std::collections::BTreeSet<String>,
        shards: u32,
    ) -> Result<(), RegistryError> {
        for view in super::built_in_views()? {
            let taken = self
                .views()
                .get(&view.name)
                .is_some_and(|known| known.current.iter().chain(&known.next).any(|generation| !generation.built_in));
            // Somebody's own view of that name is theirs.
            if !taken && self.create(&view.sql, regions.clone(), shards, true, false).await? {
                tracing::info!(view = view.name, "built-in view made");
            }
        }
        Ok(())
    }
}
