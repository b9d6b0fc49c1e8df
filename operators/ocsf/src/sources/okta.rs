//! Okta's system log.

use crate::mapping::{Attr, Fields, Mapper, OTHER, class, constant, crud, first, first_in};

pub(crate) static MAPPER: Mapper = Mapper { attrs: ATTRS, needs: &["eventType", "outcome.result"], classify, status };

const IDENTITY: &[i64] = &[class::ACCOUNT_CHANGE, class::USER_ACCESS, class::GROUP_MANAGEMENT];
const LOGIN: &[i64] = &[class::AUTHENTICATION];
const FINDING: &[i64] = &[class::DETECTION_FINDING];

const ATTRS: &[Attr] = &[
    first("actor.user.name", &["actor.alternateId", "actor.displayName", "$actor"]),
    first("actor.user.uid", &["actor.id"]),
    first("actor.user.full_name", &["actor.displayName"]),
    first("actor.user.type", &["actor.type"]),
    first("actor.session.uid", &["authenticationContext.externalSessionId"]),
    first_in(LOGIN, "user.name", &["actor.alternateId", "actor.displayName", "$actor"]),
    first_in(LOGIN, "user.uid", &["actor.id"]),
    first_in(LOGIN, "auth_protocol", &["authenticationContext.credentialType"]),
    constant("service.name", "Okta"),
    first_in(IDENTITY, "user.name", &["target[0].alternateId", "target[0].displayName"]),
    first_in(IDENTITY, "user.uid", &["target[0].id"]),
    first_in(&[class::GROUP_MANAGEMENT], "group.name", &["target[1].displayName", "target[0].displayName"]),
    first_in(&[class::GROUP_MANAGEMENT], "group.uid", &["target[1].id", "target[0].id"]),
    first_in(
        &[class::USER_ACCESS],
        "privileges[]",
        &["debugContext.debugData.privilegeGranted", "target[1].displayName"],
    ),
    first_in(FINDING, "finding_info.title", &["displayMessage", "eventType"]),
    first_in(FINDING, "finding_info.uid", &["uuid", "$event_id"]),
    first("api.operation", &["eventType"]),
    first("src_endpoint.ip", &["client.ipAddress"]),
    first("src_endpoint.zone", &["client.zone"]),
    first("src_endpoint.location.city", &["client.geographicalContext.city"]),
    first("src_endpoint.location.region", &["client.geographicalContext.state"]),
    first("src_endpoint.location.country", &["client.geographicalContext.country"]),
    first("src_endpoint.location.postal_code", &["client.geographicalContext.postalCode"]),
    first("src_endpoint.location.lat", &["client.geographicalContext.geolocation.lat"]),
    first("src_endpoint.location.long", &["client.geographicalContext.geolocation.lon"]),
    first("src_endpoint.location.isp", &["securityContext.isp"]),
    first("src_endpoint.autonomous_system.number", &["securityContext.asNumber"]),
    first("src_endpoint.autonomous_system.name", &["securityContext.asOrg"]),
    first("http_request.user_agent", &["client.userAgent.rawUserAgent"]),
    first("message", &["displayMessage"]),
    first("status_detail", &["outcome.reason"]),
    first("status_code", &["outcome.result"]),
    first("metadata.uid", &["uuid", "$event_id"]),
    first("metadata.event_code", &["eventType"]),
    first("metadata.log_version", &["version"]),
    first("metadata.correlation_uid", &["transaction.id"]),
    first("metadata.original_time", &["published"]),
];

fn classify(fields: &Fields<'_>) -> (i64, i64) {
    let event = fields.get("eventType").unwrap_or(fields.row().signal_type);
    match event {
        "user.session.end" => (class::AUTHENTICATION, 2),
        "user.session.start" | "user.mfa.attempt_bypass" | "policy.evaluate_sign_on" => (class::AUTHENTICATION, 1),
        "user.lifecycle.create" => (class::ACCOUNT_CHANGE, 1),
        "user.lifecycle.activate" | "user.lifecycle.reactivate" | "user.lifecycle.unsuspend" => {
            (class::ACCOUNT_CHANGE, 2)
        }
        "user.account.update_password" => (class::ACCOUNT_CHANGE, 3),
        "user.account.reset_password" => (class::ACCOUNT_CHANGE, 4),
        "user.lifecycle.deactivate" | "user.lifecycle.suspend" => (class::ACCOUNT_CHANGE, 5),
        "user.account.lock" | "user.account.lock.limit" => (class::ACCOUNT_CHANGE, 9),
        "user.mfa.factor.activate" => (class::ACCOUNT_CHANGE, 10),
        "user.mfa.factor.deactivate" | "user.mfa.factor.reset_all" | "user.mfa.factor.suspend" => {
            (class::ACCOUNT_CHANGE, 11)
        }
        "user.account.privilege.grant" | "application.user_membership.add" => (class::USER_ACCESS, 1),
        "user.account.privilege.revoke" | "application.user_membership.remove" => (class::USER_ACCESS, 2),
        "group.privilege.grant" => (class::GROUP_MANAGEMENT, 1),
        "group.privilege.revoke" => (class::GROUP_MANAGEMENT, 2),
        "group.user_membership.add" => (class::GROUP_MANAGEMENT, 3),
        "group.user_membership.remove" => (class::GROUP_MANAGEMENT, 4),
        "group.lifecycle.delete" => (class::GROUP_MANAGEMENT, 5),
        "group.lifecycle.create" => (class::GROUP_MANAGEMENT, 6),
        "security.threat.detected" | "user.account.report_suspicious_activity_by_enduser" => {
            (class::DETECTION_FINDING, 1)
        }
        _ if event.starts_with("user.authentication.") || event.starts_with("user.mfa.okta_verify") => {
            (class::AUTHENTICATION, 1)
        }
        _ if event.starts_with("user.lifecycle.delete") => (class::ACCOUNT_CHANGE, 6),
        _ if event.starts_with("user.account.") || event.starts_with("user.mfa.factor.") => {
            (class::ACCOUNT_CHANGE, OTHER)
        }
        _ => (class::API_ACTIVITY, crud(event.rsplit('.').next().unwrap_or(event))),
    }
}

fn status(fields: &Fields<'_>) -> Option<bool> {
    match fields.get("outcome.result")? {
        "SUCCESS" | "ALLOW" | "ANSWERED" => Some(true),
        "FAILURE" | "DENY" | "ABANDONED" | "UNANSWERED" | "RATE_LIMIT" => Some(false),
        _ => None,
    }
}
