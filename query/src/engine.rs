//! Runs one statement for one scope: plan in a fresh session, check, execute under limits.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow::datatypes::SchemaRef;
use companyos_schemas::{access::Scope, tenancy::Tenancy};
use companyos_sinks::storage::{Storage, StorageError};
use dashmap::DashMap;
use datafusion::{
    common::ParamValues,
    execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder, context::SessionContext},
    physical_plan::execute_stream,
    prelude::SessionConfig,
    scalar::ScalarValue,
};
use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    catalog::{CATALOG, QueryTables, RegionRoots, SCHEMA, catalog_list},
    config::{ConfigError, QueryConfig},
    depth::check_depth,
    error::QueryError,
    held::HeldViews,
    policy,
    root::{Root, shared_runtime, with_own_stores},
    rows::{RowStream, Watch, plain_schema},
    scope_filter::ScopeFilter,
    snapshots::{Snapshots, TableVersion},
    views::Views,
};

/// Answers SQL. Cheap to share: keep one in an [`Arc`].
#[derive(Debug)]
pub struct QueryEngine {
    config: QueryConfig,
    tenancy: Arc<Tenancy>,
    regions: Arc<BTreeMap<String, RegionRoots>>,
    snapshots: Arc<Snapshots>,
    views: Arc<Views>,
    held: Arc<HeldViews>,
    /// Copied for every query; never run in.
    session: SessionState,
    places: DashMap<String, Arc<Semaphore>>,
}

/// Why an engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A limit makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A region of the tenancy has no storage among those given.
    #[error("region {0:?} has no storage")]
    MissingStorage(String),
    /// An archive cannot be opened.
    #[error("{0}")]
    Storage(#[source] Box<StorageError>),
    /// The spill folder or the like cannot be used.
    #[error("query runtime: {0}")]
    Runtime(#[from] datafusion::error::DataFusionError),
}

/// A result on its way.
pub struct QueryResult {
    /// Columns.
    pub schema: SchemaRef,
    /// Version of every table and region read.
    pub versions: Vec<TableVersion>,
    /// Rows.
    pub rows: RowStream,
}

impl QueryEngine {
    /// An engine over the hot storages by region name; archives are opened as the tenancy says.
    pub fn new(
        config: QueryConfig,
        tenancy: Arc<Tenancy>,
        storages: HashMap<Arc<str>, Storage>,
    ) -> Result<Self, EngineError> {
        config.validate()?;
        let runtime = shared_runtime(&config)?;
        let session_config = SessionConfig::new()
            .with_target_partitions(config.partitions())
            // What a sort keeps free for merging its spills; DataFusion's 10 MiB would be all of a small budget.
            .with_sort_spill_reservation_bytes((config.memory_limit_bytes / 32).min(10 << 20))
            .with_information_schema(true)
            // In the generic dialect `payload->>'a' = 'b'` compares first.
            .set_str("datafusion.sql_parser.dialect", "PostgreSQL")
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema(CATALOG, SCHEMA);
        let mut regions = BTreeMap::new();
        for (name, region) in &tenancy.regions {
            let hot = storages.get(name.as_str()).ok_or_else(|| EngineError::MissingStorage(name.clone()))?;
            let root = |archive, storage| {
                Arc::new(Root::new(Arc::from(name.as_str()), archive, storage, &runtime, &session_config))
            };
            let archive = Storage::archive_of(region)
                .map_err(|e| EngineError::Storage(Box::new(e)))?
                .map(|storage| root(true, storage));
            regions.insert(name.clone(), RegionRoots { hot: root(false, hot.clone()), archive });
        }
        let home = storages
            .get(tenancy.home_region.as_str())
            .ok_or_else(|| EngineError::MissingStorage(tenancy.home_region.clone()))?;
        let mut session = SessionStateBuilder::new()
            .with_config(session_config)
            .with_runtime_env(with_own_stores(&runtime))
            .with_default_features()
            .build();
        policy::remove_functions(&mut session);
        datafusion_functions_json::register_all(&mut session)?;
        let held = config.held_views_bytes;
        Ok(Self {
            config,
            tenancy,
            regions: Arc::new(regions),
            snapshots: Arc::default(),
            views: Arc::new(Views::new(home)),
            held: Arc::new(HeldViews::new(held)),
            session,
            places: DashMap::new(),
        })
    }

    /// The limits it runs with.
    pub fn config(&self) -> &QueryConfig {
        &self.config
    }

    /// Plans and starts a statement with values for `$1`, `$2`, ….
    ///
    /// Errors found before the first row come from here, later ones from the rows.
    pub async fn query(&self, scope: &Scope, sql: &str, params: Vec<ScalarValue>) -> Result<QueryResult, QueryError> {
        if sql.len() > self.config.max_statement_bytes {
            return Err(QueryError::StatementTooLong { bytes: sql.len(), limit: self.config.max_statement_bytes });
        }
        let filter = ScopeFilter::new(scope, &self.tenancy)?;
        check_depth(sql)?;
        let watch = Watch::start(self.place(&scope.tenant)?);
        let timeout = self.config.statement_timeout();
        let deadline = Instant::now() + timeout;
        let registry = match timeout_at(deadline, self.views.current()).await {
            Ok(registry) => registry?,
            Err(_) => return Err(QueryError::Timeout { seconds: self.config.statement_timeout_seconds }),
        };
        let views = (self.views.clone(), self.held.clone());
        let tables = QueryTables::new(self.regions.clone(), self.snapshots.clone(), filter, timeout, views, registry);
        let tables = Arc::new(tables);
        let planning = on_deep_stack(start(self.session.clone(), tables.clone(), sql.to_owned(), params));
        let planned = match timeout_at(deadline, planning).await {
            Ok(planned) => planned,
            Err(_) => Err(QueryError::Timeout { seconds: self.config.statement_timeout_seconds }),
        };
        match planned {
            Ok(rows) => {
                let schema = plain_schema(&rows.schema());
                let versions = tables.versions().await;
                let rows = RowStream::start(rows, schema.clone(), &self.config, deadline, watch);
                Ok(QueryResult { schema, versions, rows })
            }
            Err(error) => {
                watch.fail(&error);
                Err(error)
            }
        }
    }

    /// The views there are.
    pub(crate) fn views(&self) -> &Views {
        &self.views
    }

    /// Names of the regions.
    pub(crate) fn regions(&self) -> impl Iterator<Item = &str> {
        self.regions.keys().map(String::as_str)
    }

    fn place(&self, tenant: &str) -> Result<tokio::sync::OwnedSemaphorePermit, QueryError> {
        let limit = self.config.per_tenant_concurrency;
        let places = self.places.entry(tenant.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(limit))).clone();
        places.try_acquire_owned().map_err(|_| QueryError::Busy { limit })
    }
}

/// Stack of the thread that plans a statement; only what is used of it becomes memory.
const PLANNING_STACK: usize = 64 << 20;

/// Plans on a thread of its own, as the planner recurses deeper than the runtime's stacks allow.
///
/// Dropping the future stops planning at its next await; until then the thread works on alone, so
/// a statement that takes long cannot keep the timeout from being answered.
async fn on_deep_stack<T: Send + 'static>(
    plan: impl Future<Output = Result<T, QueryError>> + Send + 'static,
) -> Result<T, QueryError> {
    let runtime = tokio::runtime::Handle::current();
    let (mut done, planned) = oneshot::channel();
    let work = move || {
        let result = runtime.block_on(async {
            tokio::select! {
                result = plan => Some(result),
                () = done.closed() => None,
            }
        });
        if let Some(result) = result {
            // Nobody waits for it any more if this fails.
            let _ = done.send(result);
        }
    };
    let started = std::thread::Builder::new().name("query-plan".to_owned()).stack_size(PLANNING_STACK).spawn(work);
    if let Err(error) = started {
        tracing::error!(%error, "no thread to plan a query on");
        return Err(QueryError::Internal);
    }
    // The sender is gone without a result only if planning panicked.
    planned.await.unwrap_or(Err(QueryError::Internal))
}

/// Up to so many rows in memory, handing them between threads takes longer than the work.
const ROWS_OF_ONE_THREAD: usize = 200_000;

async fn start(
    base: SessionState,
    tables: Arc<QueryTables>,
    sql: String,
    params: Vec<ScalarValue>,
) -> Result<SendableRecordBatchStream, QueryError> {
    let state = SessionStateBuilder::new_from_existing(base)
        .with_session_id(String::new())
        .with_catalog_list(catalog_list(tables.clone())?)
        .build();
    // Through a context, so that now() is this query's time.
    let mut state = SessionContext::new_with_state(state).state();
    let dialect = state.config().options().sql_parser.dialect;
    let statement = state.sql_to_statement(&sql, &dialect)?;
    policy::check_statement(&statement)?;
    let mut plan = state.statement_to_plan(statement).await?;
    policy::check_plan(&plan)?;
    if !params.is_empty() {
        plan = plan.with_param_values(ParamValues::from(params))?;
    }
    if tables.has_at_most(ROWS_OF_ONE_THREAD) {
        let options = state.config_mut().options_mut();
        options.execution.target_partitions = 1;
        // A second look at the plan costs more than it could save.
        options.optimizer.max_passes = 1;
    }
    let plan = state.optimize(&plan)?;
    let plan = state.query_planner().create_physical_plan(&plan, &state).await?;
    Ok(execute_stream(plan, state.task_ctx())?)
}
