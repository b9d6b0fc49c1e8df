//! Which names a rule can ask for at all: a check of rules tells the others, which would always be null.

use companyos_schemas::Stream;

use crate::{
    SourceKind,
    extract::is_table_column,
    mapping::{Attr, COMPUTED, From, mapper},
};

/// Whether events of a source can have a field of this name: a column of the table, an OCSF attribute that the
/// source's mapper gives, or a field of the vendor's record. Of records only the first part of a name is judged: what
/// is inside, such as the parameters of an API call, is the vendor's to change.
pub fn is_known_field(source: SourceKind, name: &str) -> bool {
    let plain = name.strip_prefix("unmapped.").unwrap_or(name);
    is_table_column(name)
        || COMPUTED.contains(&name)
        || mapper(source).attrs.iter().any(|attr| attr.name.replace("[]", "") == name || reads(attr, plain))
        || record(source).contains(&plain.split('.').next().unwrap_or(plain))
}

/// Whether an ops or audit event can have a field of this name in its contract. Its payload may have any other.
pub fn is_contract_field(stream: Stream, name: &str) -> bool {
    stream.fields().iter().any(|field| field.name == name)
}

fn reads(attr: &Attr, field: &str) -> bool {
    match attr.from {
        From::First(paths) | From::When(paths, _) | From::Derived(paths, _) => paths.contains(&field),
        From::Const(_) => false,
    }
}

/// What records consist of, by their vendors' documentation.
fn record(source: SourceKind) -> &'static [&'static str] {
    match source {
        SourceKind::CloudTrail => &[
            "additionalEventData",
            "addendum",
            "apiVersion",
            "awsRegion",
            "edgeDeviceDetails",
            "errorCode",
            "errorMessage",
            "eventCategory",
            "eventContext",
            "eventID",
            "eventName",
            "eventSource",
            "eventTime",
            "eventType",
            "eventVersion",
            "insightDetails",
            "managementEvent",
            "readOnly",
            "recipientAccountId",
            "requestID",
            "requestParameters",
            "resources",
            "responseElements",
            "serviceEventDetails",
            "sessionCredentialFromConsole",
            "sharedEventID",
            "sourceIPAddress",
            "tlsDetails",
            "userAgent",
            "userIdentity",
            "vpcEndpointAccountId",
            "vpcEndpointId",
        ],
        SourceKind::OpenSsh => &["message", "hostname", "host", "program", "pid", "sshd"],
        SourceKind::Okta => &[
            "actor",
            "authenticationContext",
            "client",
            "debugContext",
            "device",
            "displayMessage",
            "eventType",
            "legacyEventType",
            "outcome",
            "published",
            "request",
            "securityContext",
            "severity",
            "target",
            "transaction",
            "uuid",
            "version",
        ],
        SourceKind::GitHub => &[
            "@timestamp",
            "_document_id",
            "action",
            "active",
            "active_was",
            "actor",
            "actor_id",
            "actor_ip",
            "actor_is_bot",
            "actor_location",
            "blocked_user",
            "business",
            "business_id",
            "config",
            "config_was",
            "content_type",
            "created_at",
            "data",
            "deploy_key_fingerprint",
            "emoji",
            "events",
            "events_were",
            "explanation",
            "external_identity_nameid",
            "external_identity_username",
            "fingerprint",
            "hashed_token",
            "hook_id",
            "limited_availability",
            "message",
            "name",
            "new_policy",
            "old_permission",
            "old_policy",
            "old_user",
            "operation_type",
            "org",
            "org_id",
            "permission",
            "previous_visibility",
            "programmatic_access_type",
            "public_repo",
            "pull_request_id",
            "pull_request_title",
            "pull_request_url",
            "read_only",
            "repo",
            "repo_id",
            "repositories",
            "repositories_added",
            "repositories_removed",
            "repository",
            "repository_public",
            "request_id",
            "runner_group_id",
            "runner_id",
            "runner_name",
            "target_login",
            "team",
            "token_id",
            "token_scopes",
            "transport_protocol",
            "transport_protocol_name",
            "user",
            "user_agent",
            "user_id",
            "visibility",
            "workflow_id",
        ],
        SourceKind::Kubernetes => &[
            "annotations",
            "apiVersion",
            "auditID",
            "authenticationMetadata",
            "impersonatedUser",
            "kind",
            "level",
            "objectRef",
            "requestObject",
            "requestReceivedTimestamp",
            "requestURI",
            "responseObject",
            "responseStatus",
            "sourceIPs",
            "stage",
            "stageTimestamp",
            "user",
            "userAgent",
            "verb",
        ],
        SourceKind::Own => &["payload", "evidence", "lineage"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_known_by_source() {
        for (source, name) in [
            (SourceKind::CloudTrail, "eventName"),
            (SourceKind::CloudTrail, "requestParameters.bucketName"),
            (SourceKind::CloudTrail, "actor.user.name"),
            (SourceKind::Okta, "unmapped.debugContext.debugData.risk"),
            (SourceKind::Kubernetes, "objectRef.resource"),
            (SourceKind::Own, "signal_type"),
            (SourceKind::Own, "session_id"),
            (SourceKind::Own, "evidence.image"),
        ] {
            assert!(is_known_field(source, name), "{name}");
        }
        for (source, name) in [
            (SourceKind::CloudTrail, "CommandLine"),
            (SourceKind::CloudTrail, "eventname"),
            (SourceKind::Okta, "eventName"),
            (SourceKind::Kubernetes, "hostPath"),
        ] {
            assert!(!is_known_field(source, name), "{name}");
        }
        assert!(is_contract_field(Stream::AuditEvents, "action"));
        assert!(!is_contract_field(Stream::OpsEvents, "EventID"));
    }
}
