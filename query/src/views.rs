//! Materialized views as tables: the scoped state of a view, merged into its answer.
//!
//! A view's state table is read through the same boundary as every other table, so the merge and
//! everything above it see the asker's rows only.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use companyos_pipelines::views::{Generation, RegistryError, View, ViewRegistry};
use companyos_sinks::storage::Storage;
use companyos_views::{ReadInput, ViewError};
use datafusion::{
    catalog::{Session, TableProvider},
    datasource::TableType,
    error::{DataFusionError, Result},
    execution::{SessionState, context::SessionContext},
    logical_expr::TableProviderFilterPushDown,
    physical_plan::ExecutionPlan,
    prelude::Expr,
};
use tokio::sync::Mutex;

use crate::{error::QueryError, scoped_table::ScopedTable};

/// The views there are, looked up anew when a query starts.
#[derive(Debug)]
pub(crate) struct Views {
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    registry: ViewRegistry,
    looked: Option<Instant>,
}

/// A change of the views shows in queries after this long at most.
const FRESH: Duration = Duration::from_millis(250);

impl Views {
    pub fn new(home: &Storage) -> Self {
        Self { known: Mutex::new(Known { registry: ViewRegistry::new(home), looked: None }) }
    }

    /// The views by name.
    pub async fn current(&self) -> Result<Arc<BTreeMap<String, View>>, QueryError> {
        let mut known = self.known.lock().await;
        if known.looked.is_none_or(|at| at.elapsed() > FRESH) {
            known.registry.refresh().await.map_err(|error| {
                tracing::error!(%error, "the registry of views cannot be read");
                QueryError::Storage
            })?;
            known.looked = Some(Instant::now());
        }
        Ok(Arc::new(known.registry.views().clone()))
    }
}

impl Views {
    /// Makes or changes a view; false if it is the same already.
    pub async fn create(&self, sql: &str, regions: BTreeSet<String>, shards: u32) -> Result<bool, RegistryError> {
        let mut known = self.known.lock().await;
        known.looked = None;
        known.registry.create(sql, regions, shards, false, false).await
    }

    /// Removes a view.
    pub async fn drop_view(&self, name: &str) -> Result<(), RegistryError> {
        let mut known = self.known.lock().await;
        known.looked = None;
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

/// A view as one scope sees it in one query.
#[derive(Debug)]
pub(crate) struct ViewTable {
    pub generation: Arc<Generation>,
    pub state: Arc<ScopedTable>,
}

#[async_trait]
impl TableProvider for ViewTable {
    fn schema(&self) -> SchemaRef {
        self.generation.plan.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let state = session
            .as_any()
            .downcast_ref::<SessionState>()
            .ok_or_else(|| DataFusionError::Internal("a session of another kind".to_owned()))?;
        let context = SessionContext::new_with_state(state.clone());
        let input = ReadInput { state: self.state.clone(), dimension: None };
        let plan = self.generation.plan.read(&context, input, projection.map(Vec::as_slice), filters).await;
        plan.map_err(|error| match error {
            ViewError::Plan(error) => *error,
            other => DataFusionError::External(Box::new(other)),
        })
    }
}
