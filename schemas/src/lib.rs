//! The vocabulary of the data path: which streams exist, what their events look like, how they
//! become columns, who may see them.
//!
//! Everything derives from one field table per stream ([`stream::Stream::fields`]): the Arrow
//! schema of the Delta table, the published JSON Schema and the decoder's rules. Nothing in this
//! crate does I/O.

pub mod access;
pub mod arrow_schema;
pub mod envelope;
pub mod evolution;
pub mod field;
pub mod json_schema;
pub mod message;
pub mod payload_hash;
pub mod quarantine;
pub mod stream;
pub mod tenancy;

pub use field::{Field, FieldType};
pub use stream::Stream;
