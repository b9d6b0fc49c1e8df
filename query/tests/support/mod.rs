//! Real Delta tables of two tenants in two regions, and the endpoint over them.
// Clippy takes only #[test] functions for tests; all of this is one.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod views;

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, new_null_array},
    compute::cast,
    datatypes::DataType,
};
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use companyos_query::{QueryConfig, QueryEngine, router, views_router};
use companyos_schemas::{
    Stream,
    access::{Permission, Scope, TokenGrant, TokenRegistry, token_digest},
    arrow_schema, quarantine,
    tenancy::Tenancy,
};
use companyos_sinks::{
    delta::{DeltaSink, FileOptions, PartitionRows, RoutedBatch, TableEpoch, TableSpec},
    storage::Storage,
};
use tower::ServiceExt;
use url::Url;

/// Rows Alpha has in product_events, over both regions and environments.
pub const ALPHA_ROWS: i64 = 8;
/// Rows Beta has there: a number nothing else of the fixture equals.
pub const BETA_ROWS: i64 = 4717;

pub struct Fixture {
    _dir: Arc<tempfile::TempDir>,
    pub tenancy: Arc<Tenancy>,
    pub engine: Arc<QueryEngine>,
    pub app: Router,
    offsets: std::sync::atomic::AtomicI64,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// Whether the body came to its proper end.
    pub complete: bool,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// First value of the first row.
    pub fn single(&self) -> serde_json::Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text());
        self.json()["rows"][0].as_object().and_then(|row| row.values().next()).cloned().unwrap_or_default()
    }
}

impl Fixture {
    pub async fn new(config: QueryConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = |name: &str| Url::from_directory_path(dir.path().join(name)).unwrap().to_string();
        std::fs::create_dir_all(dir.path().join("eu")).unwrap();
        std::fs::create_dir_all(dir.path().join("us")).unwrap();
        let tenancy: Tenancy = toml::from_str(&format!(
            r#"
            home_region = "eu-west-1"
            [regions.eu-west-1]
            storage = "{}"
            [regions.us-east-1]
            storage = "{}"
            [tenants.alpha]
            environments = ["prod", "staging"]
            regions = ["eu-west-1", "us-east-1"]
            [tenants.beta]
            environments = ["prod", "staging"]
            regions = ["eu-west-1", "us-east-1"]
            "#,
            root("eu"),
            root("us"),
        ))
        .unwrap();
        tenancy.validate().unwrap();
        let tenancy = Arc::new(tenancy);
        Self::over(Arc::new(dir), tenancy, config)
    }

    /// Another engine and endpoint over the same tables.
    pub fn engine_with(&self, config: QueryConfig) -> Self {
        Self::over(self._dir.clone(), self.tenancy.clone(), config)
    }

    fn over(dir: Arc<tempfile::TempDir>, tenancy: Arc<Tenancy>, config: QueryConfig) -> Self {
        let storages: HashMap<Arc<str>, Storage> = tenancy
            .regions
            .iter()
            .map(|(name, region)| (Arc::from(name.as_str()), Storage::for_region(region).unwrap()))
            .collect();
        let engine = Arc::new(QueryEngine::new(config, tenancy.clone(), storages).unwrap());
        let views = views_router(engine.clone(), TokenRegistry::new(tokens()).unwrap(), 1);
        let app = router(engine.clone(), TokenRegistry::new(tokens()).unwrap()).merge(views);
        Self { _dir: dir, tenancy, engine, app, offsets: 0.into() }
    }

    /// With rows of both tenants in every table that the tests ask.
    pub async fn filled(config: QueryConfig) -> Self {
        let fixture = Self::new(config).await;
        for region in ["eu-west-1", "us-east-1"] {
            let mut rows = Vec::new();
            for env in ["prod", "staging"] {
                for n in 0..ALPHA_ROWS / 4 {
                    rows.push(event(
                        "alpha",
                        env,
                        region,
                        &format!("alpha-{region}-{env}-{n}"),
                        "feature-x",
                        "alpha payload",
                    ));
                }
            }
            let beta = if region == "eu-west-1" { BETA_ROWS - 1000 } else { 1000 };
            for n in 0..beta {
                let (user, env) = (format!("BETASECRET-{region}-{n}"), if n % 2 == 0 { "prod" } else { "staging" });
                rows.push(event("beta", env, region, &user, "betafeature", "{\"k\":\"BETASECRET payload\"}"));
            }
            fixture.append(Stream::ProductEvents, region, &rows).await;
            fixture.append_metrics(region).await;
            fixture.append_quarantine(region).await;
        }
        fixture
    }

    pub fn storage(&self, region: &str) -> Storage {
        Storage::for_region(&self.tenancy.regions[region]).unwrap()
    }

    /// One commit to a stream table.
    pub async fn append(&self, stream: Stream, region: &str, rows: &[Vec<(&str, String)>]) {
        let schema = arrow_schema::table_schema(stream);
        self.commit(stream.name(), schema, &arrow_schema::PARTITION_COLUMNS, region, rows).await;
    }

    async fn append_metrics(&self, region: &str) {
        let metric = |tenant: &str, value: &str| {
            let id = format!("{tenant}-{region}-{value}");
            let mut row = event(tenant, "prod", region, &id, "", "");
            row.retain(|(name, _)| !["user_id", "feature", "payload"].contains(name));
            row.extend([
                ("service", format!("{tenant}-service")),
                ("sli_type", "latency".to_owned()),
                ("window", "1m".to_owned()),
                ("value", value.to_owned()),
                ("objective", "0.5".to_owned()),
            ]);
            row
        };
        let rows = [metric("alpha", "1.5"), metric("alpha", "2.5"), metric("beta", "8086.25")];
        self.append(Stream::SliMetrics, region, &rows).await;
    }

    async fn append_quarantine(&self, region: &str) {
        let row = |id: &str, tenant: Option<&str>, detail: &str| {
            let mut row = vec![
                ("quarantine_id", id.to_owned()),
                ("stream", "product_events".to_owned()),
                ("reason", "wrong_type".to_owned()),
                ("detail", detail.to_owned()),
                ("day", "2026-01-02".to_owned()),
            ];
            row.extend(tenant.map(|t| ("tenant", t.to_owned())));
            row
        };
        let rows = [
            row("q-alpha", Some("alpha"), "alpha detail"),
            row("q-beta", Some("beta"), "BETASECRET detail"),
            row("q-nobody", None, "NOBODYSECRET detail"),
        ];
        self.commit(quarantine::TABLE, quarantine::table_schema(), &quarantine::PARTITION_COLUMNS, region, &rows).await;
    }

    async fn commit(
        &self,
        table: &str,
        schema: arrow::datatypes::SchemaRef,
        partition_columns: &[&str],
        region: &str,
        rows: &[Vec<(&str, String)>],
    ) {
        let mut groups: HashMap<Vec<Arc<str>>, Vec<u32>> = HashMap::new();
        for (n, row) in rows.iter().enumerate() {
            let value = |name: &str| row.iter().find(|(c, _)| *c == name).map(|(_, v)| Arc::from(v.as_str())).unwrap();
            groups.entry(partition_columns.iter().map(|c| value(c)).collect()).or_default().push(n as u32);
        }
        let columns: Vec<ArrayRef> = schema.fields().iter().map(|field| column(field, rows)).collect();
        let batch = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let spec = TableSpec {
            name: table.to_owned(),
            schema,
            partition_columns: partition_columns.iter().map(|c| (*c).to_owned()).collect(),
        };
        let mut sink = DeltaSink::open(&self.storage(region), spec, FileOptions::default()).await.unwrap();
        let app_id: Arc<str> =
            format!("test/{}", self.offsets.fetch_add(1, std::sync::atomic::Ordering::Relaxed)).into();
        let rows = vec![RoutedBatch { batch, groups: groups.into_iter().collect() }];
        let parts = vec![PartitionRows { app_id, expected: None, last: 1, rows }];
        sink.commit(TableEpoch { epoch: 1, parts }).await.unwrap();
    }

    pub async fn ask(&self, token: &str, sql: &str) -> Answer {
        let body = serde_json::json!({ "sql": sql }).to_string();
        self.post(token, &[("content-type", "application/json")], body).await
    }

    pub async fn post(&self, token: &str, headers: &[(&str, &str)], body: String) -> Answer {
        self.send(Request::post("/v1/sql"), token, headers, body).await
    }

    pub async fn send(
        &self,
        request: axum::http::request::Builder,
        token: &str,
        headers: &[(&str, &str)],
        body: String,
    ) -> Answer {
        let mut request = request.header("authorization", format!("Bearer {token}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.app.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let (mut stream, mut body, mut complete) = (body.into_data_stream(), Vec::new(), true);
        while let Some(chunk) = futures::StreamExt::next(&mut stream).await {
            match chunk {
                Ok(chunk) => body.extend_from_slice(&chunk),
                Err(_) => complete = false,
            }
        }
        Answer { status: parts.status, headers: parts.headers, body, complete }
    }
}

fn tokens() -> Vec<TokenGrant> {
    let grant = |id: &str, tenant: &str, permission, envs: Option<&str>, regions: Option<&str>| TokenGrant {
        id: id.to_owned(),
        sha256: token_digest(id),
        permissions: [permission].into(),
        scope: Scope {
            tenant: tenant.to_owned(),
            envs: envs.map(|e| [e.to_owned()].into()),
            regions: regions.map(|r| [r.to_owned()].into()),
        },
        expires_at: None,
    };
    vec![
        grant("alpha", "alpha", Permission::Query, None, None),
        grant("alpha-prod", "alpha", Permission::Query, Some("prod"), None),
        grant("alpha-us", "alpha", Permission::Query, None, Some("us-east-1")),
        grant("alpha-ingest", "alpha", Permission::Ingest, None, None),
        grant("operator", "alpha", Permission::Operate, None, None),
        grant("beta", "beta", Permission::Query, None, None),
        grant("stranger", "gamma", Permission::Query, None, None),
    ]
}

pub fn event(
    tenant: &str,
    env: &str,
    region: &str,
    user: &str,
    feature: &str,
    payload: &str,
) -> Vec<(&'static str, String)> {
    vec![
        ("event_id", format!("id-{user}")),
        ("occurred_at", "2026-01-02T03:04:05Z".to_owned()),
        ("tenant", tenant.to_owned()),
        ("env", env.to_owned()),
        ("region", region.to_owned()),
        ("user_id", user.to_owned()),
        ("feature", feature.to_owned()),
        ("payload", payload.to_owned()),
        ("day", "2026-01-02".to_owned()),
    ]
}

/// A column of the rows' values by name; required columns that no row names get a filler.
fn column(field: &arrow::datatypes::Field, rows: &[Vec<(&str, String)>]) -> ArrayRef {
    let values: Vec<Option<&str>> =
        rows.iter().map(|row| row.iter().find(|(n, _)| n == field.name()).map(|(_, v)| v.as_str())).collect();
    if values.iter().all(Option::is_none) {
        return match (field.is_nullable(), field.data_type()) {
            (true, data_type) => new_null_array(data_type, rows.len()),
            (_, DataType::Int32) => Arc::new(Int32Array::from(vec![0; rows.len()])),
            (_, DataType::Int64) => Arc::new(Int64Array::from(vec![0; rows.len()])),
            (_, DataType::Float64) => Arc::new(Float64Array::from(vec![0.0; rows.len()])),
            (_, DataType::Utf8) => Arc::new(StringArray::from(vec!["-"; rows.len()])),
            (_, other) => cast(&StringArray::from(vec!["2026-01-02T03:04:06Z"; rows.len()]), other).unwrap(),
        };
    }
    cast(&StringArray::from(values), field.data_type()).unwrap()
}
