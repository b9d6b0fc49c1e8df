//! An answer of which every row comes of one key's state.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{RecordBatch, UInt32Array},
        compute::{concat_batches, interleave_record_batch, take_record_batch},
        datatypes::{Field, Schema},
        row::{RowConverter, SortField},
    },
    common::Column,
    datasource::memory::MemorySourceConfig,
    error::DataFusionError,
    logical_expr::Expr,
    physical_plan::collect,
};

use super::chunk::Chunk;
use crate::{ViewError, ViewPlan, plan::context, state::retype};

/// Rows of a chunk: what is copied when one of them changes.
const CHUNK: usize = 8192;
/// Small chunks, one for every time state was taken in, before they are put together.
const TAIL: usize = 32;

/// State and answer side by side, by key.
#[derive(Debug)]
pub struct KeyedAnswer {
    converter: RowConverter,
    /// Key columns, which come first.
    width: usize,
    hashers: [RandomState; 2],
    /// Chunk and row of each key's state.
    places: HashMap<u128, (u32, u32)>,
    chunks: Vec<Chunk>,
    /// Where the small chunks begin.
    tail: usize,
}

impl KeyedAnswer {
    pub(super) fn new(plan: &ViewPlan) -> Result<Self, ViewError> {
        let width = plan.keys.len();
        let keys = plan.state_schema.fields().iter().take(width);
        let fields = keys.map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Self {
            converter: RowConverter::new(fields).map_err(DataFusionError::from)?,
            width,
            hashers: [RandomState::new(), RandomState::new()],
            places: HashMap::new(),
            chunks: Vec::new(),
            tail: 0,
        })
    }

    pub(super) async fn take_in(&mut self, plan: &ViewPlan, state: &[RecordBatch]) -> Result<(), ViewError> {
        let mut portions =
            state.iter().filter(|b| b.num_rows() > 0).map(|b| plan.as_state(b)).collect::<Result<Vec<_>, _>>()?;
        if portions.is_empty() {
            return Ok(());
        }
        let mut seen = HashSet::new();
        let mut touched = Vec::new();
        for portion in &portions {
            for key in self.keys(portion)? {
                if seen.insert(key)
                    && let Some((chunk, row)) = self.places.get(&key)
                {
                    touched.push((*chunk as usize, *row as usize));
                }
            }
        }
        if !touched.is_empty() {
            let held: Vec<&RecordBatch> = self.chunks.iter().map(|chunk| &chunk.state).collect();
            portions.push(interleave_record_batch(&held, &touched).map_err(DataFusionError::from)?);
        }
        let Some(folded) = plan.fold(&portions).await? else { return Ok(()) };
        for (chunk, row) in touched {
            if let Some(chunk) = self.chunks.get_mut(chunk) {
                chunk.kill(row);
            }
        }
        let first = self.chunks.is_empty();
        self.push(plan, &folded).await?;
        if first {
            self.tail = self.chunks.len();
        }
        self.tidy(plan).await?;
        for chunk in &mut self.chunks {
            chunk.refresh().map_err(DataFusionError::from)?;
        }
        Ok(())
    }

    pub(super) fn rows(&self) -> Vec<RecordBatch> {
        self.chunks.iter().map(Chunk::shown).filter(|rows| rows.num_rows() > 0).cloned().collect()
    }

    pub(super) fn bytes(&self) -> usize {
        let place = size_of::<(u128, (u32, u32))>() + 1;
        self.chunks.iter().map(Chunk::bytes).sum::<usize>() + self.places.capacity() * place
    }

    /// Adds folded state of keys whose older rows are dead.
    async fn push(&mut self, plan: &ViewPlan, state: &RecordBatch) -> Result<(), ViewError> {
        for start in (0..state.num_rows()).step_by(CHUNK) {
            let state = state.slice(start, CHUNK.min(state.num_rows() - start));
            let (answer, keys) = plan.answer_of(&state).await?;
            let rows = self.keys(&state)?;
            let at: HashMap<u128, u32> = rows.iter().zip(0..).map(|(key, row)| (*key, row)).collect();
            let mut order = Vec::with_capacity(rows.len());
            let mut shown = vec![false; rows.len()];
            for key in self.keys(&keys)? {
                let row = *at.get(&key).ok_or_else(|| plan.odd_state("key"))?;
                order.push(row);
                shown[row as usize] = true;
            }
            order.extend((0..rows.len() as u32).filter(|row| !shown[*row as usize]));
            let chunk = self.chunks.len() as u32;
            for (place, row) in order.iter().enumerate() {
                self.places.insert(rows[*row as usize], (chunk, place as u32));
            }
            let state = take_record_batch(&state, &UInt32Array::from(order)).map_err(DataFusionError::from)?;
            self.chunks.push(Chunk::new(state, answer).map_err(DataFusionError::from)?);
        }
        Ok(())
    }

    /// Puts chunks together: the small ones when they are many, all when most rows are dead.
    async fn tidy(&mut self, plan: &ViewPlan) -> Result<(), ViewError> {
        let dead: usize = self.chunks.iter().map(Chunk::dead).sum();
        let rows: usize = self.chunks.iter().map(Chunk::rows).sum();
        let from = match () {
            () if dead > CHUNK && 2 * dead > rows => 0,
            () if self.chunks.len() - self.tail > TAIL => self.tail,
            () => return Ok(()),
        };
        let old = self.chunks.split_off(from);
        let living = old.iter().map(Chunk::living).collect::<Result<Vec<_>, _>>().map_err(DataFusionError::from)?;
        let state = concat_batches(&plan.state_schema, &living).map_err(DataFusionError::from)?;
        self.push(plan, &state).await?;
        self.tail = match from {
            0 => self.chunks.len(),
            _ if state.num_rows() >= CHUNK => self.chunks.len(),
            _ => self.tail,
        };
        Ok(())
    }

    fn keys(&self, batch: &RecordBatch) -> Result<Vec<u128>, ViewError> {
        let columns = batch.columns().get(..self.width).unwrap_or_default();
        let rows = self.converter.convert_columns(columns).map_err(DataFusionError::from)?;
        let hash = |bytes: &[u8]| {
            let [high, low] = self.hashers.each_ref().map(|hasher| u128::from(hasher.hash_one(bytes)));
            high << 64 | low
        };
        Ok(rows.iter().map(|row| hash(row.as_ref())).collect())
    }
}

impl ViewPlan {
    /// State columns of a batch, in their order and types.
    pub(super) fn as_state(&self, batch: &RecordBatch) -> Result<RecordBatch, ViewError> {
        retype(&self.state_columns(batch)?, &self.state_schema)
    }

    fn odd_state(&self, column: &str) -> ViewError {
        ViewError::State { view: self.name.clone(), column: column.to_owned() }
    }

    /// The answer of state that has one row a key, and beside each of its rows the key as state
    /// has it. Rows that HAVING refuses are in neither.
    async fn answer_of(&self, state: &RecordBatch) -> Result<(RecordBatch, RecordBatch), ViewError> {
        let context = context()?;
        let mut outputs = self.outputs.clone();
        for index in 0..self.groups.len() {
            let column = Expr::Column(Column::from(self.aggregate_schema.qualified_field(index)));
            outputs.push((column, format!("_key{index}")));
        }
        let outputs: Vec<&(Expr, String)> = outputs.iter().collect();
        let needed = self.needed(&outputs);
        let typed = retype(state, &self.partial_schema)?;
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for (index, group) in self.groups.iter().enumerate() {
            let key = self.key_of_group(group).ok_or_else(|| self.odd_state("group"))?;
            fields.push(Field::new(format!("g{index}"), typed.column(key).data_type().clone(), true));
            columns.push(typed.column(key).clone());
        }
        for (name, data_type) in self.states(&needed) {
            let column = self.state_schema.index_of(&name).map_err(DataFusionError::from)?;
            fields.push(Field::new(name, data_type, true));
            columns.push(typed.column(column).clone());
        }
        let schema = Arc::new(Schema::new(fields));
        let input = RecordBatch::try_new(schema.clone(), columns).map_err(DataFusionError::from)?;
        let input = MemorySourceConfig::try_new_exec(&[vec![input]], schema, None)?;
        let plan = self.show(self.merge(input, &needed)?, &needed, &outputs)?;
        let shown = plan.schema();
        let batches = collect(plan, context.task_ctx()).await?;
        let all = concat_batches(&shown, &batches).map_err(DataFusionError::from)?;
        let outputs = self.outputs.len();
        let answer = all.project(&(0..outputs).collect::<Vec<_>>()).map_err(DataFusionError::from)?;
        // Groups are in the statement's order, keys in that of state.
        let mut keys = Vec::with_capacity(self.keys.len());
        for key in 0..self.keys.len() {
            let group = self.groups.iter().position(|group| self.key_of_group(group) == Some(key));
            keys.push(outputs + group.ok_or_else(|| self.odd_state("key"))?);
        }
        let keys = all.project(&keys).map_err(DataFusionError::from)?;
        let fields = self.state_schema.fields().iter().take(self.keys.len());
        let keys_schema =
            Arc::new(Schema::new(fields.map(|f| f.as_ref().clone().with_nullable(true)).collect::<Vec<_>>()));
        Ok((retype(&answer, &self.schema)?, retype(&keys, &keys_schema)?))
    }

    fn key_of_group(&self, group: &Expr) -> Option<usize> {
        let Expr::Column(column) = group else { return None };
        self.keys.iter().position(|(_, name)| *name == column.name)
    }
}
