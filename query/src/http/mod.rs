//! `POST /v1/sql`: a statement in, rows out, for the bearer of a token.

mod problem;
mod reply;
mod request;
mod views;

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use companyos_schemas::access::{Permission, TokenRegistry};

use crate::{engine::QueryEngine, error::QueryError};
use problem::Problem;
pub use views::views_router;

struct Service {
    engine: Arc<QueryEngine>,
    tokens: TokenRegistry,
}

/// JSON around a statement and its parameters may be this much longer than the statement.
const BODY_OVER_STATEMENT: usize = 2;

/// The query endpoint.
///
/// - Body: `application/json` `{"sql": "…", "params": […]}` or `text/plain` SQL. Parameters are
///   null, booleans, numbers and strings, for `$1`, `$2`, ….
/// - `Accept`: `application/json` (default), `application/x-ndjson`, `text/csv`,
///   `application/vnd.apache.arrow.stream`.
/// - `X-Snapshot` names the table versions read, `X-Truncated: true` a result known to be cut when
///   the headers were sent; see [`crate::format`] for how each format says it at the end.
/// - Errors are RFC 9457 problems. One found after rows were sent ends the body as the format can.
pub fn router(engine: Arc<QueryEngine>, tokens: TokenRegistry) -> Router {
    let limit = engine.config().max_statement_bytes.saturating_mul(BODY_OVER_STATEMENT).saturating_add(64 << 10);
    Router::new()
        .route("/v1/sql", post(run))
        .layer(DefaultBodyLimit::max(limit))
        .with_state(Arc::new(Service { engine, tokens }))
}

async fn run(State(service): State<Arc<Service>>, headers: HeaderMap, body: Result<Bytes, BytesRejection>) -> Response {
    match answer(&service, &headers, body).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn answer(
    service: &Service,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let grant = request::authorize(&service.tokens, headers, Permission::Query)?;
    let format = request::accepted(headers)?;
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(problem::TOO_LARGE, "The body is longer than any statement may be.")
        }
        _ => Problem::new(problem::INVALID_REQUEST, "The body could not be read."),
    })?;
    let (sql, params) = request::statement(headers, &body)?;
    tracing::debug!(token = %grant.id, tenant = %grant.scope.tenant, bytes = sql.len(), "query");
    let result = service.engine.query(&grant.scope, &sql, params).await.map_err(|e| problem_of(&e))?;
    reply::reply(result, format).await
}

/// What a failed query is answered.
fn problem_of(error: &QueryError) -> Problem {
    let kind = match error {
        QueryError::Sql(_) => problem::INVALID_SQL,
        QueryError::NotAllowed(_) => problem::NOT_ALLOWED,
        QueryError::StatementTooLong { .. } => problem::TOO_LARGE,
        QueryError::UnknownTenant => problem::NOT_PERMITTED,
        QueryError::Evaluation(_) => problem::EVALUATION,
        QueryError::Busy { .. } => problem::BUSY,
        QueryError::Timeout { .. } => problem::TIMEOUT,
        QueryError::Memory => problem::MEMORY,
        QueryError::Truncated(_) => problem::TRUNCATED,
        QueryError::Storage => problem::STORAGE,
        QueryError::Internal => problem::INTERNAL,
    };
    Problem::new(kind, error.to_string())
}
