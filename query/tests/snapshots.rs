//! What a query reads: the scope's rows of one version of each table, the newest there is.

mod support;

use companyos_query::QueryConfig;
use companyos_schemas::Stream;
use support::{ALPHA_ROWS, BETA_ROWS, Fixture, event};

const COUNT: &str = "SELECT count(*) AS n FROM product_events";

#[tokio::test(flavor = "multi_thread")]
async fn each_token_reads_its_own_rows() {
    let fixture = Fixture::filled(QueryConfig::default()).await;
    for (token, rows) in
        [("alpha", ALPHA_ROWS), ("alpha-prod", ALPHA_ROWS / 2), ("alpha-us", ALPHA_ROWS / 2), ("beta", BETA_ROWS)]
    {
        assert_eq!(fixture.ask(token, COUNT).await.single(), rows, "{token}");
    }
    // Quarantine: the tenant's rows of both regions; nobody's rows stay nobody's.
    assert_eq!(fixture.ask("alpha", "SELECT count(*) FROM quarantine").await.single(), 2);
    // Never written to, so there is no Delta table: empty, with its columns.
    let empty = fixture.ask("alpha", "SELECT kind, severity FROM ops_events").await.json();
    assert_eq!(empty["row_count"], 0);
    assert_eq!(empty["schema"][0]["name"], "kind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_seen_by_the_next_query_and_a_query_sees_one_version() {
    let fixture = Fixture::filled(QueryConfig::default()).await;
    let twice = "SELECT (SELECT count(*) FROM product_events) = (SELECT count(*) FROM product_events AS other) \
                 AND count(*) = (SELECT count(*) FROM product_events a JOIN product_events b USING (event_id)) AS same \
                 FROM product_events";
    let writer = async {
        for n in 0..12 {
            let rows = [event("alpha", "prod", "eu-west-1", &format!("late-{n}"), "feature-x", "{}")];
            fixture.append(Stream::ProductEvents, "eu-west-1", &rows).await;
            assert_eq!(fixture.ask("alpha", COUNT).await.single(), ALPHA_ROWS + n + 1);
        }
    };
    let reader = async {
        for _ in 0..12 {
            assert_eq!(fixture.ask("alpha", twice).await.single(), true);
        }
    };
    tokio::join!(writer, reader);
    let answer = fixture.ask("alpha", COUNT).await;
    let versions = answer.headers["x-snapshot"].to_str().unwrap();
    assert!(versions.contains("product_events@eu-west-1=13"), "{versions}");
    assert!(versions.contains("product_events@us-east-1=1"), "{versions}");
}
