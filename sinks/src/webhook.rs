//! Signed webhooks, as <https://www.standardwebhooks.com> has them.
//!
//! Promises:
//! - A message is delivered at least once or given up after a bounded time; which of the two is told.
//! - `webhook-id` is the same for every attempt: the receiver's idempotency key.
//! - `webhook-signature` is HMAC-SHA256 over `id.timestamp.body` with the endpoint's secret, made
//!   anew for each attempt, so that the receiver may refuse old timestamps.

use std::{fmt, time::Duration};

use backon::{ExponentialBuilder, Retryable};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use url::Url;

/// One receiver.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Name, for logs and metrics.
    pub name: String,
    /// Where to send.
    pub url: Url,
    /// `whsec_` and the key in base64, at least 24 bytes.
    #[serde(skip_serializing)]
    pub secret: String,
    /// Kinds of notices wanted; empty wants all.
    #[serde(default)]
    pub kinds: Vec<String>,
    /// Tenants wanted; empty wants all.
    #[serde(default)]
    pub tenants: Vec<String>,
    /// How long one attempt may take.
    #[serde(default = "default_timeout", with = "humantime_serde")]
    pub timeout: Duration,
    /// How long to go on trying; then the message is given up.
    #[serde(default = "default_give_up_after", with = "humantime_serde")]
    pub give_up_after: Duration,
}

fn default_timeout() -> Duration {
    Duration::from_secs(5)
}

fn default_give_up_after() -> Duration {
    Duration::from_secs(30)
}

// The secret is not shown.
impl fmt::Debug for WebhookConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookConfig").field("name", &self.name).field("kinds", &self.kinds).finish_non_exhaustive()
    }
}

/// A message.
#[derive(Debug, Clone, Copy)]
pub struct WebhookMessage<'a> {
    /// Idempotency key.
    pub id: &'a str,
    /// JSON text.
    pub body: &'a str,
    /// W3C trace context.
    pub traceparent: Option<&'a str>,
}

/// A receiver that cannot be used, or a message it did not take.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The secret is not one.
    #[error("webhook {name}: secret {problem}")]
    Secret {
        /// Receiver.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The client cannot be made.
    #[error("webhook {name}: {source}")]
    Client {
        /// Receiver.
        name: String,
        /// Why.
        source: reqwest::Error,
    },
    /// Given up.
    #[error("webhook {name} did not take message {id}: {reason}")]
    GivenUp {
        /// Receiver.
        name: String,
        /// Message.
        id: String,
        /// What the last attempt met.
        reason: String,
    },
}

/// Sends to one receiver.
#[derive(Debug, Clone)]
pub struct Webhook {
    config: WebhookConfig,
    key: Vec<u8>,
    client: reqwest::Client,
}

/// What an attempt met, and whether another makes sense.
struct Refused {
    reason: String,
    again: bool,
}

const LEAST_KEY: usize = 24;

impl Webhook {
    /// Checks the secret and makes a client.
    pub fn new(config: WebhookConfig) -> Result<Self, WebhookError> {
        let refuse = |problem| WebhookError::Secret { name: config.name.clone(), problem };
        let key = config.secret.strip_prefix("whsec_").ok_or_else(|| refuse("does not start with whsec_"))?;
        let key = STANDARD.decode(key).map_err(|_| refuse("is not base64"))?;
        if key.len() < LEAST_KEY {
            return Err(refuse("is shorter than 24 bytes"));
        }
        let client = reqwest::Client::builder()
            .timeout(config.timeout)
            // A redirect would carry the message where nobody agreed to send it.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|source| WebhookError::Client { name: config.name.clone(), source })?;
        Ok(Self { config, key, client })
    }

    /// Name of the receiver.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Whether it wants notices of this kind and tenant.
    pub fn wants(&self, kind: &str, tenant: &str) -> bool {
        let listed = |list: &[String], name: &str| list.is_empty() || list.iter().any(|entry| entry == name);
        listed(&self.config.kinds, kind) && listed(&self.config.tenants, tenant)
    }

    /// Sends until the receiver takes the message, refuses it for good, or time is up.
    pub async fn send(&self, message: WebhookMessage<'_>) -> Result<(), WebhookError> {
        let retries = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .without_max_times();
        let attempts = (|| self.attempt(message)).retry(retries).when(|refused: &Refused| refused.again).notify(
            |refused, pause| {
                tracing::warn!(
                    webhook = self.config.name,
                    id = message.id,
                    reason = refused.reason,
                    ?pause,
                    "not sent"
                );
            },
        );
        let reason = match tokio::time::timeout(self.config.give_up_after, attempts).await {
            Ok(Ok(())) => return self.count("delivered", Ok(())),
            Ok(Err(refused)) => refused.reason,
            Err(_) => format!("not within {:?}", self.config.give_up_after),
        };
        let id = message.id.to_owned();
        self.count("given_up", Err(WebhookError::GivenUp { name: self.config.name.clone(), id, reason }))
    }

    async fn attempt(&self, message: WebhookMessage<'_>) -> Result<(), Refused> {
        let timestamp = Utc::now().timestamp();
        let mut request = self
            .client
            .post(self.config.url.clone())
            .header("content-type", "application/json")
            .header("webhook-id", message.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature(&self.key, message.id, timestamp, message.body));
        if let Some(traceparent) = message.traceparent {
            request = request.header("traceparent", traceparent);
        }
        let answer = request
            .body(message.body.to_owned())
            .send()
            .await
            .map_err(|error| Refused { again: !error.is_builder(), reason: error.to_string() })?;
        let status = answer.status();
        match status.is_success() {
            true => Ok(()),
            false => Err(Refused { reason: format!("answered {status}"), again: may_pass(status) }),
        }
    }

    fn count(&self, outcome: &'static str, result: Result<(), WebhookError>) -> Result<(), WebhookError> {
        metrics::counter!(
            "companyos_webhook_messages_total", "webhook" => self.config.name.clone(), "outcome" => outcome
        )
        .increment(1);
        result
    }
}

/// A receiver that says the request is wrong will say so again; anything else may be better soon.
fn may_pass(status: StatusCode) -> bool {
    let soon =
        [StatusCode::REQUEST_TIMEOUT, StatusCode::CONFLICT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    !status.is_client_error() || soon.contains(&status)
}

fn signature(key: &[u8], id: &str, timestamp: i64, body: &str) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{
        Router,
        extract::State,
        http::{HeaderMap, StatusCode},
        routing::post,
    };

    use super::*;

    /// Answers in order; the last goes on. 0 hangs.
    #[derive(Clone, Default)]
    struct Receiver {
        answers: Arc<Mutex<Vec<u16>>>,
        got: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    }

    async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
        receiver.got.lock().unwrap().push((headers, body));
        let answer = {
            let mut answers = receiver.answers.lock().unwrap();
            match answers.len() {
                1 => answers[0],
                _ => answers.remove(0),
            }
        };
        if answer == 0 {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        StatusCode::from_u16(answer).unwrap()
    }

    async fn receiver(answers: &[u16]) -> (Receiver, Webhook) {
        let receiver = Receiver { answers: Arc::new(Mutex::new(answers.to_vec())), ..Receiver::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/hook", listener.local_addr().unwrap())).unwrap();
        let router = Router::new().route("/hook", post(receive)).with_state(receiver.clone());
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        let config = WebhookConfig {
            name: "pager".into(),
            url,
            secret: format!("whsec_{}", STANDARD.encode([7; 32])),
            kinds: vec!["slo_alert".into()],
            tenants: Vec::new(),
            timeout: Duration::from_millis(300),
            give_up_after: Duration::from_secs(4),
        };
        (receiver, Webhook::new(config).unwrap())
    }

    const MESSAGE: WebhookMessage<'static> = WebhookMessage { id: "n-1", body: r#"{"a":1}"#, traceparent: None };

    // The example of the specification's reference libraries.
    #[test]
    fn the_signature_is_that_of_standard_webhooks() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[tokio::test]
    async fn a_receiver_that_fails_and_hangs_gets_the_message_in_the_end() {
        let (receiver, webhook) = receiver(&[500, 0, 429, 204]).await;
        webhook.send(MESSAGE).await.unwrap();
        let got = receiver.got.lock().unwrap();
        assert_eq!(got.len(), 4);
        for (headers, body) in got.iter() {
            assert_eq!((headers["webhook-id"].to_str().unwrap(), body.as_str()), ("n-1", MESSAGE.body));
            let timestamp = headers["webhook-timestamp"].to_str().unwrap().parse().unwrap();
            assert_eq!(headers["webhook-signature"], signature(&[7; 32], "n-1", timestamp, body));
        }
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_time_is_bounded() {
        let (refusing, webhook) = receiver(&[400]).await;
        let error = webhook.send(MESSAGE).await.unwrap_err();
        assert!(error.to_string().contains("answered 400"), "{error}");
        assert_eq!(refusing.got.lock().unwrap().len(), 1);
        let (_failing, webhook) = receiver(&[503]).await;
        let started = std::time::Instant::now();
        assert!(matches!(webhook.send(MESSAGE).await, Err(WebhookError::GivenUp { .. })));
        assert!(started.elapsed() < Duration::from_secs(6));
    }

    #[tokio::test]
    async fn weak_secrets_are_refused_and_never_shown() {
        let (_receiver, webhook) = receiver(&[204]).await;
        assert!(!format!("{webhook:?}").contains(&webhook.config.secret) && webhook.wants("slo_alert", "t"));
        assert!(!webhook.wants("detection", "t"));
        for secret in ["plain", "whsec_!", "whsec_YWJj"] {
            let config = WebhookConfig { secret: secret.into(), ..webhook.config.clone() };
            assert!(matches!(Webhook::new(config), Err(WebhookError::Secret { .. })), "{secret}");
        }
    }
}
