//! Reading a view: state merged into the answer.

use std::{collections::BTreeSet, sync::Arc};

use datafusion::{
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch},
        datatypes::DataType,
    },
    catalog::TableProvider,
    common::{
        JoinType,
        tree_node::{Transformed, TreeNode},
    },
    dataframe::DataFrame,
    datasource::empty::EmptyTable,
    logical_expr::{Expr, cast},
    physical_expr::{PhysicalExpr, expressions::Column as PhysicalColumn},
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties, Partitioning,
        aggregates::{AggregateMode, PhysicalGroupBy},
        displayable,
        filter::FilterExec,
        projection::ProjectionExec,
        repartition::RepartitionExec,
    },
    prelude::{SessionContext, ident},
};

use crate::{
    ViewError, ViewPlan, Window,
    plan::{self, DIMENSION_PREFIX, context, is_column},
    window::WINDOW,
};

/// Where a view is read from. The providers carry the reader's scope: they give only rows that the
/// reader may see.
#[derive(Debug, Clone)]
pub struct ReadInput {
    /// The state table.
    pub state: Arc<dyn TableProvider>,
    /// The dimension, if the view joins one.
    pub dimension: Option<Arc<dyn TableProvider>>,
}

impl ViewPlan {
    /// The final plan. `projection` picks columns of [`ViewPlan::schema`]: state of aggregates that
    /// no picked column needs is not read. `filters` are over the answer's columns; those that can
    /// be are also applied to state, to read less of it, and must be applied to the answer by the
    /// caller all the same.
    pub async fn read(
        &self,
        context: &SessionContext,
        input: ReadInput,
        projection: Option<&[usize]>,
        filters: &[Expr],
    ) -> Result<Arc<dyn ExecutionPlan>, ViewError> {
        let outputs: Vec<&(Expr, String)> = match projection {
            Some(picked) => picked.iter().filter_map(|index| self.outputs.get(*index)).collect(),
            None => self.outputs.iter().collect(),
        };
        let needed = self.needed(&outputs);
        let mut frame = context.read_table(input.state)?;
        for filter in filters.iter().filter_map(|filter| self.over_state(filter)) {
            frame = frame.filter(filter)?;
        }
        let frame = self.typed_state(frame, &needed)?;
        let frame = self.windows(context, frame)?;
        let frame = self.joined(context, frame, input.dimension)?;
        let states = self.states(&needed);
        let groups = self.groups.iter().enumerate().map(|(i, group)| group.clone().alias(format!("g{i}")));
        let frame = frame.select(groups.chain(states.iter().map(|(name, _)| ident(name))).collect::<Vec<_>>())?;
        let merged = frame.create_physical_plan().await?;
        let answer = self.merge(merged, &needed)?;
        self.show(answer, &needed, &outputs)
    }

    /// Positions of the aggregates that some output or HAVING needs; sessions need their end.
    pub(crate) fn needed(&self, outputs: &[&(Expr, String)]) -> Vec<usize> {
        let groups = self.groups.len();
        let mut needed = BTreeSet::new();
        for expr in outputs.iter().map(|(expr, _)| expr).chain(&self.having) {
            for column in expr.column_refs() {
                if let Some(index) = self.aggregate_schema.maybe_index_of_column(column) {
                    needed.extend(index.checked_sub(groups));
                }
            }
        }
        if matches!(self.window, Some(Window::Session { .. })) {
            needed.insert(self.aggregates.len() - 1);
        }
        needed.into_iter().collect()
    }

    /// Names and types of the state columns of some aggregates.
    pub(crate) fn states(&self, needed: &[usize]) -> Vec<(String, DataType)> {
        let keys = self.keys.len();
        let mut states = Vec::new();
        for aggregate in needed.iter().filter_map(|index| self.aggregates.get(*index)) {
            for index in aggregate.first_state..aggregate.first_state + aggregate.states {
                let name = self.state_schema.field(keys + index).name().clone();
                states.push((name, self.partial_schema.field(keys + index).data_type().clone()));
            }
        }
        states
    }

    fn typed_state(&self, frame: DataFrame, needed: &[usize]) -> Result<DataFrame, ViewError> {
        let keys = self.keys.iter().zip(self.partial_schema.fields());
        let keys = keys.map(|((_, name), field)| (name.clone(), field.data_type().clone()));
        let columns = keys.chain(self.states(needed)).map(|(name, data_type)| {
            // Only where it differs: a cast would hide the column from statistics.
            match frame.schema().field_with_unqualified_name(&name) {
                Ok(field) if *field.data_type() == data_type => ident(&name),
                _ => cast(ident(&name), data_type).alias(&name),
            }
        });
        let columns: Vec<Expr> = columns.collect();
        Ok(frame.select(columns)?)
    }

    /// Panes to the windows they are part of, sessions to what they have grown into.
    fn windows(&self, context: &SessionContext, frame: DataFrame) -> Result<DataFrame, ViewError> {
        let Some(window) = self.window_key().map(str::to_owned) else { return Ok(frame) };
        match &self.window {
            Some(Window::Session { gap_us }) => self.session_starts(frame, *gap_us),
            Some(Window::Hop { slide_us, panes }) => {
                let back: ArrayRef = Arc::new(Int64Array::from_iter_values((0..*panes).map(|i| i * slide_us)));
                let back =
                    RecordBatch::try_from_iter([("_back", back)]).map_err(datafusion::error::DataFusionError::from)?;
                let frame = frame.join(context.read_batch(back)?, JoinType::Inner, &[], &[], None)?;
                let stamp = companyos_schemas::arrow_schema::timestamp_type();
                let start = cast(cast(ident(&window), DataType::Int64) - ident("_back"), stamp);
                Ok(frame
                    .with_column("_start", start)?
                    .drop_columns(&[window.as_str(), "_back"])?
                    .with_column_renamed("_start", &window)?)
            }
            _ => Ok(frame),
        }
    }

    fn joined(
        &self,
        context: &SessionContext,
        frame: DataFrame,
        provider: Option<Arc<dyn TableProvider>>,
    ) -> Result<DataFrame, ViewError> {
        let Some(dimension) = &self.dimension else { return Ok(frame) };
        let provider =
            provider.ok_or_else(|| ViewError::Syntax(format!("dimension {:?} is not loaded", dimension.name)))?;
        let columns: Vec<Expr> = dimension
            .schema
            .fields()
            .iter()
            .map(|f| cast(ident(f.name()), f.data_type().clone()).alias(format!("{DIMENSION_PREFIX}{}", f.name())))
            .collect();
        let table = context.read_table(provider)?.select(columns)?;
        let frame = frame.join_on(table, dimension.join, dimension.on.clone())?;
        match &self.late_filter {
            Some(filter) => Ok(frame.filter(filter.clone())?),
            None => Ok(frame),
        }
    }

    pub(crate) fn merge(
        &self,
        input: Arc<dyn ExecutionPlan>,
        needed: &[usize],
    ) -> Result<Arc<dyn ExecutionPlan>, ViewError> {
        let groups: Vec<(Arc<dyn PhysicalExpr>, String)> = (0..self.groups.len())
            .map(|i| (Arc::new(PhysicalColumn::new(&format!("g{i}"), i)) as Arc<dyn PhysicalExpr>, format!("g{i}")))
            .collect();
        let partitions = input.output_partitioning().partition_count();
        let (mode, input): (_, Arc<dyn ExecutionPlan>) = match partitions {
            0 | 1 => (AggregateMode::Final, input),
            n => {
                let by = groups.iter().map(|(expr, _)| expr.clone()).collect();
                let spread = RepartitionExec::try_new(input, Partitioning::Hash(by, n))?;
                (AggregateMode::FinalPartitioned, Arc::new(spread))
            }
        };
        self.aggregate(mode, PhysicalGroupBy::new_single(groups), input, Some(needed))
    }

    /// HAVING and the outputs over the merged aggregate, of which only some columns are there.
    pub(crate) fn show(
        &self,
        merged: Arc<dyn ExecutionPlan>,
        needed: &[usize],
        outputs: &[&(Expr, String)],
    ) -> Result<Arc<dyn ExecutionPlan>, ViewError> {
        let groups = self.groups.len();
        let at = |index: usize| match index.checked_sub(groups) {
            None => Some(index),
            Some(aggregate) => needed.iter().position(|n| *n == aggregate).map(|i| groups + i),
        };
        let schema = merged.schema();
        let physical = |expr: &Expr| -> Result<Arc<dyn PhysicalExpr>, ViewError> {
            let expr = plan::physical(expr, &self.aggregate_schema)?;
            let moved = expr.transform(|node| {
                let Some(column) = node.downcast_ref::<PhysicalColumn>() else { return Ok(Transformed::no(node)) };
                let index = at(column.index()).unwrap_or(column.index());
                let column: Arc<dyn PhysicalExpr> = Arc::new(PhysicalColumn::new(schema.field(index).name(), index));
                Ok(Transformed::yes(column))
            })?;
            Ok(moved.data)
        };
        let mut plan = merged.clone();
        if let Some(having) = &self.having {
            plan = Arc::new(FilterExec::try_new(physical(having)?, plan)?);
        }
        let columns = outputs
            .iter()
            .map(|(expr, name)| Ok((physical(expr)?, name.clone())))
            .collect::<Result<Vec<_>, ViewError>>()?;
        Ok(Arc::new(ProjectionExec::try_new(columns, plan)?))
    }

    /// A filter over the answer as one over state, if its columns are plain keys. Not for windows
    /// that are made when reading, whose start in state is another.
    fn over_state(&self, filter: &Expr) -> Option<Expr> {
        let moving = matches!(self.window, Some(Window::Hop { .. } | Window::Session { .. }));
        let mut known = true;
        let changed = filter
            .clone()
            .transform(|node| {
                let Expr::Column(column) = &node else { return Ok(Transformed::no(node)) };
                let key = self.key_of(&column.name).filter(|key| !(moving && Some(*key) == self.window_key()));
                Ok(match key {
                    Some(key) => Transformed::yes(ident(key)),
                    None => {
                        known = false;
                        Transformed::no(node)
                    }
                })
            })
            .ok()?;
        known.then_some(changed.data)
    }

    /// The state key that an output column shows unchanged.
    fn key_of(&self, output: &str) -> Option<&str> {
        let (expr, _) = self.outputs.iter().find(|(_, name)| name == output)?;
        let expr = match expr {
            Expr::Alias(alias) => alias.expr.as_ref(),
            other => other,
        };
        let Expr::Column(column) = expr else { return None };
        let index = self.aggregate_schema.maybe_index_of_column(column)?;
        let Expr::Column(group) = self.groups.get(index)? else { return None };
        let key = self.keys.iter().find(|(_, name)| *name == group.name)?;
        // State holds another type than the answer shows for some keys; those are not compared.
        let index = self.state_schema.index_of(&key.1).ok()?;
        let same = self.state_schema.field(index).data_type() == self.partial_schema.field(index).data_type();
        same.then_some(key.1.as_str())
    }
}

/// The plans of a view as text: what runs on every commit's rows, and what runs when it is read.
pub async fn explain(view: &ViewPlan) -> Result<String, ViewError> {
    let context = context()?;
    let partial = view.partial_plan(&context, Vec::new()).await?;
    let state: Arc<dyn TableProvider> = Arc::new(EmptyTable::new(view.state_schema.clone()));
    let dimension =
        view.dimension.as_ref().map(|d| Arc::new(EmptyTable::new(d.schema.clone())) as Arc<dyn TableProvider>);
    let answer = view.read(&context, ReadInput { state, dimension }, None, &[]).await?;
    let window = match view.keys.iter().any(|(expr, _)| is_column(expr, WINDOW)) {
        true => format!("window: {:?}\n", view.window),
        false => String::new(),
    };
    Ok(format!(
        "view: {}\nstream: {}\nstate table: {}\ncolumns read: {}\n{window}\npartial (each commit's rows to state rows):\n{}\n\
         final (state to the answer, on read):\n{}",
        view.name,
        view.stream,
        view.table,
        view.columns.join(", "),
        displayable(partial.as_ref()).indent(false),
        displayable(answer.as_ref()).indent(false),
    ))
}
