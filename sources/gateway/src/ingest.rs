//! One post of events, from its headers to its answer.
//!
//! Reading the body belongs to the connection; from then on the work is a task of its own, so a
//! client that hangs up in the middle cannot leave a batch half judged and its key unanswered.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, SecondsFormat, Utc};
use companyos_schemas::{
    Stream,
    access::{AccessError, Permission, TokenGrant},
    quarantine::Reason,
};
use futures::StreamExt;
use rdkafka::message::{Header, OwnedHeaders};

use crate::{
    admission::Admitted,
    answer::{Answer, EventResult, Outcome},
    batch::{BodyKind, split},
    cloudevents,
    decompress::{Encoding, decompress, overloaded},
    event::{Cause, Refusal, Rules, ValidEvent, validate, validate_inner},
    idempotency::{self, MAX_KEY_BYTES, Ticket, Verdict},
    problem::{self, Problem},
    producer::{OutgoingRecord, Undelivered},
    rate::RateReport,
    server::Shared,
    telemetry,
    trace_context::TraceContext,
};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const REPLAYED: &str = "idempotency-replayed";
/// Bodies above this are judged on a thread that may block.
const INLINE_BYTES: usize = 32 * 1024;

/// A request whose body has arrived.
struct Request {
    stream: Stream,
    grant: TokenGrant,
    headers: HeaderMap,
    kind: BodyKind,
    encoding: Encoding,
    key: Option<String>,
    body: Bytes,
    admitted: Admitted,
    received_at: DateTime<Utc>,
    trace: TraceContext,
}

/// A request whose events have been judged.
struct Judged {
    verdicts: Vec<Result<ValidEvent, Refusal>>,
    ticket: Option<Ticket>,
    rate: RateReport,
    /// Keeps the body's bytes counted until Kafka has the events.
    admitted: Admitted,
}

/// Answers one post.
pub async fn ingest(shared: Arc<Shared>, stream: &str, headers: HeaderMap, body: Body) -> Answer {
    let started = Instant::now();
    let answer = match receive(&shared, stream, headers, body).await {
        Ok(request) => {
            let work = shared.tasks.spawn(work(shared.clone(), request));
            work.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a request failed");
                Problem::new(problem::INTERNAL, "The request failed inside the gateway.").into()
            })
        }
        Err(problem) => (*problem).into(),
    };
    telemetry::request(answer.status, started.elapsed());
    answer
}

async fn receive(shared: &Shared, stream: &str, headers: HeaderMap, body: Body) -> Result<Request, Box<Problem>> {
    let received_at = Utc::now();
    let grant = authorize(shared, &headers, received_at)?;
    let stream = stream.parse::<Stream>().map_err(|_| {
        let names = Stream::ALL.map(Stream::name).join(", ");
        Problem::new(problem::NOT_FOUND, format!("There is no such stream; there are {names}."))
    })?;
    let (kind, encoding) = (BodyKind::of(&headers)?, Encoding::of(&headers)?);
    let key = idempotency_key(&headers)?;
    let mut admitted = shared.admission.enter().ok_or_else(overloaded)?;
    let limits = &shared.config.limits;
    let body = tokio::time::timeout(limits.body_timeout, read(body, &headers, limits.max_body_bytes, &mut admitted));
    let body = body.await.map_err(|_| {
        let whole = humantime::format_duration(limits.body_timeout);
        Problem::new(problem::BODY_TIMEOUT, format!("The body must arrive within {whole}."))
    })??;
    let trace = TraceContext::of(&headers);
    Ok(Request { stream, grant, headers, kind, encoding, key, body, admitted, received_at, trace })
}

fn authorize(shared: &Shared, headers: &HeaderMap, now: DateTime<Utc>) -> Result<TokenGrant, Box<Problem>> {
    let bearer = |value: &str| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    };
    let value = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let Some(token) = value.and_then(bearer).filter(|t| !t.is_empty()) else {
        return Err(Problem::new(problem::UNAUTHENTICATED, "Send Authorization: Bearer with an ingest token.")
            .challenge("Bearer realm=\"companyos\"")
            .into());
    };
    let refused = |error: AccessError| match error {
        AccessError::InvalidToken => Problem::new(problem::UNAUTHENTICATED, "The token is unknown or has expired.")
            .challenge("Bearer realm=\"companyos\", error=\"invalid_token\""),
        AccessError::NotPermitted => Problem::new(problem::NOT_PERMITTED, "The token may not send events.")
            .challenge("Bearer realm=\"companyos\", error=\"insufficient_scope\""),
    };
    shared.tokens.authorize(&token, Permission::Ingest, now).cloned().map_err(|e| refused(e).into())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Box<Problem>> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=MAX_KEY_BYTES).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => {
            let detail = format!("Idempotency-Key must be 1 to {MAX_KEY_BYTES} visible ASCII characters.");
            Err(Problem::new(problem::INVALID_REQUEST, detail).into())
        }
    }
}

async fn read(body: Body, headers: &HeaderMap, max: usize, admitted: &mut Admitted) -> Result<Bytes, Box<Problem>> {
    let too_large = || Problem::new(problem::TOO_LARGE, format!("At most {max} bytes are allowed in a body as sent."));
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|n| n > max) {
        return Err(too_large().into());
    }
    let mut collected = BytesMut::with_capacity(announced.unwrap_or(0).min(INLINE_BYTES));
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            tracing::debug!(%error, "the body did not arrive");
            Problem::new(problem::INVALID_REQUEST, "The body was cut off.")
        })?;
        if collected.len() + chunk.len() > max {
            return Err(too_large().into());
        }
        if !admitted.grow(chunk.len()) {
            return Err(overloaded());
        }
        collected.extend_from_slice(&chunk);
    }
    Ok(collected.freeze())
}

async fn work(shared: Arc<Shared>, request: Request) -> Answer {
    let (stream, grant) = (request.stream, request.grant.clone());
    let trace = request.trace.clone();
    let stamp = Stamp::new(request.received_at, &grant.id, &trace);
    let judged = if request.body.len() <= INLINE_BYTES && request.encoding == Encoding::Identity {
        judge(&shared, request)
    } else {
        let judging = shared.clone();
        tokio::task::spawn_blocking(move || judge(&judging, request)).await.unwrap_or_else(|error| {
            tracing::error!(%error, "a request could not be judged");
            Err(Problem::new(problem::INTERNAL, "The request failed inside the gateway.").into())
        })
    };
    let Judged { verdicts, ticket, rate, admitted } = match judged {
        Ok(judged) => judged,
        Err(answer) => return answer,
    };
    let results = deliver(&shared, stream, verdicts, &stamp, &grant.scope.tenant).await;
    drop(admitted);
    let mut answer = Answer::report(&results);
    tracing::info!(
        trace_id = trace.trace_id(),
        tenant = grant.scope.tenant,
        token = grant.id,
        %stream,
        events = results.len(),
        rejected = results.iter().filter(|r| r.cause().is_some()).count(),
        status = answer.status.as_u16(),
        "events received"
    );
    // What a retry could change is not kept.
    if let Some(ticket) = ticket.filter(|_| !answer.status.is_server_error()) {
        ticket.finish(&answer, Instant::now());
    }
    answer.headers.extend(rate.0);
    answer
}

/// All that needs no waiting: the key, the body, the tenant's rate, each event's verdict.
fn judge(shared: &Arc<Shared>, mut request: Request) -> Result<Judged, Answer> {
    let refuse = |problem: Box<Problem>| Answer::from(*problem);
    let ticket = claim(shared, &request)?;
    let limits = &shared.config.limits;
    let plain =
        decompress(request.encoding, request.body.clone(), limits.max_decompressed_bytes, &mut request.admitted);
    let plain = plain.map_err(refuse)?;
    let events = split(request.kind, &plain, limits.max_events).map_err(refuse)?;
    let (allowed, rate) = shared.rates.take(&request.grant.scope.tenant, events.len(), plain.len());
    if let Err(problem) = allowed {
        let mut answer = refuse(problem);
        answer.headers.extend(rate.0);
        return Err(answer);
    }
    let rules = Rules {
        stream: request.stream,
        tenancy: &shared.tenancy,
        scope: &request.grant.scope,
        max_future_skew: shared.config.max_future_skew,
        max_age: shared.config.max_age,
        max_depth: limits.max_depth,
        now: request.received_at,
    };
    let verdict = |(index, raw): (usize, &Bytes)| {
        judge_one(raw, &request, &rules, limits.max_event_bytes).map_err(|refusal| Refusal { index, ..refusal })
    };
    let verdicts = events.iter().enumerate().map(verdict).collect();
    Ok(Judged { verdicts, ticket, rate, admitted: request.admitted })
}

fn judge_one(raw: &Bytes, request: &Request, rules: &Rules<'_>, max_bytes: usize) -> Result<ValidEvent, Refusal> {
    let bounded = |len: usize| match len > max_bytes {
        true => {
            let detail = format!("the event has {len} bytes; at most {max_bytes} are allowed");
            Err(Refusal::event(Reason::TooLarge, None, detail))
        }
        false => Ok(()),
    };
    bounded(raw.len())?;
    let event = match request.kind {
        BodyKind::Json | BodyKind::NdJson => validate(raw, rules)?,
        BodyKind::CloudEvent | BodyKind::CloudEventBatch => {
            validate_inner(&cloudevents::structured(raw, rules)?, rules)?
        }
        BodyKind::BinaryCloudEvent => validate_inner(&cloudevents::binary(&request.headers, raw, rules)?, rules)?,
    };
    // Again, with what was added: the worker has the same limit.
    bounded(event.value.len()).map_err(|r| Refusal { event_id: Some(event.event_id.clone()), ..r })?;
    Ok(event)
}

fn claim(shared: &Shared, request: &Request) -> Result<Option<Ticket>, Answer> {
    let Some(key) = &request.key else { return Ok(None) };
    let mut parts: Vec<&[u8]> = vec![request.stream.name().as_bytes(), &request.body];
    // What decides how the body is read is part of the request.
    for (name, value) in &request.headers {
        let name = name.as_str();
        if name.starts_with("ce-") || ["content-type", "content-encoding"].contains(&name) {
            parts.extend([name.as_bytes(), value.as_bytes()]);
        }
    }
    match shared.idempotency.begin(&request.grant.id, key, idempotency::digest(parts), Instant::now()) {
        Verdict::Work(ticket) => Ok(Some(ticket)),
        Verdict::Replay(mut answer) => {
            let name = header::HeaderName::from_static(REPLAYED);
            answer.headers.push((name, header::HeaderValue::from_static("true")));
            Err(answer)
        }
        Verdict::OtherRequest => {
            Err(Problem::new(problem::KEY_REUSED, "The key was used with another body; take a new one.").into())
        }
        Verdict::UnderWay => {
            let detail = "The first request with this key is not answered yet.";
            Err(Problem::new(problem::KEY_IN_USE, detail).retry_after(Duration::from_secs(1)).into())
        }
    }
}

/// What is put on every record of a request.
struct Stamp {
    /// Also the records' timestamp, so that the worker judges clocks against the same instant.
    received_at: DateTime<Utc>,
    headers: OwnedHeaders,
}

impl Stamp {
    fn new(received_at: DateTime<Utc>, token_id: &str, trace: &TraceContext) -> Self {
        let text = received_at.to_rfc3339_opts(SecondsFormat::Micros, true);
        let mut headers = OwnedHeaders::new()
            .insert(text_header("content-type", "application/json"))
            .insert(text_header("companyos-received-at", &text))
            .insert(text_header("companyos-token-id", token_id))
            .insert(text_header("traceparent", &trace.traceparent));
        if let Some(state) = &trace.tracestate {
            headers = headers.insert(text_header("tracestate", state));
        }
        Self { received_at, headers }
    }
}

fn text_header<'a>(key: &'a str, value: &'a str) -> Header<'a, &'a str> {
    Header { key, value: Some(value) }
}

/// Sends what may pass and gathers what became of every event, in request order.
async fn deliver(
    shared: &Shared,
    stream: Stream,
    verdicts: Vec<Result<ValidEvent, Refusal>>,
    stamp: &Stamp,
    tenant: &str,
) -> Vec<EventResult> {
    let topic = shared.config.topic(stream);
    let send = |(index, verdict): (usize, Result<ValidEvent, Refusal>)| async move {
        match verdict {
            Ok(event) => send_one(shared, topic, stamp, index, event).await,
            Err(refusal) => {
                telemetry::rejected(tenant, refusal.cause.as_str());
                EventResult::from(refusal)
            }
        }
    };
    let sends = futures::stream::iter(verdicts.into_iter().enumerate()).map(send);
    let mut results: Vec<EventResult> = sends.buffer_unordered(shared.config.limits.max_deliveries).collect().await;
    results.sort_unstable_by_key(|r| r.index);
    results
}

async fn send_one(shared: &Shared, topic: &str, stamp: &Stamp, index: usize, event: ValidEvent) -> EventResult {
    let ValidEvent { event_id, tenant, region, value } = event;
    let headers = stamp.headers.clone().insert(text_header("companyos-region", &region));
    let record = OutgoingRecord {
        topic,
        // The same event always has the same key, so a retry lands in the partition that dedups it.
        key: &format!("{tenant}/{event_id}"),
        value: &value,
        timestamp_ms: stamp.received_at.timestamp_millis(),
        headers,
    };
    let sent = shared.producer.send(record).await;
    let (cause, detail) = match sent {
        Ok(delivery) => {
            telemetry::accepted(&tenant, value.len());
            let (partition, offset) = (delivery.partition, delivery.offset);
            let outcome = Outcome::Accepted { topic: topic.to_owned(), partition, offset };
            return EventResult { index, event_id: Some(event_id), outcome };
        }
        Err(Undelivered::TooLarge) => (Cause::Event(Reason::TooLarge), "the broker takes no records of this size"),
        Err(Undelivered::Unavailable(error)) => {
            tracing::warn!(%error, topic, "a record was not acknowledged");
            (Cause::Undelivered, "Kafka did not acknowledge the event in time; send it again")
        }
    };
    telemetry::rejected(&tenant, cause.as_str());
    EventResult::from(Refusal { index, cause, field: None, detail: detail.to_owned(), event_id: Some(event_id) })
}
