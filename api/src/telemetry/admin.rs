//! The admin listener: /metrics, /healthz and /readyz. No tenant's data, so no token.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Readiness, metrics};

/// What the admin listener shows.
#[derive(Clone)]
pub struct Admin {
    /// Metrics recorded so far.
    pub metrics: PrometheusHandle,
    /// Checks of all roles.
    pub readiness: Readiness,
}

/// Serves in the background until `shutdown`; returns where. Empty `listen` serves nothing.
pub async fn serve(listen: &str, admin: Admin, shutdown: CancellationToken) -> Result<Option<SocketAddr>> {
    if listen.is_empty() {
        return Ok(None);
    }
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("telemetry.listen: cannot listen on {listen}"))?;
    serve_on(listener, admin, shutdown).map(Some)
}

/// The same on a listener that is already bound.
pub fn serve_on(listener: TcpListener, admin: Admin, shutdown: CancellationToken) -> Result<SocketAddr> {
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let server = axum::serve(listener, router(admin)).with_graceful_shutdown(shutdown.cancelled_owned());
        if let Err(error) = server.await {
            tracing::error!(%error, "the admin listener failed");
        }
    });
    tracing::info!(%address, "metrics and health are served");
    Ok(address)
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/readyz", get(readyz))
        .with_state(admin)
}

async fn show_metrics(State(admin): State<Admin>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::render(&admin.metrics))
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    let answers = admin.readiness.ask().await;
    let ready = !answers.is_empty() && answers.iter().all(|(_, problem)| problem.is_none());
    let roles: Map<String, Value> = answers
        .into_iter()
        .map(|(role, problem)| (role.to_owned(), problem.map_or_else(|| json!("ready"), Value::String)))
        .collect();
    let (status, word) = match ready {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(json!({"status": word, "roles": roles})))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[tokio::test]
    async fn ready_means_every_role_says_so() {
        let readiness = Readiness::default();
        let admin = Admin { metrics: PrometheusBuilder::new().build_recorder().handle(), readiness: readiness.clone() };
        let shutdown = CancellationToken::new();
        let address = serve("127.0.0.1:0", admin, shutdown.clone()).await.unwrap().unwrap();
        let ask = async |path: &str| {
            let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        assert_eq!(ask("/healthz").await.0, 200);
        assert_eq!(ask("/readyz").await.0, 503, "a process without roles does no work");
        static STORED: AtomicBool = AtomicBool::new(false);
        readiness.add("gateway", || async { Ok(()) });
        readiness.add("worker", || async {
            STORED.load(Ordering::Relaxed).then_some(()).ok_or_else(|| "cannot commit".to_owned())
        });
        let (status, body) = ask("/readyz").await;
        assert_eq!(status, 503);
        assert!(body.contains(r#""worker":"cannot commit""#) && body.contains(r#""gateway":"ready""#), "{body}");
        STORED.store(true, Ordering::Relaxed);
        assert_eq!(ask("/readyz").await.0, 200);
        shutdown.cancel();
    }
}
