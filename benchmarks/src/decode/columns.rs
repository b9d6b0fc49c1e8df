//! The column builders shared by the decoders that read one event at a time.

use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::{
    array::{ArrayRef, RecordBatch, StringBuilder, TimestampMicrosecondBuilder},
    compute::kernels::cast_utils::string_to_datetime,
};
use chrono::Utc;

use super::contract_schema;

/// One event's fields, in the contract's order.
pub struct Row<'a> {
    pub event_id: &'a str,
    pub occurred_at: &'a str,
    pub tenant: &'a str,
    pub user_id: Option<&'a str>,
    pub role: &'a str,
    pub feature: &'a str,
    pub region: &'a str,
    pub env: &'a str,
    pub client: &'a str,
    pub pii_classification: &'a str,
    pub payload_hash: &'a str,
    pub payload: Option<&'a str>,
}

/// Builders for the columns of [`contract_schema`].
pub struct Columns {
    event_id: StringBuilder,
    occurred_at: TimestampMicrosecondBuilder,
    tenant: StringBuilder,
    user_id: StringBuilder,
    role: StringBuilder,
    feature: StringBuilder,
    region: StringBuilder,
    env: StringBuilder,
    client: StringBuilder,
    pii_classification: StringBuilder,
    payload_hash: StringBuilder,
    payload: StringBuilder,
}

impl Columns {
    /// Room for `rows` events of the usual size.
    pub fn with_capacity(rows: usize) -> Self {
        let text = |bytes: usize| StringBuilder::with_capacity(rows, rows * bytes);
        Self {
            event_id: text(36),
            occurred_at: TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC"),
            tenant: text(8),
            user_id: text(8),
            role: text(8),
            feature: text(12),
            region: text(12),
            env: text(8),
            client: text(12),
            pii_classification: text(12),
            payload_hash: text(72),
            payload: text(160),
        }
    }

    /// Adds an event; refuses a time that is not RFC 3339.
    pub fn push(&mut self, row: &Row<'_>) -> Result<()> {
        let occurred = string_to_datetime(&Utc, row.occurred_at).context("occurred_at")?;
        self.event_id.append_value(row.event_id);
        self.occurred_at.append_value(occurred.timestamp_micros());
        self.tenant.append_value(row.tenant);
        self.user_id.append_option(row.user_id);
        self.role.append_value(row.role);
        self.feature.append_value(row.feature);
        self.region.append_value(row.region);
        self.env.append_value(row.env);
        self.client.append_value(row.client);
        self.pii_classification.append_value(row.pii_classification);
        self.payload_hash.append_value(row.payload_hash);
        self.payload.append_option(row.payload);
        Ok(())
    }

    /// The batch of everything added.
    pub fn finish(mut self) -> Result<RecordBatch> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.event_id.finish()),
            Arc::new(self.occurred_at.finish()),
            Arc::new(self.tenant.finish()),
            Arc::new(self.user_id.finish()),
            Arc::new(self.role.finish()),
            Arc::new(self.feature.finish()),
            Arc::new(self.region.finish()),
            Arc::new(self.env.finish()),
            Arc::new(self.client.finish()),
            Arc::new(self.pii_classification.finish()),
            Arc::new(self.payload_hash.finish()),
            Arc::new(self.payload.finish()),
        ];
        Ok(RecordBatch::try_new(contract_schema(), columns)?)
    }
}
