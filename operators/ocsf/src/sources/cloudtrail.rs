//! AWS CloudTrail records.

use std::borrow::Cow;

use crate::mapping::{Attr, Fields, From, Mapper, class, constant, crud, first, first_in, is_ip, is_no_ip, when};

pub(crate) static MAPPER: Mapper = Mapper {
    attrs: ATTRS,
    needs: &["eventName", "eventSource", "errorCode", "responseElements.ConsoleLogin"],
    classify,
    status,
};

const SUBJECT: &[i64] = &[class::ACCOUNT_CHANGE, class::USER_ACCESS, class::GROUP_MANAGEMENT];

const ATTRS: &[Attr] = &[
    first(
        "actor.user.name",
        &[
            "userIdentity.userName",
            "userIdentity.sessionContext.sessionIssuer.userName",
            "userIdentity.invokedBy",
            "$actor",
        ],
    ),
    first("actor.user.uid", &["userIdentity.arn"]),
    first("actor.user.uid_alt", &["userIdentity.principalId"]),
    first("actor.user.type", &["userIdentity.type"]),
    first("actor.user.account.uid", &["userIdentity.accountId"]),
    first("actor.user.credential_uid", &["userIdentity.accessKeyId"]),
    first("actor.invoked_by", &["userIdentity.invokedBy"]),
    first("actor.session.issuer", &["userIdentity.sessionContext.sessionIssuer.arn"]),
    first("actor.session.is_mfa", &["userIdentity.sessionContext.attributes.mfaAuthenticated"]),
    first("actor.session.created_time_dt", &["userIdentity.sessionContext.attributes.creationDate"]),
    first("api.operation", &["eventName"]),
    first("api.service.name", &["eventSource"]),
    first("api.version", &["apiVersion"]),
    first("api.request.uid", &["requestID"]),
    first("api.response.error", &["errorCode"]),
    first("api.response.error_message", &["errorMessage"]),
    when("src_endpoint.ip", &["sourceIPAddress"], is_ip),
    when("src_endpoint.domain", &["sourceIPAddress"], is_no_ip),
    first("http_request.user_agent", &["userAgent"]),
    constant("cloud.provider", "AWS"),
    first("cloud.region", &["awsRegion"]),
    first("cloud.account.uid", &["recipientAccountId"]),
    first("metadata.uid", &["eventID", "$event_id"]),
    first("metadata.event_code", &["eventType"]),
    first("metadata.log_version", &["eventVersion"]),
    first("metadata.original_time", &["eventTime", "@timestamp"]),
    first_in(SUBJECT, "user.name", &["requestParameters.userName", "requestParameters.roleName"]),
    first_in(&[class::AUTHENTICATION], "user.name", &["userIdentity.userName", "$actor"]),
    first_in(&[class::AUTHENTICATION], "service.name", &["eventSource"]),
    first_in(SUBJECT, "group.name", &["requestParameters.groupName"]),
    first_in(SUBJECT, "policy.uid", &["requestParameters.policyArn"]),
    Attr {
        name: "is_mfa",
        from: From::Derived(&["additionalEventData.MFAUsed"], is_mfa),
        classes: &[class::AUTHENTICATION],
    },
];

fn is_mfa<'a>(fields: &'a Fields<'a>) -> Option<Cow<'a, str>> {
    fields
        .get("additionalEventData.MFAUsed")
        .map(|used| Cow::Borrowed(if used.eq_ignore_ascii_case("yes") || used == "true" { "true" } else { "false" }))
}

fn classify(fields: &Fields<'_>) -> (i64, i64) {
    let name = fields.get("eventName").unwrap_or(fields.row().signal_type);
    match fields.get("eventSource").unwrap_or_default() {
        "signin.amazonaws.com" => match name {
            "ConsoleLogin" | "SwitchRole" | "ExitRole" | "CheckMfa" => return (class::AUTHENTICATION, 1),
            "ConsoleLogout" => return (class::AUTHENTICATION, 2),
            _ => {}
        },
        "iam.amazonaws.com" => {
            let known = match name {
                "CreateUser" => (class::ACCOUNT_CHANGE, 1),
                "CreateLoginProfile" => (class::ACCOUNT_CHANGE, 2),
                "ChangePassword" => (class::ACCOUNT_CHANGE, 3),
                "UpdateLoginProfile" => (class::ACCOUNT_CHANGE, 4),
                "DeleteLoginProfile" => (class::ACCOUNT_CHANGE, 5),
                "DeleteUser" => (class::ACCOUNT_CHANGE, 6),
                "AttachUserPolicy" | "PutUserPolicy" => (class::ACCOUNT_CHANGE, 7),
                "DetachUserPolicy" | "DeleteUserPolicy" => (class::ACCOUNT_CHANGE, 8),
                "EnableMFADevice" => (class::ACCOUNT_CHANGE, 10),
                "DeactivateMFADevice" => (class::ACCOUNT_CHANGE, 11),
                "AttachGroupPolicy" | "PutGroupPolicy" => (class::GROUP_MANAGEMENT, 1),
                "DetachGroupPolicy" | "DeleteGroupPolicy" => (class::GROUP_MANAGEMENT, 2),
                "AddUserToGroup" => (class::GROUP_MANAGEMENT, 3),
                "RemoveUserFromGroup" => (class::GROUP_MANAGEMENT, 4),
                "DeleteGroup" => (class::GROUP_MANAGEMENT, 5),
                "CreateGroup" => (class::GROUP_MANAGEMENT, 6),
                _ => (class::API_ACTIVITY, crud(name)),
            };
            return known;
        }
        _ => {}
    }
    (class::API_ACTIVITY, crud(name))
}

fn status(fields: &Fields<'_>) -> Option<bool> {
    let login_failed = fields.get("responseElements.ConsoleLogin") == Some("Failure");
    Some(!login_failed && fields.get("errorCode").is_none())
}
