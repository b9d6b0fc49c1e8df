//! Materialized views in SQL: parsing `CREATE MATERIALIZED VIEW`, splitting its aggregate, and the
//! plans that make, merge and read its state.
//!
//! ```text
//!  rows of a commit ── filter ── window ── Partial ──> state rows (a Delta table)
//!                                                        │  PartialReduce (folding)
//!  answer <── projection <── HAVING <── Final <── join, hop, session <┘
//! ```
//!
//! Promises:
//! - The answer equals the batch query over the rows taken in, in whatever order and portions they
//!   came (floating-point sums to rounding, approximate aggregates to their stated error).
//! - Views are per tenant, environment and region: these three are group keys of every view and the
//!   first columns of its answer, whether or not the statement names them.
//! - What cannot be split or bounded is refused when the view is made, with line and column.
//! - State says which format and engine wrote it: [`ViewPlan::table`] changes with either, so a view
//!   is built anew and state of another format is never read.

mod aggregates;
mod capped;
mod error;
mod held;
mod plan;
mod read;
mod session;
mod state;
mod statement;
mod window;
mod write;

pub use error::ViewError;
pub use held::{HeldRows, HeldState, HeldView, KeyedAnswer};
pub use plan::{Dimension, Dimensions, ViewPlan};
pub use read::{ReadInput, explain};
pub use statement::{ViewOptions, ViewStatement, parse, parse_file};
pub use window::Window;
