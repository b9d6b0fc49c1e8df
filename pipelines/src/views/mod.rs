//! Materialized views at work: which there are, and the jobs that keep their state current.
//!
//! A view's state is a Delta table per region beside the streams' tables. For each region and shard
//! of tenants a [`ViewMaintainer`] follows the streams' logs and commits, for every view, the state
//! of the rows of one or more commits together with the version they came from: the position. So a
//! view stands at a version of its stream, and equals the batch query over that version.
//!
//! A new view takes the history as of one version and goes on with the next entry of the log, so
//! there is neither gap nor overlap. A changed view is another table, built beside the old one;
//! readers get it once every region and shard says that it is ready.

mod built_in;
mod dimension;
mod job;
mod maintainer;
mod registry;
mod retired;
mod shard;
mod status;
mod stream_log;
mod table;
mod task;

pub use built_in::{BuiltInView, built_in_views};
pub use dimension::{Dimension, DimensionError, DimensionSet, LoadDimension, erase_from_dimensions};
pub use job::view_jobs;
pub use maintainer::{MaintainerSetup, ViewMaintainer, ViewsConfig};
pub use registry::{Generation, RegistryError, View, ViewRegistry};
pub use shard::Shard;
pub use status::{PartStatus, ViewStatus};
pub use table::ViewTable;
pub use task::SHARD;
