//! Sigma rules and correlations, evaluated over columns.
//!
//! [`Loaded`] reads YAML, [`RuleSet`] compiles it and answers which rows of an [`EventBatch`] each rule matches,
//! [`CorrelationSet`] and [`Correlator`] follow matches over time, and [`check_path`] tells an author what loads,
//! what does not and why. A pure library: no clock, no network, no files but those it is told to read.

mod atom;
mod batch;
mod check;
mod correlation;
mod correlator;
mod correlator_state;
mod encode;
mod field_index;
mod glob;
mod group;
mod load;
mod lower;
mod mapping;
mod nested;
mod required;
mod ruleset;

pub use batch::{BatchSource, EventBatch, KEYWORDS, LogSource};
pub use check::{CheckEntry, CheckReport, KnownField, check_path, check_text};
pub use correlation::{CorrelationInfo, CorrelationSet};
pub use correlator::{CorrelationHit, Correlator, CorrelatorConfig, CorrelatorStats};
pub use correlator_state::{CorrelatorHead, CorrelatorPart};
pub use load::{LoadError, Loaded, LoadedCorrelation, LoadedFilter, LoadedRule, Refused};
pub use mapping::{FieldMapping, MappingError};
pub use ruleset::{Matches, RuleHits, RuleInfo, RuleSet};
