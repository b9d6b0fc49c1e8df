//! One logical table: the union of its regions' pinned versions, filtered by the scope.
//!
//! The scope predicate goes to the Delta scan, which skips other tenants' partitions and files,
//! and is checked again on every row by a filter of our own. Of the user's predicates only those
//! go along that cannot fail and have no effects (a column against constants): they help to skip
//! files, and run again above. Everything else runs above the boundary, on the tenant's rows.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use companyos_pipelines::alerts;
use companyos_schemas::{Stream, arrow_schema, quarantine};
use datafusion::{
    catalog::{Session, TableProvider},
    common::DFSchema,
    datasource::TableType,
    error::Result,
    logical_expr::{BinaryExpr, Operator, TableProviderFilterPushDown, utils::conjunction},
    physical_expr::{
        PhysicalExpr,
        expressions::{CastExpr, Column, Literal},
    },
    physical_plan::{
        ExecutionPlan, ExecutionPlanProperties, empty::EmptyExec, filter::FilterExec, projection::ProjectionExec,
    },
    prelude::Expr,
    scalar::ScalarValue,
};
use deltalake::delta_datafusion::{DeltaScanConfig, DeltaScanNext};

use crate::{
    scope_filter::{SCOPE_COLUMNS, ScopeFilter},
    scoped_exec::{ScopedExec, ScopedPart, opaque},
    snapshots::Pinned,
};

/// The tables there are, in the order they are documented.
pub(crate) fn table_names() -> impl Iterator<Item = &'static str> {
    let outputs = ["slo_burn", "slo_alerts", alerts::TABLE, companyos_detect::TABLE];
    Stream::ALL.into_iter().map(Stream::name).chain([quarantine::TABLE]).chain(outputs)
}

/// Schema of a table by the contract; none if there is no such table.
pub(crate) fn contract(name: &str) -> Option<SchemaRef> {
    match name {
        quarantine::TABLE => Some(quarantine::table_schema()),
        "slo_burn" => Some(companyos_slo::slo_burn_table().schema),
        "slo_alerts" => Some(companyos_slo::slo_alerts_table().schema),
        alerts::TABLE => Some(alerts::view_alerts_table().schema),
        companyos_detect::TABLE => Some(companyos_detect::table().schema),
        _ => name.parse().ok().map(arrow_schema::table_schema),
    }
}

/// A table as one scope sees it in one query.
#[derive(Debug)]
pub(crate) struct ScopedTable {
    name: Arc<str>,
    schema: SchemaRef,
    scope: Vec<Expr>,
    /// A partition column that the scope's predicate reads beside its own.
    partition: Option<&'static str>,
    pinned: Vec<Pinned>,
}

impl ScopedTable {
    /// A table with at least the columns of `schema`.
    pub fn new(name: &str, schema: &Schema, scope: &ScopeFilter, pinned: Vec<Pinned>) -> Self {
        let mut fields: Vec<FieldRef> = schema.fields().iter().map(as_view).collect();
        // Columns a later version of the contract added are shown as far as the tables have them.
        for part in &pinned {
            let Ok(snapshot) = part.table.snapshot() else { continue };
            for field in snapshot.snapshot().arrow_schema().fields() {
                if !fields.iter().any(|f| f.name() == field.name()) {
                    fields.push(as_view(&Arc::new(field.as_ref().clone().with_nullable(true))));
                }
            }
        }
        let scope = scope.conjuncts(name == quarantine::TABLE);
        Self { name: Arc::from(name), schema: Arc::new(Schema::new(fields)), scope, partition: None, pinned }
    }

    /// Only one partition: the others hold no row of the scope, and are not even looked at.
    pub fn in_partition(mut self, column: &'static str, value: &str) -> Self {
        self.scope
            .push(Expr::Column(datafusion::common::Column::from_name(column)).eq(datafusion::prelude::lit(value)));
        self.partition = Some(column);
        self
    }

    async fn part(&self, pinned: &Pinned, projected: &SchemaRef, filters: &[Expr]) -> Result<Arc<dyn ExecutionPlan>> {
        let config = DeltaScanConfig::new().with_wrap_partition_values(false).with_parquet_pushdown(false);
        let snapshot = pinned.table.snapshot()?.snapshot().clone();
        let session = &pinned.root.session;
        pinned.table.update_datafusion_session(session)?;
        let mut scan = DeltaScanNext::new(snapshot, config)?;
        if let Some(files) = &pinned.only {
            scan = scan.with_file_paths(files.iter().cloned());
        }
        let have = scan.schema();
        let wanted = |name: &String| {
            projected.field_with_name(name).is_ok()
                || SCOPE_COLUMNS.contains(&name.as_str())
                || self.partition == Some(name.as_str())
        };
        let columns: Vec<usize> =
            have.fields().iter().enumerate().filter(|(_, f)| wanted(f.name())).map(|(i, _)| i).collect();
        let known = |expr: &&Expr| expr.column_refs().iter().all(|c| have.field_with_name(&c.name).is_ok());
        let pushed: Vec<Expr> = self.scope.iter().chain(filters.iter().filter(known)).cloned().collect();
        let mut plan = scan.scan(session, Some(&columns), &pushed, None).await?;
        let options = session.config().options();
        let target = session.config().target_partitions();
        if plan.output_partitioning().partition_count() < target
            && let Some(split) = plan.repartitioned(target, options)?
        {
            plan = split;
        }
        let input = DFSchema::try_from(plan.schema())?;
        if let Some(predicate) = conjunction(self.scope.iter().cloned()) {
            let predicate = session.create_physical_expr(predicate, &input)?;
            plan = Arc::new(FilterExec::try_new(predicate, plan)?);
        }
        project(plan, projected)
    }
}

#[async_trait]
impl TableProvider for ScopedTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let answer = |filter: &&Expr| match is_harmless(filter) {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(answer).collect())
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let projected = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        };
        // What the planner was told is not what keeps tenants apart: look again.
        let harmless: Vec<Expr> = filters.iter().filter(|f| is_harmless(f)).cloned().collect();
        let mut parts = Vec::with_capacity(self.pinned.len());
        for pinned in &self.pinned {
            let plan = self.part(pinned, &projected, &harmless).await;
            let plan = plan.map_err(|e| opaque(&self.name, &pinned.root.region, e))?;
            if plan.output_partitioning().partition_count() > 0 {
                parts.push(ScopedPart { root: pinned.root.clone(), plan });
            }
        }
        match parts.is_empty() {
            true => Ok(Arc::new(EmptyExec::new(projected))),
            false => Ok(Arc::new(ScopedExec::new(self.name.clone(), projected, parts))),
        }
    }
}

/// Casts and fills what the scan gives to what the logical table has.
fn project(plan: Arc<dyn ExecutionPlan>, projected: &SchemaRef) -> Result<Arc<dyn ExecutionPlan>> {
    let have = plan.schema();
    let mut columns: Vec<(Arc<dyn PhysicalExpr>, String)> = Vec::with_capacity(projected.fields().len());
    for field in projected.fields() {
        let expr: Arc<dyn PhysicalExpr> = match have.index_of(field.name()) {
            Err(_) => Arc::new(Literal::new(ScalarValue::try_from(field.data_type())?)),
            Ok(index) => {
                let column = Arc::new(Column::new(field.name(), index));
                match have.field(index).data_type() == field.data_type() {
                    true => column,
                    false => Arc::new(CastExpr::new(column, field.data_type().clone(), None)),
                }
            }
        };
        columns.push((expr, field.name().clone()));
    }
    Ok(Arc::new(ProjectionExec::try_new(columns, plan)?))
}

/// A column against constants, or such joined by AND, OR and NOT: cannot fail, has no effects.
fn is_harmless(expr: &Expr) -> bool {
    let column = |e: &Expr| matches!(e, Expr::Column(_));
    let literal = |e: &Expr| matches!(e, Expr::Literal(..));
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And | Operator::Or => is_harmless(left) && is_harmless(right),
            Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
                (column(left) && literal(right)) || (literal(left) && column(right))
            }
            _ => false,
        },
        Expr::Not(inner) => is_harmless(inner),
        Expr::IsNull(inner) | Expr::IsNotNull(inner) => column(inner),
        Expr::Between(between) => column(&between.expr) && literal(&between.low) && literal(&between.high),
        Expr::InList(list) => column(&list.expr) && list.list.len() <= 100 && list.list.iter().all(literal),
        _ => false,
    }
}

/// Strings and bytes are read as views; results are turned back at the end.
fn as_view(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Utf8 => DataType::Utf8View,
        DataType::Binary => DataType::BinaryView,
        other => other.clone(),
    };
    // Nullable throughout: a table written before a column was required has no value for it.
    Arc::new(Field::new(field.name(), data_type, true))
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{cast, col, lit, random};

    use super::*;

    #[test]
    fn only_filters_that_cannot_fail_or_act_go_below_the_boundary() {
        assert!(is_harmless(&col("value").gt(lit(1.0)).and(col("feature").in_list(vec![lit("x")], false))));
        for sharp in [
            (lit(1) / cast(col("tenant").eq(lit("beta")), DataType::Int32)).gt(lit(0)),
            cast(col("event_id"), DataType::Int32).eq(lit(1)),
            random().lt(lit(0.5)),
            col("value").gt(lit(1.0)).or(random().lt(lit(0.5))),
        ] {
            assert!(!is_harmless(&sharp), "{sharp}");
        }
    }
}
