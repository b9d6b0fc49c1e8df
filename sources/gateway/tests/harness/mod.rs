//! A gateway on a socket, a broker that speaks Kafka's protocol, and a client that checks every
//! answer against the published OpenAPI document.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use companyos_schemas::{
    access::{Permission, Scope, TokenGrant, TokenRegistry, token_digest},
    tenancy::Tenancy,
};
use companyos_source_gateway::{Gateway, GatewayConfig, GatewayError, ProducerConfig, openapi};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Headers, OwnedMessage},
    mocking::MockCluster,
    producer::DefaultProducerContext,
};
use reqwest::{RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

pub const PARTITIONS: i32 = 4;
pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct Harness {
    pub cluster: MockCluster<'static, DefaultProducerContext>,
    pub gateway: Gateway,
    pub url: String,
    pub client: reqwest::Client,
    pub stop: oneshot::Sender<()>,
    pub server: JoinHandle<Result<(), GatewayError>>,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }

    /// `accepted`, or the reason, of each event.
    pub fn outcomes(&self) -> Vec<&str> {
        let results = self.body["results"].as_array().unwrap_or_else(|| panic!("no results in {}", self.body));
        assert!(results.iter().enumerate().all(|(i, r)| r["index"] == i), "{results:?}");
        results.iter().map(|r| r["problem"]["reason"].as_str().unwrap_or("accepted")).collect()
    }
}

pub async fn start(brokers: i32, adjust: impl FnOnce(&mut GatewayConfig, &mut ProducerConfig)) -> Harness {
    let cluster = MockCluster::new(brokers).unwrap();
    for topic in ["product_events", "sli_metrics"] {
        cluster.create_topic(topic, PARTITIONS, 1).unwrap();
    }
    let mut config = GatewayConfig::default();
    let mut producer = ProducerConfig { bootstrap_servers: cluster.bootstrap_servers(), ..ProducerConfig::default() };
    adjust(&mut config, &mut producer);
    let gateway = Gateway::new(config, Arc::new(tenancy()), Arc::new(tokens()), &producer).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = gateway.clone();
    let server = tokio::spawn(async move { serving.serve(listener, async { drop(stopped.await) }).await });
    Harness { cluster, gateway, url, client: reqwest::Client::new(), stop, server }
}

pub fn tenancy() -> Tenancy {
    toml::from_str(
        r#"
        home_region = "eu"
        [regions.eu]
        storage = "memory:///eu"
        [regions.us]
        storage = "memory:///us"
        [tenants.alpha]
        environments = ["prod", "dev"]
        regions = ["eu"]
        [tenants.beta]
        environments = ["prod"]
        regions = ["us"]
        "#,
    )
    .unwrap()
}

pub fn tokens() -> TokenRegistry {
    let grant = |token: &str, tenant: &str, envs: Option<&str>, permission| TokenGrant {
        id: format!("{token}-id"),
        sha256: token_digest(token),
        permissions: [permission].into(),
        scope: Scope { tenant: tenant.into(), envs: envs.map(|e| [e.to_owned()].into()), regions: None },
        expires_at: None,
    };
    let mut expired = grant("expired", "alpha", None, Permission::Ingest);
    expired.expires_at = Some(Utc::now());
    TokenRegistry::new([
        grant("alpha", "alpha", Some("prod"), Permission::Ingest),
        grant("beta", "beta", None, Permission::Ingest),
        grant("reader", "alpha", None, Permission::Query),
        expired,
    ])
    .unwrap()
}

impl Harness {
    /// A post with alpha's token.
    pub fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url)).bearer_auth("alpha")
    }

    pub async fn send_json(&self, body: &Value) -> Answer {
        send(self.post("/v1/events").json(body)).await
    }

    /// Every record of a topic once there are at least `count`, by partition and offset.
    pub fn records(&self, topic: &str, count: usize) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.cluster.bootstrap_servers())
            .set("group.id", "check")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let started = Instant::now();
        let (mut records, mut at_end) = (Vec::new(), std::collections::BTreeSet::new());
        while records.len() < count || at_end.len() < PARTITIONS as usize {
            assert!(started.elapsed() < DEADLINE, "{} of {count} records in {topic}", records.len());
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(record)) => records.push(record.detach()),
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => drop(at_end.insert(partition)),
                Some(Err(_)) | None => {}
            }
        }
        records.sort_by_key(|r| (r.partition(), r.offset()));
        records
    }

    /// Ids of the events in a topic, sorted.
    pub fn event_ids(&self, topic: &str, count: usize) -> Vec<String> {
        let id = |r: &OwnedMessage| body_of(r)["event_id"].as_str().unwrap().to_owned();
        let mut ids: Vec<String> = self.records(topic, count).iter().map(id).collect();
        ids.sort();
        ids
    }
}

/// Sends a request and checks the answer against the OpenAPI document.
pub async fn send(request: RequestBuilder) -> Answer {
    let (client, request) = request.build_split();
    let request = request.unwrap();
    let (method, path) = (request.method().as_str().to_lowercase(), request.url().path().to_owned());
    let response = client.execute(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    let answer = Answer { status, headers, body };
    check(&method, &path, &answer);
    answer
}

fn check(method: &str, path: &str, answer: &Answer) {
    let document = openapi::document();
    let template = match path.strip_prefix("/v1/events/") {
        Some(_) => "/v1/events/{stream}",
        None => path,
    };
    let media_type = answer.header("content-type");
    if answer.status >= 400 {
        assert_eq!(media_type, "application/problem+json");
        assert_eq!(answer.body["status"], answer.status);
    }
    let Some(operation) = document["paths"].get(template).and_then(|p| p.get(method)) else { return };
    let mut response = &operation["responses"][answer.status.to_string()];
    assert!(response.is_object(), "{method} {template} does not document {}", answer.status);
    if let Some(reference) = response["$ref"].as_str() {
        response = document.pointer(reference.trim_start_matches('#')).unwrap();
    }
    let schema = &response["content"][media_type]["schema"];
    assert!(schema.is_object(), "{template} {} does not document {media_type}", answer.status);
    let root = json!({"allOf": [schema], "components": document["components"]});
    let errors: Vec<String> =
        jsonschema::validator_for(&root).unwrap().iter_errors(&answer.body).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{template} {}: {errors:?} in {}", answer.status, answer.body);
}

/// Repeats `probe` until it says yes.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut probe: impl FnMut() -> F) {
    let started = Instant::now();
    while !probe().await {
        assert!(started.elapsed() < DEADLINE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn event(id: &str) -> Value {
    json!({
        "event_id": id, "occurred_at": Utc::now().to_rfc3339(), "tenant": "alpha", "role": "admin", "feature": "export",
        "region": "eu", "env": "prod", "client": "web/1", "pii_classification": "none", "payload": {"n": 1},
    })
}

pub fn body_of(record: &OwnedMessage) -> Value {
    serde_json::from_slice(record.payload().unwrap()).unwrap()
}

pub fn header_of(record: &OwnedMessage, name: &str) -> String {
    let headers = record.headers().unwrap();
    let header = headers.iter().find(|h| h.key == name).unwrap_or_else(|| panic!("no header {name}"));
    String::from_utf8(header.value.unwrap().to_vec()).unwrap()
}
