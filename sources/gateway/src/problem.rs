//! Errors as RFC 9457 problems: what is wrong, in words and in a stable, machine-readable form.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// Media type of every error body.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// A kind of problem; its URN is the stable name clients may match on.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    urn: &'static str,
    title: &'static str,
    status: StatusCode,
}

macro_rules! kinds {
    ($($name:ident $slug:literal $title:literal $status:ident;)*) => {
        $(pub const $name: Kind = Kind {
            urn: concat!("urn:companyos:problem:", $slug), title: $title, status: StatusCode::$status,
        };)*
    };
}

kinds! {
    INVALID_REQUEST "invalid-request" "The request cannot be read" BAD_REQUEST;
    UNAUTHENTICATED "unauthenticated" "A valid bearer token is needed" UNAUTHORIZED;
    NOT_PERMITTED "not-permitted" "The token does not allow this" FORBIDDEN;
    OUT_OF_SCOPE "out-of-scope" "The token does not reach the event's tenant, environment or region" FORBIDDEN;
    NOT_FOUND "not-found" "There is nothing here" NOT_FOUND;
    METHOD_NOT_ALLOWED "method-not-allowed" "The method is not allowed here" METHOD_NOT_ALLOWED;
    BODY_TIMEOUT "body-timeout" "The body took too long to arrive" REQUEST_TIMEOUT;
    KEY_IN_USE "idempotency-key-in-use" "A request with this Idempotency-Key is under way" CONFLICT;
    KEY_REUSED "idempotency-key-reused" "The Idempotency-Key belongs to another request" UNPROCESSABLE_ENTITY;
    TOO_LARGE "too-large" "The request is larger than allowed" PAYLOAD_TOO_LARGE;
    UNSUPPORTED_MEDIA_TYPE "unsupported-media-type" "The body's type is not supported" UNSUPPORTED_MEDIA_TYPE;
    INVALID_EVENT "invalid-event" "The event breaks its contract" UNPROCESSABLE_ENTITY;
    REJECTED "all-events-rejected" "No event of the request was accepted" UNPROCESSABLE_ENTITY;
    RATE_LIMITED "rate-limited" "The tenant sends more than it may" TOO_MANY_REQUESTS;
    OVERLOADED "overloaded" "The gateway is at its limit" SERVICE_UNAVAILABLE;
    BROKER_UNAVAILABLE "broker-unavailable" "Kafka has not acknowledged every event" SERVICE_UNAVAILABLE;
    INTERNAL "internal-error" "The gateway failed" INTERNAL_SERVER_ERROR;
}

/// One problem, about a request or about one event of it.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    #[serde(rename = "type")]
    urn: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    /// The event's field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'static str>,
    /// Why, in the words of the quarantine table where the worker would say the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// When to come back; also sent as `Retry-After`.
    #[serde(skip)]
    retry_after: Option<Duration>,
    /// Sent as `WWW-Authenticate`.
    #[serde(skip)]
    challenge: Option<&'static str>,
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            urn: kind.urn,
            title: kind.title,
            status: kind.status.as_u16(),
            detail: detail.into(),
            field: None,
            reason: None,
            retry_after: None,
            challenge: None,
        }
    }

    pub fn field(mut self, field: Option<&'static str>) -> Self {
        self.field = field;
        self
    }

    pub fn reason(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }

    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub fn challenge(mut self, challenge: &'static str) -> Self {
        self.challenge = Some(challenge);
        self
    }

    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Headers that go with the problem.
    pub fn headers(&self) -> Vec<(header::HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        if let Some(wait) = self.retry_after {
            headers.push((header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait))));
        }
        if let Some(challenge) = self.challenge {
            headers.push((header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge)));
        }
        headers
    }
}

/// Seconds, rounded up and at least one: a client that comes back then is not too early.
pub fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_millis().div_ceil(1000) as u64).max(1)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        crate::answer::Answer::from(self).into_response()
    }
}
