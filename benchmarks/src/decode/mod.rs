//! Ways to turn a block of JSON events into Arrow columns, all to the same columns, so that their
//! costs compare.
//!
//! To measure another decoder, implement [`Decoder`] and add it to [`all`].

mod arrow_json;
mod columns;
mod serde_value;
mod sonic;

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{Field, Schema, SchemaRef},
};
use companyos_schemas::{Stream, arrow_schema};

/// Events in one buffer, each followed by a line end: what both a line reader and a reader of single
/// messages can take.
#[derive(Debug, Default)]
pub struct Block {
    /// The events' text.
    pub bytes: Vec<u8>,
    /// Where each event ends in `bytes`, its line end excluded.
    pub ends: Vec<usize>,
}

impl Block {
    /// Number of events.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no events.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets the events, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Ends the event that has just been appended to `bytes`.
    pub fn end_event(&mut self) {
        self.ends.push(self.bytes.len());
        self.bytes.push(b'\n');
    }

    /// The events one by one.
    pub fn events(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|end| end + 1));
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

/// A way to decode product events.
pub trait Decoder {
    /// Name in reports.
    fn name(&self) -> &'static str;

    /// The block's events as one batch of [`contract_schema`], in order.
    fn decode(&mut self, block: &Block) -> anyhow::Result<RecordBatch>;
}

/// Every decoder that is measured, for blocks of at most `block_rows` events.
pub fn all(block_rows: usize) -> anyhow::Result<Vec<Box<dyn Decoder>>> {
    Ok(vec![
        Box::new(sonic::SonicDecoder),
        Box::new(arrow_json::ArrowJsonDecoder::new(block_rows)?),
        Box::new(serde_value::SerdeValueDecoder),
    ])
}

/// The contract's fields of a product event as columns: the table without its day and lineage.
pub fn contract_schema() -> SchemaRef {
    let fields: Vec<Field> = Stream::ProductEvents
        .fields()
        .iter()
        .map(|f| Field::new(f.name, arrow_schema::column_type(f.ty), !f.required))
        .collect();
    Arc::new(Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::{Generator, GeneratorConfig};

    #[test]
    fn every_decoder_makes_the_same_columns() {
        let mut block = Block::default();
        let mut generator = Generator::new(GeneratorConfig::new(3, 1_767_225_600_000));
        for index in 0..500 {
            generator.write_event(index, &mut block.bytes);
            block.end_event();
        }
        let mut decoders = all(block.len()).unwrap();
        let first = decoders[0].decode(&block).unwrap();
        assert_eq!((first.num_rows(), first.schema()), (500, contract_schema()));
        for decoder in &mut decoders[1..] {
            // Twice, as a decoder keeps state between blocks.
            for _ in 0..2 {
                assert_eq!(decoder.decode(&block).unwrap(), first, "{} differs", decoder.name());
            }
        }
    }

    #[test]
    fn every_decoder_refuses_broken_json() {
        let mut block = Block::default();
        block.bytes.extend_from_slice(b"{\"event_id\":");
        block.end_event();
        for mut decoder in all(1).unwrap() {
            assert!(decoder.decode(&block).is_err(), "{} took it", decoder.name());
        }
    }
}
