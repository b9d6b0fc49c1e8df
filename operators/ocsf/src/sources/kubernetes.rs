//! Kubernetes' API server audit log (`audit.k8s.io/v1`).

use crate::mapping::{Attr, Fields, Mapper, OTHER, class, first};

pub(crate) static MAPPER: Mapper = Mapper {
    attrs: ATTRS,
    needs: &["verb", "responseStatus.code", "annotations.authorization.k8s.io/decision"],
    classify,
    status,
};

const ATTRS: &[Attr] = &[
    first("actor.user.name", &["user.username", "$actor"]),
    first("actor.user.uid", &["user.uid"]),
    first("actor.user.groups[].name", &["user.groups[0]"]),
    first("actor.authorizations[].decision", &["annotations.authorization.k8s.io/decision"]),
    first("actor.authorizations[].policy.desc", &["annotations.authorization.k8s.io/reason"]),
    first("api.operation", &["verb"]),
    first("api.version", &["objectRef.apiVersion"]),
    first("api.group.name", &["objectRef.apiGroup"]),
    first("api.request.uid", &["auditID"]),
    first("api.response.code", &["responseStatus.code"]),
    first("api.response.message", &["responseStatus.message"]),
    first("api.response.error", &["responseStatus.reason"]),
    first("resources[].type", &["objectRef.resource"]),
    first("resources[].name", &["objectRef.name"]),
    first("resources[].namespace", &["objectRef.namespace"]),
    first("resources[].uid", &["objectRef.uid"]),
    first("src_endpoint.ip", &["sourceIPs[0]"]),
    first("http_request.user_agent", &["userAgent"]),
    first("http_request.url.path", &["requestURI"]),
    first("metadata.uid", &["auditID", "$event_id"]),
    first("metadata.event_code", &["stage"]),
    first("metadata.log_level", &["level"]),
    first("metadata.original_time", &["requestReceivedTimestamp", "stageTimestamp"]),
];

fn classify(fields: &Fields<'_>) -> (i64, i64) {
    let activity = match fields.get("verb").unwrap_or_default() {
        "create" => 1,
        "get" | "list" | "watch" => 2,
        "update" | "patch" => 3,
        "delete" | "deletecollection" => 4,
        _ => OTHER,
    };
    (class::API_ACTIVITY, activity)
}

fn status(fields: &Fields<'_>) -> Option<bool> {
    if fields.get("annotations.authorization.k8s.io/decision") == Some("forbid") {
        return Some(false);
    }
    fields.get("responseStatus.code")?.parse::<u16>().ok().map(|code| code < 400)
}
