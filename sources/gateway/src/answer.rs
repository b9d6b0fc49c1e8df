//! Responses as values that can be stored and replayed, and the report of what became of a batch.

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Serialize;

use crate::{
    event::{Cause, Refusal},
    problem::{self, Problem},
};

/// A whole response.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub media_type: &'static str,
    pub body: Bytes,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// What became of one event.
#[derive(Debug, Serialize)]
pub struct EventResult {
    /// Position in the request, from 0.
    pub index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Outcome {
    /// Kafka has it, there.
    Accepted { topic: String, partition: i32, offset: i64 },
    /// It was not taken.
    Rejected {
        problem: Problem,
        #[serde(skip)]
        cause: Cause,
    },
}

#[derive(Serialize)]
struct Report<'a> {
    accepted: usize,
    rejected: usize,
    results: &'a [EventResult],
}

#[derive(Serialize)]
struct ProblemReport<'a> {
    #[serde(flatten)]
    problem: &'a Problem,
    #[serde(flatten)]
    report: Report<'a>,
}

impl From<Refusal> for EventResult {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal.cause {
            Cause::Event(_) => problem::INVALID_EVENT,
            Cause::Scope => problem::OUT_OF_SCOPE,
            Cause::Undelivered => problem::BROKER_UNAVAILABLE,
        };
        let problem = Problem::new(kind, refusal.detail).field(refusal.field).reason(refusal.cause.as_str());
        Self {
            index: refusal.index,
            event_id: refusal.event_id,
            outcome: Outcome::Rejected { problem, cause: refusal.cause },
        }
    }
}

impl Answer {
    /// The answer to a batch: 202 if anything was accepted, 503 if Kafka owes an acknowledgement,
    /// else what the refusals have in common. `results` are in request order.
    pub fn report(results: &[EventResult]) -> Self {
        let causes: Vec<Cause> = results.iter().filter_map(EventResult::cause).collect();
        let accepted = results.len() - causes.len();
        let report = Report { accepted, rejected: causes.len(), results };
        let problem = if causes.contains(&Cause::Undelivered) {
            Problem::new(
                problem::BROKER_UNAVAILABLE,
                "Send the events not listed as accepted again; sending all of them again is safe too.",
            )
            .reason(Cause::Undelivered.as_str())
            .retry_after(crate::producer::RETRY_AFTER)
        } else if accepted > 0 {
            return Self::json(StatusCode::ACCEPTED, "application/json", &report);
        } else if causes.iter().all(|c| *c == Cause::Scope) {
            Problem::new(problem::OUT_OF_SCOPE, "The token reaches none of the events; see results.")
                .reason(Cause::Scope.as_str())
        } else {
            Problem::new(problem::REJECTED, "Every event was refused; see results for each reason.")
        };
        let headers = problem.headers();
        let answer = Self::json(problem.status(), problem::MEDIA_TYPE, &ProblemReport { problem: &problem, report });
        Self { headers, ..answer }
    }

    fn json(status: StatusCode, media_type: &'static str, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(body) => Self { status, media_type, body: body.into(), headers: Vec::new() },
            Err(error) => {
                tracing::error!(%error, "cannot write a response");
                let body = Bytes::from_static(br#"{"type":"about:blank","status":500}"#);
                Self {
                    status: StatusCode::INTERNAL_SERVER_ERROR,
                    media_type: problem::MEDIA_TYPE,
                    body,
                    headers: vec![],
                }
            }
        }
    }
}

impl EventResult {
    pub fn cause(&self) -> Option<Cause> {
        match self.outcome {
            Outcome::Accepted { .. } => None,
            Outcome::Rejected { cause, .. } => Some(cause),
        }
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        let answer = Self::json(problem.status(), problem::MEDIA_TYPE, &problem);
        Self { headers: problem.headers(), ..answer }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        response.headers_mut().extend(self.headers);
        response
    }
}
