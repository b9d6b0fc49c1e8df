//! `/v1/views`: the views there are, and making and dropping them, for the bearer of a token.
//!
//! - `GET` (permission `query`): a JSON array of names, streams, columns and whether each is ready.
//! - `POST` (permission `operate`): `CREATE [OR REPLACE] MATERIALIZED VIEW` or `DROP MATERIALIZED
//!   VIEW`, as `application/json` `{"sql": "…"}` or `text/plain`. 202 says that it is on record; the
//!   workers build it.
//!
//! Views are the deployment's, not a tenant's: each shows every tenant its own rows.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use companyos_pipelines::views::{RegistryError, View};
use companyos_schemas::access::{Permission, TokenRegistry};
use companyos_views::{ViewStatement, parse};
use serde_json::{Value, json};

use super::{
    problem::{self, Problem},
    request,
};
use crate::engine::QueryEngine;

struct Service {
    engine: Arc<QueryEngine>,
    tokens: TokenRegistry,
    shards: u32,
}

/// The views endpoint; `shards` is the number of shards the workers deal tenants into.
pub fn views_router(engine: Arc<QueryEngine>, tokens: TokenRegistry, shards: u32) -> Router {
    Router::new().route("/v1/views", get(list).post(change)).with_state(Arc::new(Service { engine, tokens, shards }))
}

async fn list(State(service): State<Arc<Service>>, headers: HeaderMap) -> Response {
    let answer = async {
        request::authorize(&service.tokens, &headers, Permission::Query)?;
        let views = service.engine.views().current().await.map_err(|e| super::problem_of(&e))?;
        Ok::<_, Problem>(Json(views.views().iter().map(|(name, view)| summary(name, view)).collect::<Vec<_>>()))
    };
    answer.await.into_response()
}

fn summary(name: &str, view: &View) -> Value {
    let newest = view.next.as_ref().or(view.current.as_ref());
    let columns = newest.map(|g| {
        let fields = g.plan.schema.fields().iter();
        fields.map(|f| json!({"name": f.name(), "type": f.data_type().to_string()})).collect::<Vec<_>>()
    });
    json!({
        "name": name,
        "stream": newest.map(|g| g.plan.stream.name()),
        "ready": view.current.is_some(),
        "building": view.next.is_some(),
        "columns": columns,
        "sql": newest.map(|g| g.sql.clone()),
    })
}

async fn change(State(service): State<Arc<Service>>, headers: HeaderMap, body: Bytes) -> Response {
    match carry_out(&service, &headers, &body).await {
        Ok(done) => (StatusCode::ACCEPTED, Json(done)).into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn carry_out(service: &Service, headers: &HeaderMap, body: &[u8]) -> Result<Value, Problem> {
    let grant = request::authorize(&service.tokens, headers, Permission::Operate)?;
    let (sql, _) = request::statement(headers, body)?;
    let refused = |error: &dyn std::fmt::Display| Problem::new(problem::INVALID_SQL, error.to_string());
    let views = service.engine.views();
    let (name, changed) = match parse(&sql).map_err(|e| refused(&e))? {
        ViewStatement::Create { name, sql, .. } => {
            let regions: BTreeSet<String> = service.engine.regions().map(str::to_owned).collect();
            let changed = views.create(&sql, regions, service.shards).await.map_err(|e| problem_of(&e))?;
            (name, changed)
        }
        ViewStatement::Drop { name, if_exists } => match views.drop_view(&name).await {
            Ok(()) => (name, true),
            Err(RegistryError::Unknown(_)) if if_exists => (name, false),
            Err(error) => return Err(problem_of(&error)),
        },
        _ => {
            return Err(Problem::new(
                problem::NOT_ALLOWED,
                "Send CREATE or DROP MATERIALIZED VIEW; GET lists the views.",
            ));
        }
    };
    tracing::info!(token = %grant.id, view = name, changed, "views changed by request");
    Ok(json!({"view": name, "changed": changed}))
}

fn problem_of(error: &RegistryError) -> Problem {
    let kind = match error {
        RegistryError::View(_) | RegistryError::Unknown(_) | RegistryError::UnknownDimension(_) => problem::INVALID_SQL,
        RegistryError::Exists(_) | RegistryError::NameTaken(..) | RegistryError::InUse { .. } => problem::CONFLICT,
        RegistryError::Store(_) | RegistryError::Entry { .. } => {
            tracing::error!(%error, "the registry of views cannot be changed");
            return Problem::new(problem::STORAGE, "The registry of views could not be reached; try again.");
        }
    };
    Problem::new(kind, error.to_string())
}
