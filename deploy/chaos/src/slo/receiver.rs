//! A receiver of webhooks that fails before it accepts, and one that never accepts.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde_json::Value;
use standardwebhooks::Webhook;

/// The secret both receivers share with the product.
pub(crate) const SECRET: &str = "whsec_Y2hhb3MgcmVjZWl2ZXIncyBzZWNyZXQgb2YgMzIgYg==";
/// Attempts that the pager fails, over all messages.
pub(crate) const FAILS: usize = 3;

/// One attempt that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) id: String,
    pub(crate) body: Value,
    /// The reference implementation of Standard Webhooks says so.
    pub(crate) genuine: bool,
    pub(crate) accepted: bool,
}

/// Serves for as long as the process lives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Receiver {
    pager: Arc<Mutex<Vec<Attempt>>>,
}

impl Receiver {
    /// Listens; the address comes back.
    pub(crate) async fn start() -> Result<(Self, String)> {
        let receiver = Self::default();
        let router = Router::new()
            .route("/pager", post(page))
            .route("/deaf", post(async || StatusCode::SERVICE_UNAVAILABLE))
            .with_state(receiver.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok((receiver, address))
    }

    /// What the pager got so far.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.pager.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn page(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let genuine = Webhook::new(SECRET).is_ok_and(|webhook| webhook.verify(&body, &headers).is_ok());
    let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let mut attempts = receiver.pager.lock().unwrap_or_else(PoisonError::into_inner);
    let accepted = attempts.len() >= FAILS;
    attempts.push(Attempt { id, body, genuine, accepted });
    match accepted {
        true => StatusCode::NO_CONTENT,
        false => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
