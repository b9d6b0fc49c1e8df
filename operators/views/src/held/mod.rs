//! A view kept in memory for a reader that asks again and again, brought up to date by the state
//! that came since.
//!
//! Promises: what is held shows the same as [`ViewPlan::read`] over all state that was taken in.
//! Where every row of the answer comes of one key's state, the answer itself is held, and new state
//! costs what it touches. Other views (hopping windows, sessions, dimensions) are held as folded
//! state and merged when read.

mod chunk;
mod keyed;

use datafusion::arrow::{array::RecordBatch, datatypes::DataType, row::RowConverter, row::SortField};

pub use self::keyed::KeyedAnswer;
use crate::{ViewError, ViewPlan, Window};

/// A view in memory.
#[derive(Debug)]
pub enum HeldView {
    /// The answer.
    Answer(KeyedAnswer),
    /// Its state, which is merged when it is read.
    State(HeldState),
}

/// What a held view shows.
#[derive(Debug, Clone)]
pub enum HeldRows {
    /// Rows of the answer, as [`ViewPlan::schema`] says.
    Answer(Vec<RecordBatch>),
    /// Rows of state, as [`ViewPlan::state_schema`] says.
    State(Vec<RecordBatch>),
}

impl HeldView {
    /// Nothing taken in yet.
    pub fn new(plan: &ViewPlan) -> Result<Self, ViewError> {
        Ok(match plan.is_keyed() {
            true => Self::Answer(KeyedAnswer::new(plan)?),
            false => Self::State(HeldState::default()),
        })
    }

    /// Takes state in. After an error what is held is of no use any more.
    pub async fn take_in(&mut self, plan: &ViewPlan, state: &[RecordBatch]) -> Result<(), ViewError> {
        match self {
            Self::Answer(answer) => answer.take_in(plan, state).await,
            Self::State(held) => held.take_in(plan, state).await,
        }
    }

    /// What it shows now; cheap.
    pub fn rows(&self) -> HeldRows {
        match self {
            Self::Answer(answer) => HeldRows::Answer(answer.rows()),
            Self::State(state) => HeldRows::State(state.batches.clone()),
        }
    }

    /// Memory it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Answer(answer) => answer.bytes(),
            Self::State(state) => state.batches.iter().map(RecordBatch::get_array_memory_size).sum(),
        }
    }
}

impl HeldRows {
    /// No rows, as a view would show them.
    pub fn none(plan: &ViewPlan) -> Self {
        match plan.is_keyed() {
            true => Self::Answer(Vec::new()),
            false => Self::State(Vec::new()),
        }
    }

    /// Adds rows of the same view, such as another region's.
    pub fn append(&mut self, more: Self) {
        match (self, more) {
            (Self::Answer(rows), Self::Answer(more)) | (Self::State(rows), Self::State(more)) => rows.extend(more),
            (all, more) => *all = more,
        }
    }
}

/// Portions after which state is folded.
const PORTIONS: usize = 32;

/// State of a view whose answer has to be merged as a whole.
#[derive(Debug, Default)]
pub struct HeldState {
    batches: Vec<RecordBatch>,
}

impl HeldState {
    async fn take_in(&mut self, plan: &ViewPlan, state: &[RecordBatch]) -> Result<(), ViewError> {
        let first = self.batches.is_empty();
        for batch in state.iter().filter(|batch| batch.num_rows() > 0) {
            self.batches.push(plan.as_state(batch)?);
        }
        if first || self.batches.len() > PORTIONS {
            self.batches = plan.fold(&self.batches).await?.into_iter().collect();
        }
        Ok(())
    }
}

impl ViewPlan {
    /// Whether each row of the answer comes of one key's state, and keys can be told apart by their
    /// bytes: floating-point keys cannot, as zero has two signs and NaN many forms.
    pub(crate) fn is_keyed(&self) -> bool {
        let types = self.state_schema.fields().iter().take(self.keys.len()).map(|f| f.data_type().clone());
        let types: Vec<DataType> = types.collect();
        let fields: Vec<SortField> = types.iter().cloned().map(SortField::new).collect();
        self.dimension.is_none()
            && self.groups.len() == self.keys.len()
            && !matches!(self.window, Some(Window::Hop { .. } | Window::Session { .. }))
            && !types.iter().any(|t| t.is_floating() || t.is_nested())
            && RowConverter::supports_fields(&fields)
    }
}
