//! A `serde_json::Value` per event: what a first version of such a service usually does.

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use serde_json::Value;

use super::{
    Block, Decoder,
    columns::{Columns, Row},
};

/// Parses each event into a tree, then reads the fields from it.
pub struct SerdeValueDecoder;

impl Decoder for SerdeValueDecoder {
    fn name(&self) -> &'static str {
        "serde_json::Value"
    }

    fn decode(&mut self, block: &Block) -> Result<RecordBatch> {
        let mut columns = Columns::with_capacity(block.len());
        for (position, event) in block.events().enumerate() {
            let event: Value =
                serde_json::from_slice(event).with_context(|| format!("event {position} of the block"))?;
            let text = |name: &str| event[name].as_str().with_context(|| format!("{name} of event {position}"));
            let payload = match &event["payload"] {
                Value::Null => None,
                value => Some(value.to_string()),
            };
            columns.push(&Row {
                event_id: text("event_id")?,
                occurred_at: text("occurred_at")?,
                tenant: text("tenant")?,
                user_id: event["user_id"].as_str(),
                role: text("role")?,
                feature: text("feature")?,
                region: text("region")?,
                env: text("env")?,
                client: text("client")?,
                pii_classification: text("pii_classification")?,
                payload_hash: text("payload_hash")?,
                payload: payload.as_deref(),
            })?;
        }
        columns.finish()
    }
}
