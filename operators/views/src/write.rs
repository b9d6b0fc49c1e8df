//! Making state from rows, and folding state into less of it.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::RecordBatch,
        compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch},
    },
    common::{DFSchema, DFSchemaRef},
    datasource::memory::MemorySourceConfig,
    error::DataFusionError,
    physical_expr::{PhysicalExpr, expressions::Column as PhysicalColumn},
    physical_plan::{
        ExecutionPlan,
        aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy},
        collect,
        filter::FilterExec,
        projection::ProjectionExec,
    },
    prelude::SessionContext,
};

use crate::{
    ViewError, ViewPlan, Window,
    plan::{context, is_column, physical},
    session,
    state::retype,
    window::WINDOW,
};

impl ViewPlan {
    /// State of some rows: one row a key. The batches must have [`ViewPlan::columns`]; others are
    /// passed over. None if no row passes the view's filter.
    pub async fn partial(&self, rows: &[RecordBatch]) -> Result<Option<RecordBatch>, ViewError> {
        let context = context()?;
        let rows = rows.iter().map(|batch| self.input(batch)).collect::<Result<Vec<_>, _>>()?;
        let plan = self.partial_plan(&context, rows).await?;
        self.run(&context, plan).await
    }

    /// The same state in fewer rows: one row a key.
    pub async fn fold(&self, state: &[RecordBatch]) -> Result<Option<RecordBatch>, ViewError> {
        let context = context()?;
        let mut batches = Vec::with_capacity(state.len());
        for batch in state {
            batches.push(retype(&self.state_columns(batch)?, &self.partial_schema)?);
        }
        if let Some(Window::Session { gap_us }) = &self.window {
            batches = self.merge_sessions(&context, batches, *gap_us).await?;
        }
        let input = MemorySourceConfig::try_new_exec(&[batches], self.partial_schema.clone(), None)?;
        let plan = self.aggregate(AggregateMode::PartialReduce, self.final_groups(), input, None)?;
        self.run(&context, plan).await
    }

    /// The partial plan over rows in the work schema.
    pub(crate) async fn partial_plan(
        &self,
        context: &SessionContext,
        rows: Vec<RecordBatch>,
    ) -> Result<Arc<dyn ExecutionPlan>, ViewError> {
        let mut schema = self.columns_schema();
        let mut rows = rows;
        if let Some(Window::Session { gap_us }) = &self.window {
            rows = self.number_sessions(context, rows, *gap_us).await?;
            schema = self.work_schema.clone();
        }
        let mut plan: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(&[rows], schema.clone(), None)?;
        if let Some(pane) = self.window.as_ref().map(|w| w.pane(context)).transpose()?.flatten() {
            let input: DFSchemaRef = Arc::new(DFSchema::try_from(schema.clone())?);
            let mut columns: Vec<(Arc<dyn PhysicalExpr>, String)> = Vec::new();
            for field in self.work_schema.fields() {
                let expr: Arc<dyn PhysicalExpr> = match field.name() == WINDOW {
                    true => physical(&pane, &input)?,
                    false => Arc::new(PhysicalColumn::new_with_schema(field.name(), &schema)?),
                };
                columns.push((expr, field.name().clone()));
            }
            plan = Arc::new(ProjectionExec::try_new(columns, plan)?);
        }
        let work: DFSchemaRef = Arc::new(DFSchema::try_from(self.work_schema.clone())?);
        if let Some(filter) = &self.filter {
            let predicate = physical(filter, &work)?;
            plan = Arc::new(FilterExec::try_new(predicate, plan)?);
        }
        let mut groups = Vec::new();
        for (expr, name) in &self.keys {
            groups.push((physical(expr, &work)?, name.clone()));
        }
        self.aggregate(AggregateMode::Partial, PhysicalGroupBy::new_single(groups), plan, None)
    }

    /// An aggregate of this view in any mode; `only` picks some of its functions.
    pub(crate) fn aggregate(
        &self,
        mode: AggregateMode,
        groups: PhysicalGroupBy,
        input: Arc<dyn ExecutionPlan>,
        only: Option<&[usize]>,
    ) -> Result<Arc<dyn ExecutionPlan>, ViewError> {
        let picked = |index: &usize| only.is_none_or(|only| only.contains(index));
        let functions = self.aggregates.iter().enumerate().filter(|(i, _)| picked(i)).map(|(_, a)| a);
        let (functions, filters) = functions.map(|a| (a.function.clone(), a.filter.clone())).unzip();
        let schema = self.work_schema.clone();
        Ok(Arc::new(AggregateExec::try_new(mode, groups, functions, filters, input, schema)?))
    }

    /// Groups by the first columns, which are keys.
    pub(crate) fn final_groups(&self) -> PhysicalGroupBy {
        let keys = self.keys.iter().enumerate().map(|(index, (_, name))| {
            let column: Arc<dyn PhysicalExpr> = Arc::new(PhysicalColumn::new(name, index));
            (column, name.clone())
        });
        PhysicalGroupBy::new_single(keys.collect())
    }

    async fn run(
        &self,
        context: &SessionContext,
        plan: Arc<dyn ExecutionPlan>,
    ) -> Result<Option<RecordBatch>, ViewError> {
        let batches = collect(plan, context.task_ctx()).await?;
        let Some(first) = batches.first() else { return Ok(None) };
        let all = concat_batches(&first.schema(), &batches).map_err(DataFusionError::from)?;
        match all.num_rows() {
            0 => Ok(None),
            _ => retype(&all, &self.state_schema).map(|state| Some(self.sorted(state))),
        }
    }

    /// By key, tenant first: a reader can pass over other tenants' row groups.
    fn sorted(&self, state: RecordBatch) -> RecordBatch {
        let keys = state.columns().iter().take(self.keys.len());
        let keys: Vec<SortColumn> = keys.map(|c| SortColumn { values: c.clone(), options: None }).collect();
        let order = lexsort_to_indices(&keys, None);
        // Keys of a type that has no order stay as they are.
        order.and_then(|order| take_record_batch(&state, &order)).unwrap_or(state)
    }

    fn columns_schema(&self) -> datafusion::arrow::datatypes::SchemaRef {
        let fields = self.work_schema.fields().iter().filter(|f| f.name() != WINDOW).cloned().collect::<Vec<_>>();
        Arc::new(datafusion::arrow::datatypes::Schema::new(fields))
    }

    /// The columns this view reads, typed as the contract says.
    fn input(&self, batch: &RecordBatch) -> Result<RecordBatch, ViewError> {
        let schema = self.columns_schema();
        pick(batch, schema.fields().iter().map(|f| f.name().as_str()), &self.name)
            .and_then(|batch| retype(&batch, &schema))
    }

    pub(crate) fn state_columns(&self, batch: &RecordBatch) -> Result<RecordBatch, ViewError> {
        let names = self.state_names();
        pick(batch, names.iter().map(String::as_str), &self.name)
    }

    async fn number_sessions(
        &self,
        context: &SessionContext,
        rows: Vec<RecordBatch>,
        gap_us: i64,
    ) -> Result<Vec<RecordBatch>, ViewError> {
        if rows.is_empty() {
            return Ok(rows);
        }
        let mut frame = context.read_batches(rows)?;
        if let Some(filter) = &self.filter {
            frame = frame.filter(filter.clone())?;
        }
        let mut keys = Vec::new();
        for (expr, name) in self.keys.iter().filter(|(expr, _)| !is_column(expr, WINDOW)) {
            let key = format!("_key_{name}");
            frame = frame.with_column(&key, expr.clone())?;
            keys.push(key);
        }
        let frame = session::assign(frame, &keys, "occurred_at", "occurred_at", gap_us)?;
        in_schema(frame.collect().await?, &self.work_schema, &self.name)
    }

    async fn merge_sessions(
        &self,
        context: &SessionContext,
        state: Vec<RecordBatch>,
        gap_us: i64,
    ) -> Result<Vec<RecordBatch>, ViewError> {
        let names = self.state_names();
        if state.is_empty() {
            return Ok(state);
        }
        let schema = named(&self.partial_schema, &names);
        let renamed = state.iter().map(|batch| retype(batch, &schema)).collect::<Result<Vec<_>, _>>()?;
        let frame = self.session_starts(context.read_batches(renamed)?, gap_us)?;
        let merged = frame.collect().await?;
        let merged = in_schema(merged, &schema, &self.name)?;
        merged.iter().map(|batch| retype(batch, &self.partial_schema)).collect()
    }

    /// State rows with the start of the session they belong to once all are known.
    pub(crate) fn session_starts(
        &self,
        frame: datafusion::dataframe::DataFrame,
        gap_us: i64,
    ) -> Result<datafusion::dataframe::DataFrame, ViewError> {
        let Some(window) = self.window_key().map(str::to_owned) else { return Ok(frame) };
        let end = format!("a{}_0", self.aggregates.len() - 1);
        let keys: Vec<String> = self.keys.iter().map(|(_, n)| n.clone()).filter(|n| *n != window).collect();
        let frame = session::assign(frame, &keys, &window, &end, gap_us)?;
        Ok(frame.drop_columns(&[window.as_str()])?.with_column_renamed(WINDOW, &window)?)
    }
}

fn named(
    schema: &datafusion::arrow::datatypes::SchemaRef,
    names: &[String],
) -> datafusion::arrow::datatypes::SchemaRef {
    let fields = schema
        .fields()
        .iter()
        .zip(names)
        .map(|(field, name)| datafusion::arrow::datatypes::Field::new(name, field.data_type().clone(), true));
    Arc::new(datafusion::arrow::datatypes::Schema::new(fields.collect::<Vec<_>>()))
}

fn in_schema(
    batches: Vec<RecordBatch>,
    schema: &datafusion::arrow::datatypes::SchemaRef,
    view: &str,
) -> Result<Vec<RecordBatch>, ViewError> {
    batches
        .iter()
        .map(|batch| {
            let names = schema.fields().iter().map(|f| f.name().as_str());
            pick(batch, names, view).and_then(|batch| retype(&batch, schema))
        })
        .collect()
}

/// These columns, in this order.
fn pick<'n>(batch: &RecordBatch, names: impl Iterator<Item = &'n str>, view: &str) -> Result<RecordBatch, ViewError> {
    let indices = names
        .map(|name| {
            batch
                .schema()
                .index_of(name)
                .map_err(|_| ViewError::State { view: view.to_owned(), column: name.to_owned() })
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(batch.project(&indices).map_err(DataFusionError::from)?)
}
