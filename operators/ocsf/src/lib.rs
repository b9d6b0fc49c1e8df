//! Security events as OCSF: mappers, source authenticity, replay protection, clock skew.
//!
//! Two roads lead from a row of `security_signals` to OCSF. [`Extractor`] is the hot one: it gives
//! rules the columns they ask for, by one lazy scan per event. [`to_ocsf`] is the cold one: it
//! writes the whole event as OCSF JSON, for findings and exports, and loses nothing. Both read the
//! same tables of attributes, so a rule sees what the export says.

mod authenticity;
mod columns;
mod error;
mod extract;
mod known;
mod mapping;
mod ocsf;
mod row;
mod scan;
mod source;
mod sources;
mod validate;

pub use authenticity::{
    Authenticator, Checked, Secret, SourceMemory, SourceTrust, TrustConfig, TrustError, TrustStats, Verdict,
    canonical_string,
};
pub use error::OcsfError;
pub use extract::{Extracted, Extractor, Logsource};
pub use known::{is_contract_field, is_known_field};
pub use mapping::{OCSF_VERSION, class};
pub use ocsf::to_ocsf;
pub use row::{SignalColumns, SignalRow};
pub use source::SourceKind;
pub use validate::validate;
