//! SQL over a tenant's rows: planning, isolation, limits, the HTTP endpoint and output formats.
//!
//! Promises:
//! - A query sees the rows of its [`Scope`](companyos_schemas::access::Scope) and nothing else.
//!   The filter sits inside the table provider, below every plan node a user can write, and
//!   nothing that can fail, count or be observed runs on other rows (see `scoped_exec`).
//! - A query sees one version of each table, also when it names the table twice.
//! - Nothing in SQL writes, reads files or changes settings.
//! - A result that was cut says so; an error never carries another tenant's values or a path.

mod catalog;
mod config;
mod depth;
mod engine;
mod error;
pub mod format;
mod held;
mod http;
mod policy;
mod root;
mod rows;
mod scope_filter;
mod scoped_exec;
mod scoped_table;
mod snapshots;
mod views;

pub use config::{ConfigError, QueryConfig};
pub use engine::{EngineError, QueryEngine, QueryResult};
pub use error::{Cut, QueryError};
pub use http::{router, views_router};
pub use rows::RowStream;
pub use snapshots::TableVersion;

pub use datafusion::scalar::ScalarValue;
