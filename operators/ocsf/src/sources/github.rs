//! GitHub's audit log, of organisations and enterprises.

use crate::mapping::{Attr, Fields, Mapper, class, constant, crud, first, first_in};

pub(crate) static MAPPER: Mapper = Mapper { attrs: ATTRS, needs: &["action", "operation_type"], classify, status };

const SUBJECT: &[i64] = &[class::ACCOUNT_CHANGE, class::USER_ACCESS, class::GROUP_MANAGEMENT];
const LOGIN: &[i64] = &[class::AUTHENTICATION];
const FINDING: &[i64] = &[class::DETECTION_FINDING];

const ATTRS: &[Attr] = &[
    first("actor.user.name", &["actor", "$actor"]),
    first("actor.user.uid", &["actor_id"]),
    first("actor.user.org.name", &["org"]),
    first("actor.user.org.uid", &["org_id"]),
    first("actor.user.credential_uid", &["token_id"]),
    first("actor.user.email_addr", &["external_identity_nameid"]),
    first("actor.session.credential_uid", &["hashed_token"]),
    first_in(LOGIN, "user.name", &["user", "actor", "$actor"]),
    constant("service.name", "GitHub"),
    first_in(SUBJECT, "user.name", &["user", "invitee"]),
    first_in(SUBJECT, "user.uid", &["user_id"]),
    first_in(&[class::GROUP_MANAGEMENT], "group.name", &["team", "org"]),
    first_in(&[class::USER_ACCESS], "privileges[]", &["permission", "new_repo_permission"]),
    first_in(FINDING, "finding_info.title", &["action"]),
    first_in(FINDING, "finding_info.uid", &["number", "alert_number", "_document_id", "$event_id"]),
    first("api.operation", &["action"]),
    first("resources[].name", &["repo", "repository"]),
    first("src_endpoint.ip", &["actor_ip"]),
    first("src_endpoint.location.country", &["actor_location.country_code"]),
    first("http_request.user_agent", &["user_agent"]),
    first("http_request.uid", &["request_id"]),
    first("metadata.uid", &["_document_id", "$event_id"]),
    first("metadata.event_code", &["action"]),
    first("metadata.original_time", &["@timestamp", "created_at"]),
];

fn classify(fields: &Fields<'_>) -> (i64, i64) {
    let action = fields.get("action").unwrap_or(fields.row().signal_type);
    match action {
        "user.login" | "user.failed_login" | "org.sso_response" | "business.sso_response" => (class::AUTHENTICATION, 1),
        "user.logout" => (class::AUTHENTICATION, 2),
        "user.create" => (class::ACCOUNT_CHANGE, 1),
        "user.change_password" => (class::ACCOUNT_CHANGE, 3),
        "user.reset_password" => (class::ACCOUNT_CHANGE, 4),
        "user.suspend" => (class::ACCOUNT_CHANGE, 5),
        "user.unsuspend" => (class::ACCOUNT_CHANGE, 2),
        "user.delete" => (class::ACCOUNT_CHANGE, 6),
        "two_factor_authentication.enabled" | "user.two_factor_enabled" => (class::ACCOUNT_CHANGE, 10),
        "two_factor_authentication.disabled" | "user.two_factor_disabled" => (class::ACCOUNT_CHANGE, 11),
        "repo.add_member" | "org.update_member" | "repo.update_member" | "role.create" => (class::USER_ACCESS, 1),
        "repo.remove_member" => (class::USER_ACCESS, 2),
        "org.add_member" | "team.add_member" | "business.add_admin" => (class::GROUP_MANAGEMENT, 3),
        "org.remove_member" | "team.remove_member" | "business.remove_admin" => (class::GROUP_MANAGEMENT, 4),
        "team.destroy" => (class::GROUP_MANAGEMENT, 5),
        "team.create" => (class::GROUP_MANAGEMENT, 6),
        "secret_scanning_alert.create" | "repository_vulnerability_alert.create" => (class::DETECTION_FINDING, 1),
        "secret_scanning_alert.resolve" | "repository_vulnerability_alert.resolve" => (class::DETECTION_FINDING, 3),
        _ => {
            let verb = action.rsplit('.').next().unwrap_or(action);
            let activity = match fields.get("operation_type") {
                Some("create") => 1,
                Some("access") => 2,
                Some("modify" | "restore" | "transfer") => 3,
                Some("remove") => 4,
                _ => crud(verb),
            };
            (class::API_ACTIVITY, activity)
        }
    }
}

fn status(fields: &Fields<'_>) -> Option<bool> {
    // The log holds what was done; only failed logins are told as such.
    fields.get("action").map(|action| !action.contains("failed"))
}
