//! The gateway as a whole: made once, served until told to stop, then drained.

use std::{
    future::{Future, IntoFuture},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use companyos_schemas::{Stream, access::TokenRegistry, tenancy::Tenancy};
use rdkafka::error::KafkaError;
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::task::TaskTracker;

use crate::{
    GatewayConfig, GatewayError, ProducerConfig,
    admission::Admission,
    answer::Answer,
    idempotency::IdempotencyCache,
    ingest::ingest,
    openapi,
    problem::{self, Problem},
    producer::EventProducer,
    rate::TenantRates,
    telemetry,
};

/// How long a readiness verdict is repeated before the broker is asked again: the endpoint is open
/// to anyone.
const READY_FOR: Duration = Duration::from_secs(1);

/// The HTTP event gateway. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

/// What all requests share.
pub struct Shared {
    pub config: GatewayConfig,
    pub tenancy: Arc<Tenancy>,
    pub tokens: Arc<TokenRegistry>,
    pub producer: Arc<EventProducer>,
    pub rates: TenantRates,
    pub idempotency: Arc<IdempotencyCache>,
    pub admission: Arc<Admission>,
    /// Requests whose body has arrived; they are finished even if the client is gone.
    pub tasks: TaskTracker,
    draining: AtomicBool,
    /// When the broker was last asked, and what came of it.
    asked: tokio::sync::Mutex<Option<(Instant, Result<(), KafkaError>)>>,
}

impl Gateway {
    /// Checks the configuration and makes the producer. The broker need not be up yet: see
    /// [`Gateway::ready`].
    pub fn new(
        config: GatewayConfig,
        tenancy: Arc<Tenancy>,
        tokens: Arc<TokenRegistry>,
        producer: &ProducerConfig,
    ) -> Result<Self, GatewayError> {
        config.validate()?;
        telemetry::describe();
        let shared = Shared {
            producer: Arc::new(EventProducer::new(producer, config.limits.max_event_bytes)?),
            rates: TenantRates::new(&config.rates, &tenancy),
            idempotency: Arc::new(IdempotencyCache::new(config.idempotency.clone())),
            admission: Arc::new(Admission::new(config.limits.max_requests, config.limits.max_in_flight_bytes)),
            tasks: TaskTracker::new(),
            draining: AtomicBool::new(false),
            asked: tokio::sync::Mutex::new(None),
            config,
            tenancy,
            tokens,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The endpoints, to be served alone or merged into another router.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/v1/events", post(post_product_events))
            .route("/v1/events/{stream}", post(post_events))
            .route("/openapi.json", get(|| async { Json(openapi::document()) }))
            .route("/healthz", get(|| async { Json(serde_json::json!({"status": "ok"})) }))
            .route("/readyz", get(readyz))
            .fallback(|| async { Problem::new(problem::NOT_FOUND, "See /openapi.json for what there is.") })
            .method_not_allowed_fallback(|| async {
                Problem::new(problem::METHOD_NOT_ALLOWED, "See the Allow header for what is allowed.")
            })
            .with_state(self.clone())
    }

    /// Serves until `shutdown` completes, then takes no new requests, finishes those under way
    /// (for at most `limits.shutdown_grace`) and waits for Kafka to have their events.
    pub async fn serve<F>(&self, listener: TcpListener, shutdown: F) -> Result<(), GatewayError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let grace = self.shared.config.limits.shutdown_grace;
        let (stopping, stopped) = oneshot::channel::<()>();
        let shared = self.shared.clone();
        let signal = async move {
            shutdown.await;
            shared.draining.store(true, Ordering::Release);
            drop(stopping);
        };
        let server = axum::serve(listener, self.router()).with_graceful_shutdown(signal).into_future();
        let deadline = async {
            // Nothing is ever sent: the channel closes when draining begins.
            let _ = stopped.await;
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            served = server => served?,
            () = deadline => tracing::warn!(?grace, "connections were still open when the shutdown's grace ended"),
        }
        self.shared.tasks.close();
        if tokio::time::timeout(grace, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!(?grace, "requests were still under way when the shutdown's grace ended");
        }
        self.shared.producer.flush(grace).await
    }

    /// Whether events would be accepted now: not shutting down, and a broker answers.
    pub async fn ready(&self) -> Result<(), GatewayError> {
        if self.shared.draining.load(Ordering::Acquire) {
            return Err(GatewayError::Draining);
        }
        // Held while asking, so that many callers cause one question.
        let mut asked = self.shared.asked.lock().await;
        let known = asked.clone().filter(|(at, _)| at.elapsed() < READY_FOR).map(|(_, answer)| answer);
        let answer = match known {
            Some(answer) => answer,
            None => {
                let answer = self.shared.producer.ask(self.shared.config.topic(Stream::ProductEvents)).await?;
                asked.insert((Instant::now(), answer)).1.clone()
            }
        };
        answer.map_err(GatewayError::BrokerUnreachable)
    }

    /// Requests being worked on.
    pub fn requests_in_flight(&self) -> usize {
        self.shared.admission.requests()
    }
}

async fn post_product_events(State(gateway): State<Gateway>, headers: HeaderMap, body: Body) -> Answer {
    ingest(gateway.shared, Stream::ProductEvents.name(), headers, body).await
}

async fn post_events(
    State(gateway): State<Gateway>,
    Path(stream): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    ingest(gateway.shared, &stream, headers, body).await
}

async fn readyz(State(gateway): State<Gateway>) -> Response {
    match gateway.ready().await {
        Ok(()) => Json(serde_json::json!({"status": "ready"})).into_response(),
        Err(error) => {
            tracing::warn!(%error, "not ready");
            let detail = match error {
                GatewayError::Draining => "The gateway is shutting down.",
                _ => "Kafka cannot be reached.",
            };
            let problem = Problem::new(problem::BROKER_UNAVAILABLE, detail).retry_after(crate::producer::RETRY_AFTER);
            ([(header::CACHE_CONTROL, "no-store")], problem).into_response()
        }
    }
}
