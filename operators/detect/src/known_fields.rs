//! Which fields rules can ask for, by log source, so that a check of rules can tell the others.

use companyos_ocsf::{SourceKind, is_contract_field, is_known_field};
use companyos_schemas::Stream;
use companyos_sigma::LogSource;

/// Whether any event that a rule's log source asks for can have the field. Ops and audit events are looked at as
/// signals of the platform too, so they have those names as well.
pub(crate) fn is_known(asked: &LogSource, field: &str) -> bool {
    let given = |product: &str, service: Option<&str>| LogSource {
        product: Some(product.to_owned()),
        // A category is made of the class of an event; any may be.
        category: asked.category.clone(),
        service: service.map(str::to_owned).or_else(|| asked.service.clone()),
    };
    let signal = |kind: &SourceKind| asked.fits(&given(kind.product(), kind.service())) && is_known_field(*kind, field);
    let contract = |stream, service| {
        asked.fits(&given(SourceKind::Own.product(), Some(service))) && is_contract_field(stream, field)
    };
    SourceKind::ALL.iter().any(signal) || contract(Stream::OpsEvents, "ops") || contract(Stream::AuditEvents, "audit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_judged_by_the_log_source() {
        let source = |product: &str, service: Option<&str>| LogSource {
            product: Some(product.to_owned()),
            category: None,
            service: service.map(str::to_owned),
        };
        assert!(is_known(&source("aws", Some("cloudtrail")), "eventName"));
        assert!(is_known(&LogSource::default(), "eventName"), "a rule for any source");
        assert!(is_known(&source("companyos", Some("ops")), "service"));
        assert!(!is_known(&source("companyos", Some("ops")), "EventID"));
        // No event here comes from Windows.
        assert!(!is_known(&source("windows", None), "CommandLine"));
        assert!(!is_known(&source("okta", None), "eventName"));
    }
}
