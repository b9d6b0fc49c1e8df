//! The query role.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use companyos_pipelines::WorkerSetup;
use companyos_query::QueryEngine;
use tokio::net::TcpListener;

use super::{Context, maintain::storage_answers};
use crate::telemetry;

/// Serves SQL until told to stop.
pub async fn run(context: Context) -> Result<()> {
    let listen = context.config.query.listen;
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("query.listen: cannot listen on {listen}"))?;
    serve(context, listener).await
}

/// The same on a listener that is already bound.
pub async fn serve(context: Context, listener: TcpListener) -> Result<()> {
    let config = &context.config;
    let tokens = config.token_registry()?;
    if config.access.tokens.is_empty() {
        tracing::warn!("no token is configured: every query will be refused");
    }
    let storages = WorkerSetup::storages(&config.tenancy)?;
    let engine = Arc::new(QueryEngine::new(config.query.clone(), config.shared_tenancy(), storages.clone())?);
    let storages = Arc::new(storages);
    context.readiness.add("query", move || storage_answers(storages.clone()));
    tracing::info!(address = %listener.local_addr()?, "query server is listening");
    let shutdown = context.shutdown.clone();
    let views = companyos_query::views_router(engine.clone(), config.token_registry()?, config.tasks.shards);
    let router =
        companyos_query::router(engine, tokens).merge(views).layer(axum::middleware::from_fn(telemetry::http::trace));
    let drained = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let grace = async {
        shutdown.cancelled().await;
        tokio::time::sleep(config.query.statement_timeout().min(LONGEST_DRAIN)).await;
    };
    tokio::select! {
        served = async { drained.await } => served.context("query server"),
        () = grace => {
            tracing::warn!("queries were still running when the shutdown's grace ended");
            Ok(())
        }
    }
}

/// How long a shutdown waits for running queries.
const LONGEST_DRAIN: std::time::Duration = std::time::Duration::from_secs(20);
