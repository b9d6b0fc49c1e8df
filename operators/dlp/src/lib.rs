//! Finds person data and secrets in text and JSON, and masks, tokenizes, drops or refuses them by
//! policy.
//!
//! [`Scanner`] finds, [`Redactor`] decides and rewrites, [`report`] prints findings. Nothing here logs
//! or keeps what it reads.

mod anchors;
mod finding;
mod json;
mod keys;
mod path;
pub mod policy;
mod recognize;
mod redactor;
pub mod report;
mod scanner;
mod verdict;

pub use finding::{Finding, Kind};
pub use keys::{KeyConfig, KeyError, KeyMaterial, KeyRing, KeyRingConfig};
pub use policy::{Action, DlpConfig, DlpConfigError};
pub use redactor::{Redactor, RowScope, Shape, Verdict, is_clean, redact_masked};
pub use scanner::Scanner;
pub use verdict::Fired;
