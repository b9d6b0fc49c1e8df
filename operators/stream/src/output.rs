//! What an operator puts out: rows of tables, and notices to topics and webhooks.

use arrow::{array::RecordBatch, datatypes::SchemaRef};

/// Everything put out between two checkpoints.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// Rows by table; each row reaches its table exactly once.
    pub rows: Vec<(OutputTable, RecordBatch)>,
    /// Notices; each is delivered at least once, with an id by which a reader drops repeats.
    pub notices: Vec<Notice>,
}

impl Output {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.notices.is_empty() && self.rows.iter().all(|(_, batch)| batch.num_rows() == 0)
    }
}

/// A Delta table of the operator's region. Its schema must have `tenant`, `env` and `region`
/// (Utf8, not null), by which queries are scoped, and the table is partitioned by tenant and region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputTable {
    /// Name, such as `slo_burn`.
    pub name: &'static str,
    /// All columns.
    pub schema: SchemaRef,
}

/// A message to people and machines: an alert or a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The same for the same fact, whenever and wherever it is sent again: the record's key suffix
    /// and the webhook's idempotency key.
    pub id: String,
    /// Kind, which decides topic and webhooks: `slo_alert`, `view_alert` or `detection`.
    pub kind: &'static str,
    /// Tenant concerned.
    pub tenant: String,
    /// JSON text.
    pub body: String,
    /// `traceparent` of the event that led to it.
    pub traceparent: Option<String>,
}
