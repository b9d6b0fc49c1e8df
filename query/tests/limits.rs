//! Formats, caps and limits of the endpoint.

mod support;

use arrow::ipc::reader::StreamReader;
use axum::http::StatusCode;
use companyos_query::{QueryConfig, format};
use futures::StreamExt;
use support::{ALPHA_ROWS, Fixture};

fn config(change: impl FnOnce(&mut QueryConfig)) -> QueryConfig {
    let mut config = QueryConfig::default();
    change(&mut config);
    config
}

const ALL: &str = "SELECT event_id, occurred_at, tenant FROM product_events ORDER BY event_id";
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 100000000) a, generate_series(1, 100000000) b";

#[tokio::test(flavor = "multi_thread")]
async fn every_accept_type_gives_the_same_rows() {
    let fixture = Fixture::filled(QueryConfig::default()).await;
    let get = |accept: &'static str| {
        let fixture = &fixture;
        async move {
            let headers = [("content-type", "text/plain"), ("accept", accept)];
            let answer = fixture.post("alpha", &headers, ALL.to_owned()).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            assert!(answer.headers["content-type"].to_str().unwrap().starts_with(accept));
            assert!(answer.complete);
            answer
        }
    };
    let json = get("application/json").await.json();
    assert_eq!((&json["truncated"], &json["row_count"]), (&false.into(), &ALPHA_ROWS.into()));
    let first = &json["rows"][0];
    assert_eq!(first["occurred_at"], "2026-01-02T03:04:05Z");
    let lines = get("application/x-ndjson").await.text();
    let lines: Vec<serde_json::Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(json["rows"].as_array().unwrap(), &lines);
    let csv = get("text/csv").await.text();
    assert_eq!(csv.lines().next(), Some("event_id,occurred_at,tenant"));
    assert_eq!(csv.lines().count() as i64, ALPHA_ROWS + 1);
    assert!(csv.lines().nth(1).unwrap().starts_with(first["event_id"].as_str().unwrap()));
    let arrow = get("application/vnd.apache.arrow.stream").await.body;
    let reader = StreamReader::try_new(arrow.as_slice(), None).unwrap();
    assert_eq!(reader.map(|b| b.unwrap().num_rows() as i64).sum::<i64>(), ALPHA_ROWS);
    let headers = [("content-type", "text/plain"), ("accept", "image/png")];
    assert_eq!(fixture.post("alpha", &headers, ALL.to_owned()).await.status, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_result_says_so_in_every_format() {
    let fixture = Fixture::filled(config(|c| c.max_rows = 5)).await;
    let get = |accept: &'static str| {
        let fixture = &fixture;
        async move {
            let headers = [("content-type", "text/plain"), ("accept", accept)];
            fixture.post("alpha", &headers, ALL.to_owned()).await
        }
    };
    let json = get("application/json").await;
    assert_eq!(json.headers["x-truncated"], "true");
    assert_eq!((&json.json()["truncated"], &json.json()["row_count"]), (&true.into(), &5.into()));
    let lines = get("application/x-ndjson").await.text();
    assert_eq!(lines.lines().count(), 6);
    assert!(lines.lines().last().unwrap().contains("urn:companyos:problem:result-truncated"));
    for accept in ["text/csv", "application/vnd.apache.arrow.stream"] {
        let answer = get(accept).await;
        assert!(!answer.complete && answer.headers["x-truncated"] == "true", "{accept}");
    }
    let exact = fixture.ask("alpha", "SELECT event_id FROM product_events LIMIT 5").await;
    assert_eq!(exact.json()["truncated"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_are_capped_too() {
    let fixture = Fixture::new(config(|c| c.max_bytes = 1 << 20)).await;
    let answer = fixture.ask("alpha", "SELECT * FROM generate_series(1, 10000000)").await;
    assert!(answer.body.len() < 4 << 20);
    assert_eq!(answer.json()["truncated"], true);
    assert!(answer.json()["row_count"].as_u64().unwrap() <= (1 << 20) / 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeout_cancels_and_frees_the_tenants_place() {
    let fixture = Fixture::new(config(|c| {
        c.statement_timeout_seconds = 0.3;
        c.per_tenant_concurrency = 1;
    }))
    .await;
    let answer = fixture.ask("alpha", ENDLESS).await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(fixture.ask("alpha", "SELECT 1").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_queries_than_a_tenant_may_run_are_answered_429_and_others_are_not() {
    let fixture = Fixture::new(config(|c| c.per_tenant_concurrency = 1)).await;
    let scope = |tenant: &str| companyos_schemas::access::Scope { tenant: tenant.into(), envs: None, regions: None };
    let running = fixture.engine.query(&scope("alpha"), ENDLESS, vec![]).await.unwrap();
    let refused = fixture.ask("alpha", "SELECT 1").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(fixture.ask("beta", "SELECT 1").await.status, StatusCode::OK);
    drop(running);
    assert_eq!(fixture.ask("alpha", "SELECT 1").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_by_spilling_or_a_clean_error() {
    let fixture = Fixture::new(config(|c| {
        c.memory_limit_bytes = 48 << 20;
        c.target_partitions = 1;
        c.max_rows = 10;
    }))
    .await;
    // A sort of 64 MB on 48 MiB spills and still gives its first rows.
    let sort =
        "SELECT value, value * 2, value * 3, value * 5 FROM generate_series(1, 2000000) ORDER BY value % 1000, value";
    let sorted = fixture.ask("alpha", sort).await;
    assert_eq!(sorted.status, StatusCode::OK, "{}", sorted.text());
    assert_eq!(sorted.json()["rows"][0]["value"], 1000);
    // What cannot spill fails, and says nothing of who else uses the memory.
    let hoard = "SELECT array_agg(value) AS all, array_agg(value * 2) FROM generate_series(1, 5000000)";
    let refused = fixture.ask("alpha", hoard).await;
    assert_eq!(refused.status, StatusCode::INSUFFICIENT_STORAGE, "{:.200}", refused.text());
    assert_eq!(refused.json()["detail"], "the query needs more memory than is available");
    assert_eq!(fixture.ask("alpha", "SELECT 1").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_texts_are_answered_not_died_of() {
    let fixture = Fixture::new(QueryConfig::default()).await;
    let long = format!("SELECT 1{}", " ".repeat(70_000));
    assert_eq!(fixture.ask("alpha", &long).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    for sql in [
        format!("SELECT {}1{}", "(".repeat(20_000), ")".repeat(20_000)),
        format!("SELECT 1{}", "+1".repeat(20_000)),
        format!("SELECT {}true", "NOT ".repeat(10_000)),
        format!("SELECT 1{}", " UNION ALL SELECT 1".repeat(2_000)),
        format!("SELECT 1 FROM (SELECT 1) t0{}", ", (SELECT 1) t".repeat(2_000)),
    ] {
        let answer = fixture.ask("alpha", &sql).await;
        assert!(answer.status.is_client_error(), "{}: {sql:.40}", answer.status);
    }
    // Just inside the limits: planned, evaluated and dropped again on an ordinary stack.
    let series = "FROM generate_series(1, 3)";
    let joins: String = (0..25).map(|n| format!(", (SELECT {n} AS c{n}) t{n}")).collect();
    for sql in [
        format!("SELECT value{} {series}", "+1".repeat(290)),
        format!("SELECT 1 {series} WHERE true{}", " AND value > 0".repeat(140)),
        format!("SELECT 1 {series} WHERE false{}", " OR value = 7 % value".repeat(95)),
        format!("SELECT value {series}{}", " UNION SELECT 1".repeat(50)),
        format!("SELECT * FROM (SELECT 1) t{joins}"),
    ] {
        let answer = fixture.ask("alpha", &sql).await;
        assert_eq!(answer.status, StatusCode::OK, "{sql:.60}: {:.300}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_written_for_the_command_line() {
    let fixture = Fixture::filled(config(|c| c.max_rows = 5)).await;
    let scope = companyos_schemas::access::Scope { tenant: "alpha".into(), envs: None, regions: None };
    let query = |sql: &'static str| fixture.engine.query(&scope, sql, vec![]);
    let mut table = Vec::new();
    let written = format::write_rows(query(ALL).await.unwrap(), format::OutputFormat::Table, &mut table).await.unwrap();
    assert_eq!((written.rows, written.cut.is_some()), (5, true));
    assert!(String::from_utf8(table).unwrap().contains("| event_id "));
    let mut file = Vec::new();
    format::write_rows(query(ALL).await.unwrap(), format::OutputFormat::Parquet, &mut file).await.unwrap();
    let reader =
        parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(bytes::Bytes::from(file), 100).unwrap();
    assert_eq!(reader.map(|b| b.unwrap().num_rows()).sum::<usize>(), 5);
    let mut rows = query("SELECT 1 WHERE false").await.unwrap().rows;
    assert!(rows.next().await.is_none());
}
