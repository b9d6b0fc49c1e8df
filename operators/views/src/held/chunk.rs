//! Part of a held answer: state rows and the answer's rows they make.

use std::sync::Arc;

use datafusion::arrow::{
    array::{ArrayRef, AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::DataType,
    error::ArrowError,
};

/// State of some keys, one row a key; the first rows are those that the answer shows, in its order.
#[derive(Debug)]
pub(super) struct Chunk {
    pub state: RecordBatch,
    answer: RecordBatch,
    live: Vec<bool>,
    dead: usize,
    /// The answer's rows that live.
    shown: RecordBatch,
    changed: bool,
}

impl Chunk {
    pub fn new(state: RecordBatch, answer: RecordBatch) -> Result<Self, ArrowError> {
        let answer = compact(&answer)?;
        let live = vec![true; state.num_rows()];
        Ok(Self { state, shown: answer.clone(), answer, live, dead: 0, changed: false })
    }

    /// A row that another chunk has now.
    pub fn kill(&mut self, row: usize) {
        if let Some(live) = self.live.get_mut(row)
            && std::mem::take(live)
        {
            self.dead += 1;
            self.changed |= row < self.answer.num_rows();
        }
    }

    /// Takes dead rows out of what is shown.
    pub fn refresh(&mut self) -> Result<(), ArrowError> {
        if std::mem::take(&mut self.changed) {
            let live = BooleanArray::from(self.live[..self.answer.num_rows()].to_vec());
            self.shown = filter_record_batch(&self.answer, &live)?;
        }
        Ok(())
    }

    pub fn shown(&self) -> &RecordBatch {
        &self.shown
    }

    pub fn dead(&self) -> usize {
        self.dead
    }

    pub fn rows(&self) -> usize {
        self.live.len()
    }

    /// State of the keys that are here still.
    pub fn living(&self) -> Result<RecordBatch, ArrowError> {
        match self.dead {
            0 => Ok(self.state.clone()),
            _ => filter_record_batch(&self.state, &BooleanArray::from(self.live.clone())),
        }
    }

    pub fn bytes(&self) -> usize {
        let shown = match self.shown.num_rows() == self.answer.num_rows() {
            true => 0,
            false => self.shown.get_array_memory_size(),
        };
        self.state.get_array_memory_size() + self.answer.get_array_memory_size() + shown + self.live.len()
    }
}

/// Views of strings without the buffers of rows that are not here.
fn compact(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().map(|column| match column.data_type() {
        DataType::Utf8View => Arc::new(column.as_string_view().gc()) as ArrayRef,
        DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
        _ => column.clone(),
    });
    RecordBatch::try_new(batch.schema(), columns.collect())
}
