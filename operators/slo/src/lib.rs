//! Service level objectives: OpenSLO v1 files become burn rates, error budgets and alerts.
//!
//! [`load_path`] reads files, [`compile`] makes definitions of what reads our own streams, and
//! [`SloOperator`] keeps one-minute panes for every tenant, environment, region, service and
//! objective and puts out the tables `slo_burn` and `slo_alerts`. No I/O beyond reading files.

mod alert;
pub mod check;
mod compile;
mod deploys;
mod duration;
mod error;
mod evaluate;
mod expr;
mod load;
mod locate;
mod measure;
pub mod openslo;
mod operator;
mod outbox;
mod panes;
mod policy;
pub mod report;
mod series;
mod source;
mod tables;
mod validate;

pub use compile::{Budgeting, CompileReport, CompiledSlo, compile};
pub use duration::{Shorthand, Window};
pub use error::{Fault, Origin, Refused};
pub use expr::RowExpr;
pub use load::{LoadReport, Loaded, load_path, load_str};
pub use operator::SloOperator;
pub use policy::{Op, Rule, Severity, default_rules};
pub use tables::{slo_alerts_table, slo_burn_table};
