//! Errors as RFC 9457 problems, with the same URNs and members as the gateway's.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// A kind of problem; its URN is the stable name clients may match on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    urn: &'static str,
    title: &'static str,
    status: StatusCode,
}

macro_rules! kinds {
    ($($name:ident $slug:literal $title:literal $status:ident;)*) => {
        $(pub(super) const $name: Kind = Kind {
            urn: concat!("urn:companyos:problem:", $slug), title: $title, status: StatusCode::$status,
        };)*
    };
}

kinds! {
    INVALID_REQUEST "invalid-request" "The request cannot be read" BAD_REQUEST;
    INVALID_SQL "invalid-sql" "The statement cannot be planned" BAD_REQUEST;
    NOT_ALLOWED "statement-not-allowed" "The statement is of a kind that is not offered" BAD_REQUEST;
    EVALUATION "evaluation-failed" "Evaluating the statement failed" BAD_REQUEST;
    UNAUTHENTICATED "unauthenticated" "A valid bearer token is needed" UNAUTHORIZED;
    NOT_PERMITTED "not-permitted" "The token does not allow this" FORBIDDEN;
    NOT_ACCEPTABLE "not-acceptable" "The result has no form you accept" NOT_ACCEPTABLE;
    CONFLICT "conflict" "It is there already" CONFLICT;
    TOO_LARGE "too-large" "The request is larger than allowed" PAYLOAD_TOO_LARGE;
    UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" "The body's type is not supported" UNSUPPORTED_MEDIA_TYPE;
    BUSY "too-many-queries" "The tenant runs as many queries as it may" TOO_MANY_REQUESTS;
    TRUNCATED "result-truncated" "The result is longer than allowed" OK;
    INTERNAL "internal-error" "The query failed" INTERNAL_SERVER_ERROR;
    STORAGE "storage-unavailable" "The tables could not be read" SERVICE_UNAVAILABLE;
    TIMEOUT "statement-timeout" "The query took too long" GATEWAY_TIMEOUT;
    MEMORY "out-of-memory" "The query needs more memory than there is" INSUFFICIENT_STORAGE;
}

/// One problem.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Problem {
    #[serde(rename = "type")]
    urn: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(skip)]
    challenge: Option<&'static str>,
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { urn: kind.urn, title: kind.title, status: kind.status.as_u16(), detail: detail.into(), challenge: None }
    }

    /// Sent as `WWW-Authenticate`.
    pub fn challenge(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }

    /// As a value, for the end of a body.
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, self.to_value().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        // A place is free again as soon as any of the tenant's queries ends.
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
