//! Views of a fixture, made and built as workers do.

use std::{sync::Arc, time::Duration};

use companyos_pipelines::views::{MaintainerSetup, RegistryError, Shard, ViewMaintainer, ViewRegistry, ViewsConfig};

use super::Fixture;

pub const REGIONS: [&str; 2] = ["eu-west-1", "us-east-1"];

impl Fixture {
    pub fn registry(&self) -> ViewRegistry {
        ViewRegistry::new(&self.storage(REGIONS[0]))
    }

    pub async fn create_view(&self, sql: &str) -> Result<bool, RegistryError> {
        self.registry().create(sql, REGIONS.map(str::to_owned).into(), 1, false, false).await
    }

    pub fn maintainer(&self, region: &str) -> ViewMaintainer {
        ViewMaintainer::new(MaintainerSetup {
            config: ViewsConfig { registry_interval: Duration::ZERO, ..ViewsConfig::default() },
            home: self.storage(REGIONS[0]),
            region: Arc::from(region),
            storage: self.storage(region),
            archive: None,
            shard: Shard { index: 0, of: 1 },
        })
    }

    /// Until nothing is left to take in.
    pub async fn build_views(&self) {
        for region in REGIONS {
            let mut maintainer = self.maintainer(region);
            while maintainer.round().await.is_ok_and(|moved| moved) {}
        }
    }
}
