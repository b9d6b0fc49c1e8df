//! The view maintainer as a job of the shard runtime.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use companyos_sinks::storage::Storage;
use tokio_util::sync::CancellationToken;

use super::{
    maintainer::{MaintainerSetup, ViewMaintainer, ViewsConfig},
    registry::{RegistryError, ViewRegistry},
};
use crate::tasks::{JobContext, JobFactory, ShardJob, TaskError};

/// Archives by region.
type Archives = Arc<HashMap<Arc<str>, Storage>>;

struct ViewJob {
    config: ViewsConfig,
    archives: Archives,
}

/// Makes the job that keeps all views of a region and shard. `archives` are of the regions that
/// move old days away.
pub fn view_jobs(config: &ViewsConfig, archives: HashMap<Arc<str>, Storage>) -> JobFactory {
    let (config, archives) = (config.clone(), Arc::new(archives));
    Arc::new(move |_| Box::new(ViewJob { config: config.clone(), archives: archives.clone() }))
}

#[async_trait]
impl ShardJob for ViewJob {
    async fn run(&mut self, context: JobContext, stop: CancellationToken) -> Result<(), TaskError> {
        let JobContext { region, shard, storage, home } = context;
        let archive = self.archives.get(&region).cloned();
        let setup = MaintainerSetup { config: self.config.clone(), home, region, storage, archive, shard };
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
