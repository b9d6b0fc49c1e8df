//! The table `view_alerts`: each change of an alert.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema},
    error::ArrowError,
};
use companyos_schemas::arrow_schema::timestamp_type;
use companyos_stream::OutputTable;

/// Name of the table.
pub const TABLE: &str = "view_alerts";

const TEXTS: [&str; 10] =
    ["tenant", "env", "region", "alert", "severity", "state", "alert_id", "summary", "subject", "details"];

/// One change.
#[derive(Debug, Clone)]
pub(super) struct AlertRow {
    /// Microseconds.
    pub at: i64,
    /// Microseconds; when it began to fire.
    pub started_at: i64,
    /// By [`TEXTS`].
    pub texts: [String; TEXTS.len()],
}

/// `at` and `started_at`, then texts: `subject` and `details` are JSON objects of the query's key
/// columns and of all of its columns; `state` is `firing` or `resolved`.
pub fn view_alerts_table() -> OutputTable {
    let mut fields = vec![Field::new("at", timestamp_type(), false), Field::new("started_at", timestamp_type(), false)];
    fields.extend(TEXTS.map(|name| Field::new(name, DataType::Utf8, false)));
    OutputTable { name: TABLE, schema: Arc::new(Schema::new(fields)) }
}

pub(super) fn batch(rows: &[AlertRow]) -> Result<RecordBatch, ArrowError> {
    let time = |of: fn(&AlertRow) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(of)).with_timezone("UTC"))
    };
    let mut columns = vec![time(|row| row.at), time(|row| row.started_at)];
    for index in 0..TEXTS.len() {
        columns.push(Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.texts[index].as_str()))));
    }
    RecordBatch::try_new(view_alerts_table().schema, columns)
}
