//! sonic-rs into borrowed structs, then column builders.

use std::borrow::Cow;

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use serde::Deserialize;
use sonic_rs::LazyValue;

use super::{
    Block, Decoder,
    columns::{Columns, Row},
};

/// Decodes each event on its own into a struct that borrows from it.
pub struct SonicDecoder;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    occurred_at: Cow<'a, str>,
    #[serde(borrow)]
    tenant: Cow<'a, str>,
    #[serde(borrow)]
    user_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    role: Cow<'a, str>,
    #[serde(borrow)]
    feature: Cow<'a, str>,
    #[serde(borrow)]
    region: Cow<'a, str>,
    #[serde(borrow)]
    env: Cow<'a, str>,
    #[serde(borrow)]
    client: Cow<'a, str>,
    #[serde(borrow)]
    pii_classification: Cow<'a, str>,
    #[serde(borrow)]
    payload_hash: Cow<'a, str>,
    #[serde(borrow)]
    payload: Option<LazyValue<'a>>,
}

impl Decoder for SonicDecoder {
    fn name(&self) -> &'static str {
        "sonic-rs"
    }

    fn decode(&mut self, block: &Block) -> Result<RecordBatch> {
        let mut columns = Columns::with_capacity(block.len());
        for (position, event) in block.events().enumerate() {
            let event: Envelope<'_> =
                sonic_rs::from_slice(event).with_context(|| format!("event {position} of the block"))?;
            columns.push(&Row {
                event_id: &event.event_id,
                occurred_at: &event.occurred_at,
                tenant: &event.tenant,
                user_id: event.user_id.as_deref(),
                role: &event.role,
                feature: &event.feature,
                region: &event.region,
                env: &event.env,
                client: &event.client,
                pii_classification: &event.pii_classification,
                payload_hash: &event.payload_hash,
                payload: event.payload.as_ref().map(LazyValue::as_raw_str),
            })?;
        }
        columns.finish()
    }
}
