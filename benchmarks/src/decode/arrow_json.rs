//! arrow-json, the columnar reader that DataFusion uses.
//!
//! It has no column type for "any JSON value as text". So it parses everything but builds every
//! column except `payload`, whose text is then copied from where the generator always puts it: last.
//! That flatters it a little, which makes the bare limit harder to reach, not easier.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow::{
    array::{RecordBatch, StringBuilder},
    datatypes::Schema,
    json::{ReaderBuilder, reader},
};
use memchr::memmem::Finder;

use super::{Block, Decoder, contract_schema};

/// Decodes whole blocks of lines.
pub struct ArrowJsonDecoder {
    decoder: reader::Decoder,
    payload: Finder<'static>,
}

impl ArrowJsonDecoder {
    /// A decoder for blocks of at most `block_rows` events.
    pub fn new(block_rows: usize) -> Result<Self> {
        let contract = contract_schema();
        let without_payload: Vec<_> = contract.fields().iter().filter(|f| f.name() != "payload").cloned().collect();
        // One more than asked for: a full batch would stop the decoder before the last line end.
        let decoder = ReaderBuilder::new(Arc::new(Schema::new(without_payload)))
            .with_batch_size(block_rows + 1)
            .build_decoder()?;
        Ok(Self { decoder, payload: Finder::new(b",\"payload\":") })
    }

    fn payloads(&self, block: &Block) -> Result<StringBuilder> {
        let mut payloads = StringBuilder::with_capacity(block.len(), block.len() * 160);
        for (position, event) in block.events().enumerate() {
            let start = self.payload.find(event).with_context(|| format!("event {position} has no payload"))?;
            let value = &event[start + self.payload.needle().len()..event.len() - 1];
            payloads.append_value(std::str::from_utf8(value)?);
        }
        Ok(payloads)
    }
}

impl Decoder for ArrowJsonDecoder {
    fn name(&self) -> &'static str {
        "arrow-json"
    }

    fn decode(&mut self, block: &Block) -> Result<RecordBatch> {
        let read = self.decoder.decode(&block.bytes)?;
        ensure!(read == block.bytes.len(), "a block of {} events is more than a batch", block.len());
        let batch = self.decoder.flush()?.context("an empty block")?;
        ensure!(batch.num_rows() == block.len(), "{} rows from {} events", batch.num_rows(), block.len());
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(self.payloads(block)?.finish()));
        Ok(RecordBatch::try_new(contract_schema(), columns)?)
    }
}
