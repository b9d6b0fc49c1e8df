//! From a statement to a plan: which rows, grouped by what, aggregated how, shown how.

use std::{collections::BTreeSet, sync::Arc};

use companyos_schemas::{Stream, arrow_schema};
use datafusion::{
    arrow::datatypes::{Field, Schema, SchemaRef},
    common::{
        Column, DFSchema, DFSchemaRef, JoinType, ScalarValue, TableReference,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    datasource::empty::EmptyTable,
    functions::math::expr_fn::isnan,
    functions_aggregate::min_max::max_udaf,
    logical_expr::{
        Aggregate, Expr, ExprSchemable, LogicalPlan, Volatility, lit,
        physical_planning_context::PhysicalPlanningContext, simplify::SimplifyContext, utils::split_conjunction_owned,
        when,
    },
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::{
        PhysicalExpr, aggregate::LoweredAggregateBuilder, create_physical_expr, execution_props::ExecutionProps,
    },
    physical_plan::udaf::AggregateFunctionExpr,
    prelude::{SessionConfig, SessionContext, ident},
    sql::{
        parser::Statement,
        sqlparser::{
            ast::{self, GroupByExpr, Ident, Query, SelectItem, SetExpr, Spanned, TableFactor},
            tokenizer::Location,
        },
    },
};
use sha2::{Digest, Sha256};

use crate::{
    ViewError, ViewOptions, Window, aggregates, capped,
    state::{ENGINE, FORMAT, stored_schema},
    window::WINDOW,
};

/// Tables that describe things events name, such as features by category.
pub trait Dimensions: Send + Sync {
    /// Columns of a dimension; none if there is no such dimension.
    fn schema(&self, name: &str) -> Option<SchemaRef>;
}

impl Dimensions for () {
    fn schema(&self, _: &str) -> Option<SchemaRef> {
        None
    }
}

/// The join with a dimension, done when the view is read: the answer is by the dimension's rows as
/// they are then.
#[derive(Debug, Clone)]
pub struct Dimension {
    /// Name.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    pub(crate) join: JoinType,
    /// Conjuncts over state keys and dimension columns.
    pub(crate) on: Vec<Expr>,
}

/// Prefix of a dimension's columns beside state.
pub(crate) const DIMENSION_PREFIX: &str = "_d_";

/// Scope columns: keys of every view.
pub(crate) const SCOPE: [&str; 3] = ["tenant", "env", "region"];

/// An aggregate, ready to run.
#[derive(Debug, Clone)]
pub(crate) struct ViewAggregate {
    pub function: Arc<AggregateFunctionExpr>,
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// Its first state column, counted from the first state column of all.
    pub first_state: usize,
    pub states: usize,
}

/// A view that can be made, merged and read.
#[derive(Debug, Clone)]
pub struct ViewPlan {
    /// Name.
    pub name: String,
    /// Stream it is made of.
    pub stream: Stream,
    /// How it is grouped by time.
    pub window: Option<Window>,
    /// Options.
    pub options: ViewOptions,
    /// Name of the state table: it changes with the query, the format of state and the engine.
    pub table: String,
    /// Columns of the stream's table it reads.
    pub columns: Vec<String>,
    /// Columns of the answer.
    pub schema: SchemaRef,
    /// Columns of the state table.
    pub state_schema: SchemaRef,
    /// The dimension joined when reading.
    pub dimension: Option<Dimension>,
    pub(crate) work_schema: SchemaRef,
    /// Over the stream's columns.
    pub(crate) filter: Option<Expr>,
    /// Over state keys and dimension columns.
    pub(crate) late_filter: Option<Expr>,
    /// State keys over the stream's columns, with their names in state.
    pub(crate) keys: Vec<(Expr, String)>,
    /// Group expressions of the answer over state keys and dimension columns.
    pub(crate) groups: Vec<Expr>,
    pub(crate) aggregates: Vec<ViewAggregate>,
    /// Partial schema as the engine makes it: keys, then states.
    pub(crate) partial_schema: SchemaRef,
    /// Schema of the aggregate's answer, which HAVING and the outputs refer to.
    pub(crate) aggregate_schema: DFSchemaRef,
    pub(crate) having: Option<Expr>,
    pub(crate) outputs: Vec<(Expr, String)>,
}

impl ViewPlan {
    /// Plans a view's query.
    pub fn new(
        name: &str,
        query: &Query,
        options: ViewOptions,
        dimensions: &dyn Dimensions,
    ) -> Result<Self, ViewError> {
        let mut query = query.clone();
        let context = context()?;
        let window = Window::extract(&mut query)?;
        aggregates::check(&mut query, &context)?;
        let shape = Shape::of(&mut query, dimensions)?;
        let table = format!("view_{name}_{}", fingerprint(&query, window.as_ref()));
        let mut fields: Vec<Field> =
            arrow_schema::table_schema(shape.stream).fields().iter().map(|f| f.as_ref().clone()).collect();
        if let Some(window) = &window {
            fields.push(Field::new(WINDOW, window.start_type(), true));
        }
        let stream_schema = Arc::new(Schema::new(fields));
        context.register_table(shape.stream.name(), Arc::new(EmptyTable::new(stream_schema.clone())))?;
        if let Some((dimension, schema)) = &shape.dimension {
            context.register_table(dimension.as_str(), Arc::new(EmptyTable::new(schema.clone())))?;
        }
        let statement = Statement::Statement(Box::new(ast::Statement::Query(Box::new(query))));
        let plan = futures::executor::block_on(context.state().statement_to_plan(statement))?;
        let state = context.state();
        let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
        let parts = Parts::of(&plan)?;
        Builder { name, window, options, table, shape, stream_schema }.build(parts)
    }

    /// The state column that holds the window's start, if the view has a window.
    pub fn window_column(&self) -> Option<&str> {
        self.window_key()
    }

    /// State columns by their position: keys first.
    pub(crate) fn state_names(&self) -> Vec<String> {
        self.state_schema.fields().iter().map(|f| f.name().clone()).collect()
    }

    /// Name of the key that is the window's start.
    pub(crate) fn window_key(&self) -> Option<&str> {
        self.keys.iter().find(|(expr, _)| is_column(expr, WINDOW)).map(|(_, name)| name.as_str())
    }
}

/// A session for planning and small plans: no catalog, no stores of its own.
pub(crate) fn context() -> Result<SessionContext, ViewError> {
    let config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
    let mut context = SessionContext::new_with_config(config);
    context.register_udaf(capped::array_agg_first());
    datafusion_functions_json::register_all(&mut context)?;
    Ok(context)
}

/// An expression ready to run: some functions exist only until they are simplified away.
pub(crate) fn simplified(expr: Expr, schema: &DFSchemaRef) -> Result<Expr, ViewError> {
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(schema.clone()).build());
    let expr = simplifier.coerce(expr, schema)?;
    Ok(simplifier.simplify(expr)?)
}

/// The same, as a physical expression.
pub(crate) fn physical(expr: &Expr, schema: &DFSchemaRef) -> Result<Arc<dyn PhysicalExpr>, ViewError> {
    let expr = simplified(expr.clone(), schema)?;
    let planning = PhysicalPlanningContext::default();
    Ok(create_physical_expr(&expr, schema, &ExecutionProps::new(), &planning)?)
}

fn fingerprint(query: &Query, window: Option<&Window>) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{query}|{window:?}|{FORMAT}|{ENGINE}"));
    hex::encode(&hash.finalize()[..4])
}

/// What the statement reads from, after checking that it is one SELECT of the right shape.
struct Shape {
    stream: Stream,
    stream_alias: String,
    dimension: Option<(String, SchemaRef)>,
}

impl Shape {
    /// Also makes tenant, env and region group keys and the first columns.
    fn of(query: &mut Query, dimensions: &dyn Dimensions) -> Result<Self, ViewError> {
        let at = query.span().start;
        let refuse = |what: &str| Err(ViewError::refused(at, what));
        if query.with.is_some() {
            return refuse("WITH queries are not supported in a view");
        }
        if query.order_by.is_some() {
            return refuse("ORDER BY belongs to the query that reads the view");
        }
        if query.limit_clause.is_some() || query.fetch.is_some() {
            return refuse("LIMIT belongs to the query that reads the view");
        }
        let SetExpr::Select(select) = query.body.as_mut() else {
            return refuse("a view is one SELECT: no UNION, VALUES or nested query");
        };
        if select.distinct.is_some() {
            return refuse("SELECT DISTINCT: use GROUP BY");
        }
        if select.qualify.is_some() {
            return refuse("QUALIFY needs all rows at once");
        }
        let [from] = select.from.as_slice() else {
            return refuse("a view reads FROM one stream, with at most one JOIN");
        };
        let (stream_name, stream_alias, place) = table_of(&from.relation)?;
        let stream: Stream = stream_name.parse().map_err(|_| {
            let names: Vec<&str> = Stream::ALL.into_iter().map(Stream::name).collect();
            ViewError::refused(place, format!("{stream_name:?} is no stream; there are: {}", names.join(", ")))
        })?;
        let dimension = match from.joins.as_slice() {
            [] => None,
            [join] => {
                let (name, _, place) = table_of(&join.relation)?;
                let schema = dimensions.schema(&name).ok_or_else(|| {
                    let reason = match name.parse::<Stream>() {
                        Ok(_) => format!("{name:?} is a stream: joins of streams are not bounded; join a dimension"),
                        Err(_) => format!("{name:?} is no dimension that is loaded"),
                    };
                    ViewError::refused(place, reason)
                })?;
                Some((name, schema))
            }
            _ => return refuse("a view joins at most one dimension"),
        };
        let qualified = from.joins.len() == 1;
        let column = |name: &str| match qualified {
            true => ast::Expr::CompoundIdentifier(vec![Ident::new(&stream_alias), Ident::new(name)]),
            false => ast::Expr::Identifier(Ident::new(name)),
        };
        let GroupByExpr::Expressions(groups, modifiers) = &mut select.group_by else {
            return refuse("GROUP BY ALL: name the keys");
        };
        if !modifiers.is_empty() || groups.iter().any(is_grouping_set) {
            return refuse("grouping sets, ROLLUP and CUBE are not supported; make a view for each grouping");
        }
        let mut seen = Vec::new();
        groups.retain(|group| {
            !seen.contains(group) && {
                seen.push(group.clone());
                true
            }
        });
        for name in SCOPE.iter().rev() {
            if !groups.iter().any(|group| names(group, name)) {
                groups.insert(0, column(name));
            }
            let shown = select.projection.iter().any(|item| match item {
                SelectItem::UnnamedExpr(expr) => names(expr, name),
                SelectItem::ExprWithAlias { alias, .. } => alias.value == *name,
                _ => false,
            });
            if !shown {
                select.projection.insert(0, SelectItem::UnnamedExpr(column(name)));
            }
        }
        Ok(Self { stream, stream_alias, dimension })
    }
}

fn is_grouping_set(expr: &ast::Expr) -> bool {
    matches!(expr, ast::Expr::GroupingSets(_) | ast::Expr::Cube(_) | ast::Expr::Rollup(_))
}

fn names(expr: &ast::Expr, name: &str) -> bool {
    match expr {
        ast::Expr::Identifier(ident) => ident.value == name,
        ast::Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|last| last.value == name),
        _ => false,
    }
}

/// Name, alias and place of a plain table.
fn table_of(factor: &TableFactor) -> Result<(String, String, Location), ViewError> {
    let at = factor.span().start;
    match factor {
        TableFactor::Table { name, alias, args: None, .. } => {
            let name = name.to_string();
            let alias = alias.as_ref().map_or_else(|| name.clone(), |alias| alias.name.value.clone());
            Ok((name, alias, at))
        }
        _ => Err(ViewError::refused(at, "FROM and JOIN take plain tables: no nested queries or table functions")),
    }
}

/// The pieces of the planned query.
struct Parts<'a> {
    outputs: Vec<(Expr, String)>,
    having: Option<Expr>,
    aggregate: &'a Aggregate,
    filter: Option<Expr>,
    join: Option<(JoinType, Vec<Expr>)>,
}

impl<'a> Parts<'a> {
    fn of(plan: &'a LogicalPlan) -> Result<Self, ViewError> {
        let odd = |what: &LogicalPlan| {
            ViewError::Syntax(format!("a view cannot hold this part of the query: {}", what.display()))
        };
        let (outputs, mut node) = match plan {
            LogicalPlan::Projection(projection) => {
                let named = projection.expr.iter().zip(projection.schema.fields());
                let named = named.map(|(expr, field)| (expr.clone(), field.name().clone())).collect();
                (named, projection.input.as_ref())
            }
            LogicalPlan::Aggregate(aggregate) => {
                let columns = aggregate.schema.iter().map(|(relation, field)| {
                    (Expr::Column(Column::new(relation.cloned(), field.name())), field.name().clone())
                });
                (columns.collect(), plan)
            }
            other => return Err(odd(other)),
        };
        let mut having = None;
        if let LogicalPlan::Filter(filter) = node {
            having = Some(filter.predicate.clone());
            node = filter.input.as_ref();
        }
        let LogicalPlan::Aggregate(aggregate) = node else { return Err(odd(node)) };
        node = aggregate.input.as_ref();
        let mut filter = None;
        if let LogicalPlan::Filter(found) = node {
            filter = Some(found.predicate.clone());
            node = found.input.as_ref();
        }
        while let LogicalPlan::SubqueryAlias(alias) = node {
            node = alias.input.as_ref();
        }
        let join = match node {
            LogicalPlan::Join(join) => {
                let equal = join.on.iter().map(|(left, right)| left.clone().eq(right.clone()));
                let on = equal.chain(join.filter.clone().into_iter().flat_map(split_conjunction_owned)).collect();
                Some((join.join_type, on))
            }
            LogicalPlan::TableScan(_) => None,
            other => return Err(odd(other)),
        };
        Ok(Self { outputs, having, aggregate, filter, join })
    }
}

struct Builder<'a> {
    name: &'a str,
    window: Option<Window>,
    options: ViewOptions,
    table: String,
    shape: Shape,
    stream_schema: SchemaRef,
}

impl Builder<'_> {
    fn build(self, parts: Parts<'_>) -> Result<ViewPlan, ViewError> {
        let every = parts.outputs.iter().map(|(e, _)| e).chain(&parts.having).chain(&parts.filter);
        for expr in every.chain(&parts.aggregate.group_expr).chain(&parts.aggregate.aggr_expr) {
            check_repeatable(expr)?;
        }
        let mut keys = Keys::default();
        for name in SCOPE {
            keys.add(ident(name), name);
        }
        let (early, late): (Vec<Expr>, Vec<Expr>) = parts
            .filter
            .into_iter()
            .flat_map(split_conjunction_owned)
            .partition(|conjunct| !self.has_dimension(conjunct));
        let filter = conjunction(early.into_iter().map(plain).collect::<Result<Vec<_>, _>>()?);
        let mut groups = Vec::new();
        for group in &parts.aggregate.group_expr {
            groups.push(match self.has_dimension(group) {
                true => self.over_keys(group.clone(), &mut keys)?,
                false => ident(keys.key(plain(group.clone())?)),
            });
        }
        let late_filter =
            late.into_iter().map(|c| self.over_keys(c, &mut keys)).collect::<Result<Vec<_>, _>>().map(conjunction)?;
        let dimension = match (parts.join, &self.shape.dimension) {
            (Some((join, on)), Some((name, schema))) => {
                if !matches!(join, JoinType::Inner | JoinType::Left) {
                    let reason = format!("{join} JOIN: a view can use JOIN and LEFT JOIN with a dimension");
                    return Err(ViewError::Syntax(reason));
                }
                let mut on = on.into_iter().map(|c| self.over_keys(c, &mut keys)).collect::<Result<Vec<_>, _>>()?;
                // Rows that belong to somebody describe that one's events only.
                let owned = SCOPE.iter().filter(|name| schema.field_with_name(name).is_ok());
                on.extend(owned.map(|name| ident(*name).eq(ident(format!("{DIMENSION_PREFIX}{name}")))));
                Some(Dimension { name: name.clone(), schema: schema.clone(), join, on })
            }
            _ => None,
        };
        if self.window.is_some() && !keys.list.iter().any(|(expr, _)| is_column(expr, WINDOW)) {
            return Err(ViewError::Syntax("the window must be in GROUP BY, by itself".to_owned()));
        }
        let keys = keys.list;
        let mut calls = parts.aggregate.aggr_expr.clone();
        if matches!(self.window, Some(Window::Session { .. })) {
            calls.push(max_udaf().call(vec![ident("occurred_at")]).alias("_session_end"));
        }
        if let Some(call) = calls.iter().find(|call| self.has_dimension(call)) {
            let reason = format!(
                "{}: a dimension's column inside an aggregate would have to be kept for every event; \
                 group by it, or aggregate the stream's columns",
                call.schema_name()
            );
            return Err(ViewError::Syntax(reason));
        }
        let calls = calls.into_iter().map(plain).collect::<Result<Vec<_>, _>>()?;
        let columns = self.columns(&keys, &calls, filter.as_ref());
        let work_schema = self.work_schema(&columns);
        let work: DFSchemaRef = Arc::new(DFSchema::try_from(work_schema.clone())?);
        let props = ExecutionProps::new();
        let planning = PhysicalPlanningContext::default();
        let mut partial_fields: Vec<Field> = Vec::new();
        for (expr, name) in &keys {
            let physical = physical(expr, &work)?;
            partial_fields.push(Field::new(name, physical.data_type(&work_schema)?, true));
        }
        let mut names: Vec<String> = keys.iter().map(|(_, name)| name.clone()).collect();
        let mut aggregates = Vec::new();
        let mut first_state = 0;
        for (index, call) in calls.into_iter().enumerate() {
            let call = simplified(without_nan(call, &work)?, &work)?;
            let lowered = LoweredAggregateBuilder::new(&call, &work, &work_schema, &props, &planning).build()?;
            let (function, filter) = (lowered.aggregate, lowered.filter);
            // What the engine cannot run for these types is refused now, not on the first commit.
            function.create_accumulator()?;
            let fields = function.state_fields()?;
            for (part, field) in fields.iter().enumerate() {
                if crate::state::stored_type(field.data_type()).is_none() {
                    let reason = format!("{}: state of type {} cannot be stored", function.name(), field.data_type());
                    return Err(ViewError::Syntax(reason));
                }
                partial_fields.push(field.as_ref().clone());
                names.push(format!("a{index}_{part}"));
            }
            aggregates.push(ViewAggregate { function, filter, first_state, states: fields.len() });
            first_state += fields.len();
        }
        let partial_schema = Arc::new(Schema::new(partial_fields));
        let state_schema = stored_schema(&partial_schema, &names)?;
        let schema = answer_schema(&parts.outputs, parts.aggregate)?;
        Ok(ViewPlan {
            name: self.name.to_owned(),
            stream: self.shape.stream,
            window: self.window,
            options: self.options,
            table: self.table,
            columns,
            schema,
            state_schema,
            dimension,
            work_schema,
            filter,
            late_filter,
            keys,
            groups,
            aggregates,
            partial_schema,
            aggregate_schema: parts.aggregate.schema.clone(),
            having: parts.having,
            outputs: parts.outputs,
        })
    }

    fn has_dimension(&self, expr: &Expr) -> bool {
        self.shape.dimension.is_some()
            && expr.column_refs().iter().any(|column| !is_of(column, &self.shape.stream_alias))
    }

    /// Over state keys and dimension columns: each column of the stream becomes a key.
    fn over_keys(&self, expr: Expr, keys: &mut Keys) -> Result<Expr, ViewError> {
        let alias = &self.shape.stream_alias;
        let changed = expr.transform(|node| {
            Ok(match node {
                Expr::Column(column) if is_of(&column, alias) => {
                    Transformed::yes(ident(keys.key(ident(column.name.as_str()))))
                }
                Expr::Column(column) => Transformed::yes(ident(format!("{DIMENSION_PREFIX}{}", column.name))),
                other => Transformed::no(other),
            })
        })?;
        Ok(changed.data)
    }

    /// Columns of the stream that are read, in the table's order.
    fn columns(&self, keys: &[(Expr, String)], calls: &[Expr], filter: Option<&Expr>) -> Vec<String> {
        let all = keys.iter().map(|(expr, _)| expr).chain(calls).chain(filter);
        let mut used: BTreeSet<String> = all.flat_map(Expr::column_refs).map(|c| c.name.clone()).collect();
        used.extend(SCOPE.map(str::to_owned));
        if self.window.is_some() {
            used.insert("occurred_at".to_owned());
        }
        let table = arrow_schema::table_schema(self.shape.stream);
        table.fields().iter().map(|f| f.name().clone()).filter(|name| used.contains(name)).collect()
    }

    fn work_schema(&self, columns: &[String]) -> SchemaRef {
        let wanted = |f: &&Arc<Field>| columns.contains(f.name()) || f.name() == WINDOW;
        let fields = self.stream_schema.fields().iter().filter(wanted);
        // Nullable throughout: tables may be older than a column.
        Arc::new(Schema::new(fields.map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()))
    }
}

#[derive(Default)]
struct Keys {
    list: Vec<(Expr, String)>,
}

impl Keys {
    fn add(&mut self, expr: Expr, name: &str) {
        self.list.push((expr, name.to_owned()));
    }

    fn key(&mut self, expr: Expr) -> String {
        if let Some((_, name)) = self.list.iter().find(|(known, _)| *known == expr) {
            return name.clone();
        }
        let name = format!("k{}", self.list.len() - SCOPE.len());
        self.add(expr, &name);
        name
    }
}

fn is_of(column: &Column, alias: &str) -> bool {
    column.relation.as_ref().is_none_or(|relation| *relation == TableReference::bare(alias))
}

pub(crate) fn is_column(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Column(column) if column.name == name)
}

/// Without table names.
fn plain(expr: Expr) -> Result<Expr, ViewError> {
    let changed = expr.transform(|node| {
        Ok(match node {
            Expr::Column(column) if column.relation.is_some() => Transformed::yes(ident(column.name)),
            other => Transformed::no(other),
        })
    })?;
    Ok(changed.data)
}

/// `min` and `max` pass over NaN: the engine's answer would depend on the order of events.
fn without_nan(call: Expr, schema: &DFSchema) -> Result<Expr, ViewError> {
    let changed = call.transform(|node| {
        let Expr::AggregateFunction(mut call) = node else { return Ok(Transformed::no(node)) };
        if matches!(call.func.name(), "min" | "max")
            && let [arg] = call.params.args.as_mut_slice()
            && arg.get_type(schema)?.is_floating()
        {
            let value = std::mem::take(arg);
            *arg = when(isnan(value.clone()), lit(ScalarValue::Null)).otherwise(value)?;
        }
        Ok(Transformed::yes(Expr::AggregateFunction(call)))
    })?;
    Ok(changed.data)
}

fn conjunction(conjuncts: Vec<Expr>) -> Option<Expr> {
    conjuncts.into_iter().reduce(Expr::and)
}

/// A view's answer depends on its events only: not on the time of day, chance or other tables.
fn check_repeatable(expr: &Expr) -> Result<(), ViewError> {
    let mut problem = None;
    expr.apply(|node| {
        problem = match node {
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                let name = call.func.name();
                Some(format!("{name}() differs from one moment to the next; filter by time when reading the view"))
            }
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) => {
                Some("a nested query inside a view cannot be kept current; join a dimension".to_owned())
            }
            Expr::Placeholder(_) => Some("a view has no parameters".to_owned()),
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    })?;
    problem.map_or(Ok(()), |reason| Err(ViewError::Syntax(reason)))
}

fn answer_schema(outputs: &[(Expr, String)], aggregate: &Aggregate) -> Result<SchemaRef, ViewError> {
    let mut fields = Vec::new();
    for (expr, name) in outputs {
        fields.push(Field::new(name, expr.get_type(&aggregate.schema)?, true));
    }
    Ok(Arc::new(Schema::new(fields)))
}
