//! What a request says: who asks, in which form it wants the answer, and what it asks.

use axum::http::{HeaderMap, HeaderValue, header};
use chrono::Utc;
use companyos_schemas::access::{AccessError, Permission, TokenGrant, TokenRegistry};
use datafusion::scalar::ScalarValue;
use serde::Deserialize;
use serde_json::Value;

use super::problem::{self, Problem};
use crate::format::Format;

/// The grant of the bearer token, if it allows this.
pub(super) fn authorize<'a>(
    tokens: &'a TokenRegistry,
    headers: &HeaderMap,
    permission: Permission,
) -> Result<&'a TokenGrant, Problem> {
    let token = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| token.trim())
    });
    let Some(token) = token else {
        return Err(Problem::new(
            problem::UNAUTHENTICATED,
            "Send Authorization: Bearer with a token that allows this.",
        )
        .challenge("Bearer realm=\"companyos\""));
    };
    tokens.authorize(token, permission, Utc::now()).map_err(|error| match error {
        AccessError::InvalidToken => Problem::new(problem::UNAUTHENTICATED, error.to_string())
            .challenge("Bearer realm=\"companyos\", error=\"invalid_token\""),
        AccessError::NotPermitted => Problem::new(problem::NOT_PERMITTED, error.to_string())
            .challenge("Bearer realm=\"companyos\", error=\"insufficient_scope\""),
    })
}

/// The format with the highest `q` in `Accept`; the first of equals; JSON if nothing is asked for.
pub(super) fn accepted(headers: &HeaderMap) -> Result<Format, Problem> {
    let values: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    if values.is_empty() {
        return Ok(Format::Json);
    }
    let mut best: Option<(f32, Format)> = None;
    for entry in values.iter().flat_map(|v| v.split(',')) {
        let mut parts = entry.split(';').map(str::trim);
        let format = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "application/json" | "application/*" | "*/*" => Format::Json,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Format::NdJson,
            "text/csv" | "text/*" => Format::Csv,
            "application/vnd.apache.arrow.stream" => Format::Arrow,
            _ => continue,
        };
        let weight = parts.find_map(|p| p.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
        if weight > best.map_or(0.0, |(w, _)| w) {
            best = Some((weight, format));
        }
    }
    best.map(|(_, format)| format).ok_or_else(|| {
        Problem::new(
            problem::NOT_ACCEPTABLE,
            "Accept application/json, application/x-ndjson, text/csv or application/vnd.apache.arrow.stream.",
        )
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatementBody {
    sql: String,
    #[serde(default)]
    params: Vec<Value>,
}

/// The SQL and its parameters.
pub(super) fn statement(headers: &HeaderMap, body: &[u8]) -> Result<(String, Vec<ScalarValue>), Problem> {
    let media_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or(b"application/json");
    let media_type = String::from_utf8_lossy(media_type).to_ascii_lowercase();
    let invalid = |detail: String| Problem::new(problem::INVALID_REQUEST, detail);
    let (sql, params) = match media_type.split(';').next().unwrap_or_default().trim() {
        "application/json" => {
            let body: StatementBody = serde_json::from_slice(body).map_err(|e| invalid(e.to_string()))?;
            let params = body.params.iter().enumerate();
            let params = params.map(|(i, v)| {
                scalar(v).ok_or_else(|| invalid(format!("params[{i}] must be null, a boolean, a number or a string")))
            });
            (body.sql, params.collect::<Result<_, _>>()?)
        }
        "text/plain" | "application/sql" => {
            let sql = std::str::from_utf8(body).map_err(|_| invalid("The statement is not UTF-8.".to_owned()))?;
            (sql.to_owned(), Vec::new())
        }
        _ => return Err(Problem::new(problem::UNSUPPORTED_MEDIA_TYPE, "Send application/json or text/plain.")),
    };
    match sql.trim().is_empty() {
        true => Err(invalid("There is no statement.".to_owned())),
        false => Ok((sql, params)),
    }
}

fn scalar(value: &Value) -> Option<ScalarValue> {
    match value {
        Value::Null => Some(ScalarValue::Null),
        Value::Bool(b) => Some(ScalarValue::Boolean(Some(*b))),
        Value::String(s) => Some(ScalarValue::Utf8View(Some(s.clone()))),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Some(ScalarValue::Int64(Some(i))),
            (None, Some(u)) => Some(ScalarValue::UInt64(Some(u))),
            (None, None) => Some(ScalarValue::Float64(n.as_f64())),
        },
        Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &'static str) -> Option<Format> {
        let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))]);
        accepted(&headers).ok()
    }

    #[test]
    fn the_best_weighted_known_type_is_chosen() {
        assert_eq!(accept("text/html, text/csv;q=0.5, application/x-ndjson;q=0.9"), Some(Format::NdJson));
        assert_eq!(accept("*/*"), Some(Format::Json));
        assert_eq!(accept("text/csv;q=0, image/png"), None);
        assert_eq!(accepted(&HeaderMap::new()).ok(), Some(Format::Json));
    }
}
