//! One storage root as the scans see it: a session of its own, which no SQL ever runs in.
//!
//! Every root has a private object store registry, so two regions may use the same bucket name
//! with different credentials, and the sessions users run SQL in have no store at all. Memory,
//! spill space and the footer cache are shared.

use std::sync::Arc;

use companyos_sinks::storage::Storage;
use dashmap::DashMap;
use datafusion::{
    common::plan_datafusion_err,
    error::Result,
    execution::{
        SessionState, SessionStateBuilder,
        object_store::ObjectStoreRegistry,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    prelude::SessionConfig,
};
use object_store::ObjectStore;
use url::Url;

/// A root and the session its scans run in.
#[derive(Debug)]
pub(crate) struct Root {
    /// Region it belongs to.
    pub region: Arc<str>,
    /// Whether it is the region's archive.
    pub archive: bool,
    /// The store.
    pub storage: Storage,
    /// Plans and runs scans.
    pub session: SessionState,
}

impl Root {
    pub fn new(region: Arc<str>, archive: bool, storage: Storage, shared: &RuntimeEnv, config: &SessionConfig) -> Self {
        let session = SessionStateBuilder::new()
            .with_config(config.clone())
            .with_runtime_env(with_own_stores(shared))
            .with_default_features()
            .build();
        Self { region, archive, storage, session }
    }
}

/// The same memory pool, spill space and caches, with an empty registry of stores.
pub(crate) fn with_own_stores(shared: &RuntimeEnv) -> Arc<RuntimeEnv> {
    let mut env = shared.clone();
    env.object_store_registry = Arc::new(OwnStores::default());
    Arc::new(env)
}

/// Pool, spill space and caches as configured.
pub(crate) fn shared_runtime(config: &crate::QueryConfig) -> Result<RuntimeEnv> {
    use datafusion::execution::{disk_manager::DiskManagerBuilder, disk_manager::DiskManagerMode, memory_pool};
    let mode = match &config.spill_dir {
        Some(dir) => DiskManagerMode::Directories(vec![dir.clone()]),
        None => DiskManagerMode::OsTmpDirectory,
    };
    let disk = DiskManagerBuilder::default().with_mode(mode).with_max_temp_directory_size(config.max_spill_bytes);
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(memory_pool::FairSpillPool::new(config.memory_limit_bytes)))
        .with_disk_manager_builder(disk)
        .with_metadata_cache_limit(config.metadata_cache_bytes)
        .with_object_store_registry(Arc::new(OwnStores::default()))
        .build()
}

/// Stores by scheme and authority; unlike DataFusion's default it starts without the file system.
#[derive(Debug, Default)]
struct OwnStores {
    stores: DashMap<String, Arc<dyn ObjectStore>>,
}

fn key(url: &Url) -> String {
    format!("{}://{}", url.scheme(), &url[url::Position::BeforeHost..url::Position::AfterPort])
}

impl ObjectStoreRegistry for OwnStores {
    fn register_store(&self, url: &Url, store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        self.stores.insert(key(url), store)
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        self.stores
            .get(&key(url))
            .map(|store| store.clone())
            .ok_or_else(|| plan_datafusion_err!("no object store of this kind is available"))
    }
}
