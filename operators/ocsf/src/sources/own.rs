//! Signals of the platform and of its tenants' own services.
//!
//! They have no record of a vendor: what they know stands in `evidence`, under OCSF's names or
//! under the plain ones listed here. The class is the row's `class_uid` where the producer named a
//! known one, else it follows from `signal_type`.

use crate::mapping::{Attr, Fields, Mapper, OTHER, class, crud, first, first_in, is_ip, when};

pub(crate) static MAPPER: Mapper =
    Mapper { attrs: ATTRS, needs: &["status", "outcome", "result", "action", "operation"], classify, status };

const SUBJECT: &[i64] = &[class::AUTHENTICATION, class::ACCOUNT_CHANGE, class::USER_ACCESS, class::GROUP_MANAGEMENT];

const ATTRS: &[Attr] = &[
    first("actor.user.name", &["actor.user.name", "$actor"]),
    first("actor.session.uid", &["actor.session.uid", "session_id", "token_id", "session"]),
    first_in(SUBJECT, "user.name", &["user.name", "target_user", "username", "user", "$actor"]),
    first_in(&[class::GROUP_MANAGEMENT], "group.name", &["group.name", "group"]),
    first_in(&[class::USER_ACCESS], "privileges[]", &["privilege", "role", "permission"]),
    first_in(&[class::AUTHENTICATION], "service.name", &["service.name", "service", "$source"]),
    first_in(&[class::AUTHENTICATION], "auth_protocol", &["auth_protocol", "method", "mfa_method"]),
    first_in(&[class::AUTHENTICATION], "is_mfa", &["is_mfa", "mfa"]),
    first_in(&[class::API_ACTIVITY], "api.operation", &["api.operation", "operation", "action", "$signal_type"]),
    first_in(&[class::API_ACTIVITY], "api.service.name", &["api.service.name", "service", "$source"]),
    first_in(&[class::DETECTION_FINDING], "finding_info.title", &["finding_info.title", "title", "$signal_type"]),
    first_in(&[class::DETECTION_FINDING], "finding_info.uid", &["finding_info.uid", "finding_id", "$event_id"]),
    when(
        "src_endpoint.ip",
        &["src_endpoint.ip", "source_ip", "src_ip", "client_ip", "ip_address", "remote_ip", "ip"],
        is_ip,
    ),
    first("src_endpoint.port", &["src_endpoint.port", "source_port", "src_port"]),
    first("src_endpoint.location.city", &["src_endpoint.location.city", "location.city", "geo.city", "city"]),
    first(
        "src_endpoint.location.country",
        &["src_endpoint.location.country", "location.country", "geo.country", "country"],
    ),
    first("src_endpoint.location.lat", &["src_endpoint.location.lat", "location.lat", "geo.lat", "lat"]),
    first(
        "src_endpoint.location.long",
        &["src_endpoint.location.long", "location.long", "location.lon", "geo.long", "geo.lon", "lon", "long"],
    ),
    first("http_request.user_agent", &["http_request.user_agent", "user_agent"]),
    first("device.uid", &["device.uid", "device_id"]),
    first("resources[].name", &["resource.name", "resource"]),
    first("message", &["message"]),
    first("status_detail", &["status_detail", "reason"]),
    first("metadata.uid", &["$event_id"]),
    first("metadata.event_code", &["$signal_type"]),
];

fn classify(fields: &Fields<'_>) -> (i64, i64) {
    let signal = fields.row().signal_type;
    let has = |words: &[&str]| words.iter().any(|word| signal.contains(word));
    let known = [
        class::DETECTION_FINDING,
        class::ACCOUNT_CHANGE,
        class::AUTHENTICATION,
        class::USER_ACCESS,
        class::GROUP_MANAGEMENT,
        class::API_ACTIVITY,
    ];
    let class_uid = match fields.row().class_uid {
        Some(named) if known.contains(&named) => named,
        _ if has(&[
            "login",
            "logon",
            "logout",
            "logoff",
            "auth",
            "mfa_challenge",
            "mfa_push",
            "mfa_bypass",
            "session",
        ]) =>
        {
            class::AUTHENTICATION
        }
        _ if has(&["role_", "privilege", "permission", "access_grant", "access_revoke"]) => class::USER_ACCESS,
        _ if has(&["group", "team_member"]) => class::GROUP_MANAGEMENT,
        _ if has(&["account", "user_", "password", "mfa_factor", "mfa_enabled", "mfa_disabled"]) => {
            class::ACCOUNT_CHANGE
        }
        _ if has(&[
            "api",
            "policy_denial",
            "deploy",
            "config",
            "admin",
            "token_use",
            "token_used",
            "build",
            "dependency",
        ]) =>
        {
            class::API_ACTIVITY
        }
        _ => class::DETECTION_FINDING,
    };
    let activity = match class_uid {
        class::AUTHENTICATION if has(&["logout", "logoff", "session_end"]) => 2,
        class::AUTHENTICATION => 1,
        class::USER_ACCESS if has(&["revoke", "remove", "unassign"]) => 2,
        class::USER_ACCESS => 1,
        class::GROUP_MANAGEMENT if has(&["add"]) => 3,
        class::GROUP_MANAGEMENT if has(&["remove"]) => 4,
        class::GROUP_MANAGEMENT if has(&["delete"]) => 5,
        class::GROUP_MANAGEMENT if has(&["create"]) => 6,
        class::ACCOUNT_CHANGE if has(&["mfa_factor_removed", "mfa_disabled"]) => 11,
        class::ACCOUNT_CHANGE if has(&["mfa"]) => 10,
        class::ACCOUNT_CHANGE if has(&["password_reset"]) => 4,
        class::ACCOUNT_CHANGE if has(&["password"]) => 3,
        class::ACCOUNT_CHANGE if has(&["delete"]) => 6,
        class::ACCOUNT_CHANGE if has(&["disable", "suspend"]) => 5,
        class::ACCOUNT_CHANGE if has(&["enable"]) => 2,
        class::ACCOUNT_CHANGE if has(&["create"]) => 1,
        class::ACCOUNT_CHANGE if has(&["lock"]) => 9,
        class::API_ACTIVITY => crud(fields.get("operation").or_else(|| fields.get("action")).unwrap_or(signal)),
        class::DETECTION_FINDING if has(&["closed", "resolved"]) => 3,
        class::DETECTION_FINDING => 1,
        _ => OTHER,
    };
    (class_uid, activity)
}

fn status(fields: &Fields<'_>) -> Option<bool> {
    if let Some(told) = ["status", "outcome", "result"].into_iter().find_map(|field| fields.get(field)) {
        match told.to_ascii_lowercase().as_str() {
            "success" | "succeeded" | "ok" | "allow" | "allowed" | "approved" | "true" => return Some(true),
            "failure" | "failed" | "error" | "deny" | "denied" | "rejected" | "timeout" | "false" => {
                return Some(false);
            }
            _ => {}
        }
    }
    let signal = fields.row().signal_type;
    let has = |words: &[&str]| words.iter().any(|word| signal.contains(word));
    if has(&["fail", "denied", "denial", "rejected", "blocked"]) {
        Some(false)
    } else if has(&["success"]) {
        Some(true)
    } else {
        None
    }
}
