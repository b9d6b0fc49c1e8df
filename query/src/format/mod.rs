//! Results as bytes: for the endpoint (streamed) and for `companyos sql` (to a terminal or file).

mod encode;
mod write;

pub use encode::{Encoder, Format};
pub use write::{OutputFormat, WriteError, Written, write_rows, write_table};
