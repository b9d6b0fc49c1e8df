//! Views are read with the reader's scope, like every table.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use axum::http::{Request, StatusCode};
use companyos_query::QueryConfig;
use serde_json::json;
use support::{ALPHA_ROWS, BETA_ROWS, Fixture};

async fn with_view() -> Fixture {
    let fixture = Fixture::filled(QueryConfig::default()).await;
    fixture
        .create_view(
            "CREATE MATERIALIZED VIEW adoption AS SELECT feature, tumble(interval '1 day') AS day, count(*) AS events, \
         count(DISTINCT user_id) AS users, max(user_id) AS last_user FROM product_events \
         GROUP BY feature, tumble(interval '1 day')",
        )
        .await
        .unwrap();
    fixture.build_views().await;
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_shows_the_readers_rows_and_no_others() {
    let fixture = with_view().await;
    for (token, events) in
        [("alpha", ALPHA_ROWS), ("alpha-prod", ALPHA_ROWS / 2), ("alpha-us", ALPHA_ROWS / 2), ("beta", BETA_ROWS)]
    {
        let answer = fixture.ask(token, "SELECT sum(events) FROM adoption").await;
        assert_eq!(answer.single(), json!(events), "{token}");
    }
    for sql in [
        "SELECT * FROM adoption",
        "SELECT * FROM adoption WHERE tenant = 'beta'",
        "SELECT cast(last_user AS int) FROM adoption",
        "SELECT 1 / (CASE WHEN feature = 'betafeature' THEN 0 ELSE 1 END) FROM adoption",
        "SELECT max(users), min(feature), max(last_user) FROM adoption",
        "SELECT * FROM adoption WHERE events / (CASE WHEN tenant = 'beta' THEN 0 ELSE 1 END) > 0",
        "EXPLAIN SELECT * FROM adoption WHERE feature = 'x'",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM information_schema.views",
        "DESCRIBE adoption",
    ] {
        let answer = fixture.ask("alpha", sql).await;
        let seen = format!("{:?} {}", answer.headers, answer.text());
        for marker in ["BETASECRET", "3717", "4717", ".parquet", "_delta_log", "file://"] {
            assert!(!seen.contains(marker), "{marker} in the answer to {sql}: {seen}");
        }
        assert!(sql.contains("betafeature") || !seen.contains("betafeature"), "{sql}: {seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_can_be_joined_filtered_and_is_listed() {
    let fixture = with_view().await;
    let join = "SELECT count(*) FROM product_events p JOIN adoption a ON p.feature = a.feature AND p.env = a.env \
                AND p.region = a.region";
    assert_eq!(fixture.ask("alpha", join).await.single(), json!(ALPHA_ROWS));
    let filter =
        "SELECT sum(events) FROM adoption WHERE env = 'prod' AND feature = 'feature-x' AND day >= '2026-01-01'";
    assert_eq!(fixture.ask("alpha", filter).await.single(), json!(ALPHA_ROWS / 2));
    let listed = fixture.ask("alpha", "SELECT table_type FROM information_schema.tables WHERE table_name = 'adoption'");
    assert_eq!(listed.await.single(), json!("VIEW"));
    for table in ["slo_burn", "slo_alerts", "detections"] {
        let empty = fixture.ask("alpha", &format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(empty.single(), json!(0), "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_being_built_says_so() {
    let fixture = Fixture::filled(QueryConfig::default()).await;
    fixture.create_view("CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS n FROM product_events").await.unwrap();
    let answer = fixture.ask("alpha", "SELECT * FROM totals").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text());
    assert!(answer.text().contains("is being built: 0 of 2 parts"), "{}", answer.text());
    fixture.build_views().await;
    tokio::time::timeout(Duration::from_secs(10), async {
        while fixture.ask("alpha", "SELECT * FROM totals").await.status != StatusCode::OK {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the view is readable once it is built");
}

#[tokio::test(flavor = "multi_thread")]
async fn views_are_made_and_dropped_by_request_with_the_permission_for_it() {
    let fixture = Fixture::filled(QueryConfig::default()).await;
    let text = [("content-type", "text/plain")];
    let sql = "CREATE MATERIALIZED VIEW totals AS SELECT count(*) AS n FROM product_events";
    let send =
        async |token: &str, sql: &str| fixture.send(Request::post("/v1/views"), token, &text, sql.to_owned()).await;
    assert_eq!(send("alpha", sql).await.status, StatusCode::FORBIDDEN);
    assert_eq!(send("nobody", sql).await.status, StatusCode::UNAUTHORIZED);
    let made = send("operator", sql).await;
    assert_eq!(made.status, StatusCode::ACCEPTED, "{}", made.text());
    assert_eq!(made.json(), json!({"view": "totals", "changed": true}));
    assert_eq!(send("operator", sql).await.json(), json!({"view": "totals", "changed": false}));
    let other = sql.replace("count(*)", "count(user_id)");
    let conflict = send("operator", &other).await;
    assert_eq!(conflict.status, StatusCode::CONFLICT, "{}", conflict.text());
    let refused = send("operator", "CREATE MATERIALIZED VIEW m AS SELECT median(value) FROM sli_metrics").await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.text().contains("line 1, column 38: median has to keep every value"), "{}", refused.text());
    assert_eq!(send("operator", "SELECT 1").await.status, StatusCode::BAD_REQUEST);
    fixture.build_views().await;
    let listed = fixture.send(Request::get("/v1/views"), "beta", &[], String::new()).await.json();
    assert_eq!((&listed[0]["name"], &listed[0]["ready"]), (&json!("totals"), &json!(true)), "{listed}");
    let answer = fixture.ask("beta", "SELECT sum(n) FROM totals").await;
    assert_eq!(answer.single(), json!(BETA_ROWS));
    assert_eq!(send("operator", "DROP MATERIALIZED VIEW totals").await.status, StatusCode::ACCEPTED);
    assert_eq!(fixture.ask("beta", "SELECT * FROM totals").await.status, StatusCode::BAD_REQUEST);
    let again = send("operator", "DROP MATERIALIZED VIEW totals").await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST, "{}", again.text());
    let absent = send("operator", "DROP MATERIALIZED VIEW IF EXISTS totals").await;
    assert_eq!(absent.json(), json!({"view": "totals", "changed": false}));
}
