//! Which views and dimensions there are for a query, and a dimension's rows in the asker's scope.
//!
//! A view's state table is read through the same boundary as every other table, so the merge and
//! everything above it see the asker's rows only.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;
use companyos_pipelines::views::{Dimension, Generation, RegistryError, View, ViewRegistry};
use companyos_sinks::storage::Storage;
use dashmap::DashMap;
use datafusion::{catalog::TableProvider, datasource::MemTable};
use tokio::sync::Mutex;

use crate::{catalog::RegionRoots, error::QueryError, scope_filter::ScopeFilter};

/// The views and dimensions there are, looked up anew when a query starts.
#[derive(Debug)]
pub(crate) struct Views {
    known: Mutex<Known>,
    /// Rows of the dimensions' objects by region and path, which are never written twice.
    loaded: DashMap<(String, String), RecordBatch>,
}

#[derive(Debug)]
struct Known {
    registry: ViewRegistry,
    /// The registry as queries have it, until it changes.
    shared: Option<Arc<ViewRegistry>>,
    looked: Option<Instant>,
}

/// A change of the views shows in queries after this long at most.
const FRESH: Duration = Duration::from_millis(250);

impl Views {
    pub fn new(home: &Storage) -> Self {
        Self {
            known: Mutex::new(Known { registry: ViewRegistry::new(home), shared: None, looked: None }),
            loaded: DashMap::new(),
        }
    }

    /// The registry as it is now.
    pub async fn current(&self) -> Result<Arc<ViewRegistry>, QueryError> {
        let mut known = self.known.lock().await;
        if known.looked.is_none_or(|at| at.elapsed() > FRESH) {
            let changed = known.registry.refresh().await.map_err(|error| {
                tracing::error!(%error, "the registry of views cannot be read");
                QueryError::Storage
            })?;
            known.looked = Some(Instant::now());
            if changed {
                known.shared = None;
            }
            let dimensions = known.registry.dimensions();
            self.loaded.retain(|(region, path), _| dimensions.iter().any(|(_, d)| d.objects.get(region) == Some(path)));
        }
        let known = &mut *known;
        Ok(known.shared.get_or_insert_with(|| Arc::new(known.registry.clone())).clone())
    }

    /// A dimension's rows as one scope sees them.
    pub async fn dimension(
        &self,
        dimension: &Dimension,
        regions: &BTreeMap<String, RegionRoots>,
        scope: &ScopeFilter,
    ) -> Result<Arc<dyn TableProvider>, QueryError> {
        let mut seen = Vec::new();
        for (region, path) in dimension.objects_for(|region| scope.roots(false).contains(region)) {
            let roots = regions.get(region).ok_or(QueryError::Storage)?;
            let place = (region.to_owned(), path.to_owned());
            let known = self.loaded.get(&place).map(|rows| rows.clone());
            let rows = match known {
                Some(rows) => rows,
                None => {
                    let rows = Dimension::read(&roots.hot.storage, path).await.map_err(|error| {
                        tracing::error!(path, %error, "a dimension cannot be read");
                        QueryError::Storage
                    })?;
                    self.loaded.insert(place, rows.clone());
                    rows
                }
            };
            seen.push(scope.rows_of(&rows).map_err(|error| {
                tracing::error!(path, %error, "a dimension cannot be filtered");
                QueryError::Internal
            })?);
        }
        Ok(Arc::new(MemTable::try_new(dimension.schema.clone(), vec![seen])?))
    }
}

impl Views {
    /// Makes or changes a view; false if it is the same already.
    pub async fn create(&self, sql: &str, regions: BTreeSet<String>, shards: u32) -> Result<bool, RegistryError> {
        let mut known = self.known.lock().await;
        (known.looked, known.shared) = (None, None);
        known.registry.create(sql, regions, shards, false, false).await
    }

    /// Removes a view.
    pub async fn drop_view(&self, name: &str) -> Result<(), RegistryError> {
        let mut known = self.known.lock().await;
        (known.looked, known.shared) = (None, None);
        known.registry.drop_view(name).await
    }
}

/// What a query reads under a view's name, or why it cannot yet.
pub(crate) fn readable(name: &str, view: &View) -> Result<Arc<Generation>, QueryError> {
    view.current.clone().ok_or_else(|| {
        let parts = view.next.as_ref().map_or((0, 0), |g| (g.ready.len(), g.regions.len() * g.shards as usize));
        QueryError::NotAllowed(format!(
            "the view {name} is being built: {} of {} parts have taken the history in",
            parts.0, parts.1
        ))
    })
}
