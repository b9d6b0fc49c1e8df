//! A result as a response: the first part decides the status, the rest streams.
//!
//! Up to [`HEAD_BYTES`] are made before the headers go out, so that a query that fails early, or is
//! small, is answered with its true status. Later errors end the body as its format can: in words,
//! or by breaking the transfer off, so that a cut result never looks whole.

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};

use super::{
    problem::{self, Problem},
    problem_of,
};
use crate::{
    engine::QueryResult,
    error::QueryError,
    format::{Encoder, Format},
    rows::RowStream,
    snapshots::TableVersion,
};

/// Bytes made before the status is decided.
const HEAD_BYTES: usize = 1 << 20;

/// Table versions read: `table@region=version`, archives as `table@region/archive=version`.
const SNAPSHOT: HeaderName = HeaderName::from_static("x-snapshot");
/// `true` on a result that was cut before the headers were sent.
const TRUNCATED: HeaderName = HeaderName::from_static("x-truncated");

pub(super) async fn reply(result: QueryResult, format: Format) -> Result<Response, Problem> {
    let QueryResult { schema, versions, mut rows } = result;
    let unsupported = |e: arrow::error::ArrowError| Problem::new(problem::NOT_ACCEPTABLE, e.to_string());
    let mut encoder = Encoder::new(format, &schema).map_err(unsupported)?;
    let mut headers = headers(format, &versions);
    let mut head = Vec::new();
    encoder.begin(&versions, &mut head).map_err(unsupported)?;
    while head.len() < HEAD_BYTES {
        match rows.next().await {
            Some(Ok(batch)) => encoder.batch(&batch, &mut head).map_err(unsupported)?,
            None => {
                finish(&mut encoder, None, &mut head);
                return Ok((headers, head).into_response());
            }
            Some(Err(error @ QueryError::Truncated(_))) => {
                headers.insert(TRUNCATED, HeaderValue::from_static("true"));
                finish(&mut encoder, Some(&error), &mut head);
                let parts = [Ok(Bytes::from(head)), Err(error)];
                let parts = parts.into_iter().take(if format.marks_errors() { 1 } else { 2 });
                return Ok((headers, Body::from_stream(stream::iter(parts))).into_response());
            }
            Some(Err(error)) => return Err(problem_of(&error)),
        }
    }
    let rest = stream::unfold(Some((rows, encoder, format)), |state| async move {
        let (mut rows, mut encoder, format) = state?;
        let (chunk, go_on) = next_chunk(&mut rows, &mut encoder, format).await;
        Some((chunk, go_on.then_some((rows, encoder, format))))
    });
    // An error item needs a chunk before it, so every end is one or two items.
    let body = stream::iter([vec![Ok(Bytes::from(head))]]).chain(rest).flat_map(stream::iter);
    Ok((headers, Body::from_stream(body)).into_response())
}

/// The next bytes, and whether more may follow.
async fn next_chunk(
    rows: &mut RowStream,
    encoder: &mut Encoder,
    format: Format,
) -> (Vec<Result<Bytes, QueryError>>, bool) {
    let mut out = Vec::new();
    let error = match rows.next().await {
        Some(Ok(batch)) => match encoder.batch(&batch, &mut out) {
            Ok(()) => return (vec![Ok(out.into())], true),
            Err(error) => Some(QueryError::Evaluation(error.to_string())),
        },
        Some(Err(error)) => Some(error),
        None => None,
    };
    finish(encoder, error.as_ref(), &mut out);
    let mut items = vec![Ok(out.into())];
    if let Some(error) = error.filter(|_| !format.marks_errors()) {
        items.push(Err(error));
    }
    (items, false)
}

fn finish(encoder: &mut Encoder, error: Option<&QueryError>, out: &mut Vec<u8>) {
    let problem = error.map(|e| problem_of(e).to_value());
    if let Err(error) = encoder.end(error, problem.as_ref(), out) {
        tracing::error!(%error, "the end of a result cannot be encoded");
    }
}

fn headers(format: Format, versions: &[TableVersion]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let snapshot: Vec<String> = versions
        .iter()
        .map(|v| format!("{}@{}{}={}", v.table, v.region, if v.archive { "/archive" } else { "" }, v.version))
        .collect();
    if let Ok(value) = HeaderValue::from_str(&snapshot.join(", ")) {
        headers.insert(SNAPSHOT, value);
    }
    headers
}
