//! The gateway role.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use companyos_source_gateway::{Gateway, ProducerConfig};
use tokio::net::TcpListener;

use super::Context;
use crate::config::Config;

/// Serves the gateway until told to stop, then drains it.
pub async fn run(context: Context) -> Result<()> {
    let listen = context.config.gateway.listen;
    let listener =
        TcpListener::bind(listen).await.with_context(|| format!("gateway.listen: cannot listen on {listen}"))?;
    serve(context, listener).await
}

/// The same on a listener that is already bound.
pub async fn serve(context: Context, listener: TcpListener) -> Result<()> {
    let config = &context.config;
    let tokens = Arc::new(config.token_registry()?);
    if config.access.tokens.is_empty() {
        tracing::warn!("no token is configured: every event will be refused");
    }
    let gateway = Gateway::new(config.gateway.gateway.clone(), config.shared_tenancy(), tokens, &producer(config))?;
    let check = gateway.clone();
    context.readiness.add("gateway", move || {
        let gateway = check.clone();
        async move { gateway.ready().await.map_err(|e| e.to_string()) }
    });
    tracing::info!(address = %listener.local_addr()?, "gateway is listening");
    Ok(gateway.serve(listener, context.shutdown.clone().cancelled_owned()).await?)
}

fn producer(config: &Config) -> ProducerConfig {
    ProducerConfig {
        bootstrap_servers: config.kafka.brokers.clone(),
        kafka: config.kafka.settings.clone(),
        ..ProducerConfig::default()
    }
}
