//! The isolation boundary at run time: a leaf that holds the scope-filtered scans of all regions.
//!
//! Being a leaf is the point. The optimizer cannot push a predicate, a dynamic filter or a limit
//! below it, EXPLAIN cannot print what is inside, and it has no statistics. Errors from inside
//! are logged and replaced, as they may name files.

use std::{fmt, sync::Arc};

use arrow::datatypes::SchemaRef;
use datafusion::{
    common::{internal_err, tree_node::TreeNodeRecursion},
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
        execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions},
        stream::RecordBatchStreamAdapter,
    },
};
use futures::StreamExt;

use crate::{
    error::{QueryError, ScanFailed},
    root::Root,
};

/// One root's scan, filtered by the scope and projected to the logical table.
pub(crate) struct ScopedPart {
    pub root: Arc<Root>,
    pub plan: Arc<dyn ExecutionPlan>,
}

/// All parts as one leaf.
pub(crate) struct ScopedExec {
    table: Arc<str>,
    parts: Vec<ScopedPart>,
    properties: Arc<PlanProperties>,
}

impl ScopedExec {
    pub fn new(table: Arc<str>, schema: SchemaRef, parts: Vec<ScopedPart>) -> Self {
        let partitions = parts.iter().map(|p| p.plan.output_partitioning().partition_count()).sum();
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        Self { table, parts, properties }
    }
}

impl fmt::Debug for ScopedExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedExec").field("table", &self.table).finish_non_exhaustive()
    }
}

impl DisplayAs for ScopedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScopedScan: table={}", self.table)
    }
}

impl ExecutionPlan for ScopedExec {
    fn name(&self) -> &str {
        "ScopedScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match children.is_empty() {
            true => Ok(self),
            false => internal_err!("a scoped scan has no inputs"),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match children.is_empty() {
            true => Ok(self),
            false => internal_err!("a scoped scan has no inputs"),
        }
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut inner = partition;
        for part in &self.parts {
            let count = part.plan.output_partitioning().partition_count();
            if inner >= count {
                inner -= count;
                continue;
            }
            let (table, region) = (self.table.clone(), part.root.region.clone());
            let stream = part.plan.execute(inner, part.root.session.task_ctx());
            let stream = stream.map_err(|e| opaque(&table, &region, e))?;
            let stream = stream.map(move |batch| batch.map_err(|e| opaque(&table, &region, e)));
            return Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)));
        }
        internal_err!("a scoped scan has no such partition")
    }
}

/// Logs an error from inside the boundary and gives back one that says nothing of it.
pub(crate) fn opaque(table: &str, region: &str, error: DataFusionError) -> DataFusionError {
    tracing::error!(table, region, %error, "scan failed");
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => DataFusionError::External(Box::new(QueryError::Memory)),
        _ => DataFusionError::External(Box::new(ScanFailed)),
    }
}
