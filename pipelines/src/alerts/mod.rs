//! Alerts on views: a query over views whose rows are what is wrong now.
//!
//! Each region and shard asks every alert's query at its interval, over its own tenants' state. A row
//! that appears fires; one that has gone is resolved. Both are rows of `view_alerts` and notices of the
//! kind `view_alert`, which go to their topic and to webhooks as all notices do.
//!
//! Promises:
//! - What fires is remembered with the checkpoint that told of it, so a restart or another owner
//!   neither repeats an alert nor forgets one.
//! - A query that fails, or a view that is still being built, changes nothing: silence is not an
//!   all-clear.

mod definition;
mod evaluate;
mod job;
mod table;

pub use definition::{AlertError, AlertSeverity, ViewAlert, shipped_alerts};
pub use evaluate::{Evaluator, FiringRow};
pub use job::{AlertsConfig, alert_jobs};
pub use table::{TABLE, view_alerts_table};
