//! JSON values to column values, one rule per [`companyos_schemas::FieldType`].

mod number;
mod timestamp;
mod word;

pub(crate) use number::{float, integer};
pub(crate) use timestamp::{day_of, epoch, rfc3339};
pub(crate) use word::{Word, identifier, is_blank, trim};
