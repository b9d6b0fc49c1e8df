//! A view as a table: its state, merged into the answer.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
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

use super::registry::Generation;

/// A view over what its providers show: the reader's rows, or a shard's.
#[derive(Debug)]
pub struct ViewTable {
    /// Definition.
    pub generation: Arc<Generation>,
    /// State rows.
    pub state: Arc<dyn TableProvider>,
    /// What it joins.
    pub dimension: Option<Arc<dyn TableProvider>>,
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
        let input = ReadInput { state: self.state.clone(), dimension: self.dimension.clone() };
        let plan = self.generation.plan.read(&context, input, projection.map(Vec::as_slice), filters).await;
        plan.map_err(|error| match error {
            ViewError::Plan(error) => *error,
            other => DataFusionError::External(Box::new(other)),
        })
    }
}
