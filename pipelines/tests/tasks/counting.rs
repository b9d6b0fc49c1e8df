//! An operator whose output tells whether anything was lost or counted twice.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use companyos_schemas::Stream;
use companyos_stream::{
    Columns, Input, KeyedState, Notice, OperatorStats, Output, OutputTable, ShardOperator, SnapshotKind, StateBatch,
    StreamError, TailRows,
};
use deltalake::arrow::{
    array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};

/// For each row, the running count of rows of its tenant.
pub struct Counting {
    state: KeyedState<i64>,
    out: Vec<(String, i64)>,
}

impl Counting {
    pub fn new() -> Self {
        Self { state: KeyedState::new("counts"), out: Vec::new() }
    }
}

impl ShardOperator for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn inputs(&self) -> Vec<Input> {
        vec![Input { stream: Stream::ProductEvents, columns: Columns::Named(vec!["tenant".into(), "role".into()]) }]
    }

    fn on_rows(&mut self, rows: &TailRows<'_>) -> Result<(), StreamError> {
        let tenants = rows.batch.column_by_name("tenant").unwrap().as_string::<i32>();
        assert_eq!(rows.batch.num_columns(), 2, "columns nobody asked for");
        for tenant in tenants.iter().flatten() {
            let mut count = 0;
            self.state.update(tenant, i64::MAX, |value| {
                *value += 1;
                count = *value;
            });
            self.out.push((tenant.to_owned(), count));
        }
        Ok(())
    }

    fn on_time(&mut self, _: DateTime<Utc>) -> Result<(), StreamError> {
        Ok(())
    }

    fn take_output(&mut self) -> Output {
        let out = std::mem::take(&mut self.out);
        if out.is_empty() {
            return Output::default();
        }
        let field = |name| Field::new(name, DataType::Utf8, false);
        let fields = vec![field("tenant"), field("env"), field("region"), Field::new("n", DataType::Int64, false)];
        let schema = Arc::new(Schema::new(fields));
        let text = |value: &str| Arc::new(StringArray::from(vec![value; out.len()])) as ArrayRef;
        let tenants = Arc::new(StringArray::from_iter_values(out.iter().map(|(tenant, _)| tenant))) as ArrayRef;
        let counts = Arc::new(Int64Array::from_iter_values(out.iter().map(|(_, n)| *n))) as ArrayRef;
        let batch = RecordBatch::try_new(schema.clone(), vec![tenants, text("prod"), text("eu"), counts]).unwrap();
        let notices = out.iter().map(|(tenant, n)| Notice {
            id: format!("{tenant}-{n}"),
            kind: "detection",
            tenant: tenant.clone(),
            body: "{}".into(),
            traceparent: None,
        });
        Output { rows: vec![(OutputTable { name: "counted", schema }, batch)], notices: notices.collect() }
    }

    fn snapshot(&mut self, kind: SnapshotKind) -> Result<Vec<StateBatch>, StreamError> {
        Ok(vec![self.state.snapshot(kind)?])
    }

    fn restore(&mut self, state: &[StateBatch]) -> Result<(), StreamError> {
        self.state.restore(state)
    }

    fn stats(&self) -> OperatorStats {
        OperatorStats { state_keys: self.state.len() as u64, ..OperatorStats::default() }
    }
}
