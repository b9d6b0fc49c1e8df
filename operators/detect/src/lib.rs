//! Security detections: rules, stateful detectors, findings and the operation of rules.
//!
//! [`DetectOperator`] follows security signals, ops events and audit events. A [`RuleBook`] is what
//! it looks for: Sigma rules and correlations, [`detectors`], and how far each is trusted.
//! [`testing`] and [`scenario`] drive the same operator over JSON events.

mod correlation_state;
pub mod detectors;
mod event;
pub mod events;
mod exceptions;
mod finding;
mod geo;
mod known_fields;
mod operator;
mod rollout;
mod rule_book;
pub mod scenario;
mod signals;
pub mod testing;
mod trust;
mod version;

pub use event::{Action, Build, Event, Facts};
pub use exceptions::{Allowed, Exceptions, Glob, Matcher, Suppression};
pub use finding::{
    EvidenceRef, Finding, FindingKind, MAX_EVIDENCE, Mode, NOTICE, RuleMeta, Severity, TABLE, finding_id, rows, table,
};
pub use geo::{Locator, LocatorError, Place};
pub use operator::{DetectOperator, DetectStats};
pub use rollout::{Feedback, RollbackConfig, Rollout, Tally};
pub use rule_book::{CONFIG_FILE, RuleBook, RuleBookError, RuleSetConfig};
pub use version::versions;
