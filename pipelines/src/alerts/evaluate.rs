//! Asking an alert's query over one shard's state.

use std::{collections::BTreeMap, sync::Arc};

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use companyos_sinks::storage::{Storage, StorageError};
use datafusion::{
    catalog::TableProvider,
    datasource::MemTable,
    error::DataFusionError,
    execution::{
        SessionStateBuilder,
        memory_pool::FairSpillPool,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    physical_expr::execution_props::ExecutionProps,
    physical_plan::collect,
    prelude::{SessionConfig, SessionContext, col, lit},
};
use serde_json::{Map, Value};

use super::ViewAlert;
use crate::{
    tasks::JobContext,
    views::{Dimension, DimensionError, Generation, SHARD, ViewRegistry, ViewTable},
};

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct FiringRow {
    /// Whose.
    pub tenant: String,
    /// Environment.
    pub env: String,
    /// Region.
    pub region: String,
    /// The key columns as a JSON object.
    pub subject: String,
    /// All columns as a JSON object.
    pub details: String,
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// The query is wrong, or failed.
    #[error(transparent)]
    Query(#[from] DataFusionError),
    /// State cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// State cannot be opened.
    #[error("state of {view}: {problem}")]
    State {
        /// View.
        view: String,
        /// Why.
        problem: String,
    },
    /// A dimension cannot be read.
    #[error(transparent)]
    Dimension(#[from] DimensionError),
    /// A row without an owner or a key.
    #[error("the query's answer has a row without {0:?}; alerts need tenant, env, region and their keys")]
    Column(String),
    /// More rows than an alert may have.
    #[error("the query's answer has {0} rows; an alert may have {MAX_ROWS}")]
    TooMany(usize),
}

/// Rows beyond this are no alert but a flood.
const MAX_ROWS: usize = 10_000;
const MEMORY: usize = 256 << 20;

/// Asks queries over one region and shard.
pub struct Evaluator {
    context: JobContext,
    runtime: Arc<RuntimeEnv>,
}

impl Evaluator {
    /// For a region and shard.
    pub fn new(context: JobContext) -> Result<Self, DataFusionError> {
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(MEMORY))).build_arc()?;
        Ok(Self { context, runtime })
    }

    /// What is wrong at `now`; none while a view the query reads is not there or not yet built.
    pub async fn ask(
        &self,
        alert: &ViewAlert,
        registry: &ViewRegistry,
        now: DateTime<Utc>,
    ) -> Result<Option<Vec<FiringRow>>, EvaluateError> {
        let state = SessionStateBuilder::new()
            .with_config(session_config())
            .with_runtime_env(self.runtime.clone())
            .with_execution_props(ExecutionProps::new().with_query_execution_start_time(now))
            .with_default_features()
            .build();
        let dialect = state.config().options().sql_parser.dialect;
        let statement = state.sql_to_statement(&alert.query, &dialect)?;
        let tables = state.resolve_table_references(&statement)?;
        let context = SessionContext::new_with_state(state);
        for table in tables {
            let name = table.table();
            let Some(generation) = registry.views().get(name).and_then(|view| view.current.as_ref()) else {
                return Ok(None);
            };
            let Some(provider) = self.view(&context, registry, generation).await? else { return Ok(None) };
            context.register_table(name, provider)?;
        }
        // Not through the context, which would take the time of day for now().
        let state = context.state_ref().read().clone();
        let plan = state.statement_to_plan(statement).await?;
        let plan = state.optimize(&plan)?;
        let plan = state.query_planner().create_physical_plan(&plan, &state).await?;
        let batches = collect(plan, state.task_ctx()).await?;
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        if rows > MAX_ROWS {
            return Err(EvaluateError::TooMany(rows));
        }
        objects(&batches)?.into_iter().map(|row| firing(alert, row)).collect::<Result<_, _>>().map(Some)
    }

    async fn view(
        &self,
        context: &SessionContext,
        registry: &ViewRegistry,
        generation: &Arc<Generation>,
    ) -> Result<Option<Arc<dyn TableProvider>>, EvaluateError> {
        let Some(table) = self.context.storage.load_table(&generation.table).await? else { return Ok(None) };
        let problem = |e: String| EvaluateError::State { view: generation.plan.name.clone(), problem: e };
        let provider = table.table_provider().await.map_err(|e| problem(e.to_string()))?;
        let of_shard = col(SHARD).eq(lit(self.context.shard.index.to_string()));
        let state = context.read_table(provider)?.filter(of_shard)?.into_view();
        let joined = generation.plan.dimension.as_ref().and_then(|d| registry.dimensions().get(&d.name));
        let dimension = match joined {
            Some(dimension) => Some(self.dimension(dimension).await?),
            None => None,
        };
        Ok(Some(Arc::new(ViewTable { generation: generation.clone(), state, dimension })))
    }

    /// The rows that may describe this region's events.
    async fn dimension(&self, dimension: &Dimension) -> Result<Arc<dyn TableProvider>, EvaluateError> {
        let here = |region: &str| region == self.context.region.as_ref();
        let mut rows = Vec::new();
        for (region, path) in dimension.objects_for(here) {
            let storage: &Storage = if here(region) { &self.context.storage } else { &self.context.home };
            rows.push(Dimension::read(storage, path).await?);
        }
        Ok(Arc::new(MemTable::try_new(dimension.schema.clone(), vec![rows])?))
    }
}

/// The dialect is that of views: in the generic one `payload->>'a' = 'b'` compares first.
fn session_config() -> SessionConfig {
    SessionConfig::new().with_target_partitions(1).set_str("datafusion.sql_parser.dialect", "PostgreSQL")
}

fn objects(batches: &[RecordBatch]) -> Result<Vec<Map<String, Value>>, DataFusionError> {
    let mut writer = arrow::json::ArrayWriter::new(Vec::new());
    writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
    writer.finish()?;
    let bytes = writer.into_inner();
    match bytes.is_empty() {
        true => Ok(Vec::new()),
        false => serde_json::from_slice(&bytes).map_err(|e| DataFusionError::External(Box::new(e))),
    }
}

fn firing(alert: &ViewAlert, row: Map<String, Value>) -> Result<FiringRow, EvaluateError> {
    let text = |name: &str| {
        row.get(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| EvaluateError::Column(name.to_owned()))
    };
    let mut subject = BTreeMap::new();
    for key in &alert.keys {
        subject.insert(key, row.get(key).ok_or_else(|| EvaluateError::Column(key.clone()))?);
    }
    let subject = serde_json::to_string(&subject).map_err(|e| DataFusionError::External(Box::new(e)))?;
    Ok(FiringRow {
        tenant: text("tenant")?,
        env: text("env")?,
        region: text("region")?,
        subject,
        details: Value::Object(row).to_string(),
    })
}
