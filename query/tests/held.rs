//! Views in memory: the same answers as from state, whatever is committed meanwhile, and to each
//! scope its own.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;

use companyos_maintenance::erase;
use companyos_query::QueryConfig;
use companyos_schemas::Stream;
use serde_json::json;
use support::{ALPHA_ROWS, BETA_ROWS, Fixture, event, views::REGIONS};

const ADOPTION: &str = "CREATE MATERIALIZED VIEW adoption AS SELECT feature, tumble(interval '1 day') AS day, \
     count(*) AS events, count(DISTINCT user_id) AS users, max(user_id) AS last_user FROM product_events \
     GROUP BY feature, tumble(interval '1 day') HAVING count(*) > 0";
/// Merged whenever it is read, as each event is in two windows.
const HOURLY: &str = "CREATE MATERIALIZED VIEW hourly AS SELECT hop(interval '2 hours', interval '1 hour') AS hour, \
     count(*) AS events FROM product_events GROUP BY hop(interval '2 hours', interval '1 hour')";
const TOKENS: [&str; 4] = ["alpha", "alpha-prod", "alpha-us", "beta"];

async fn filled(config: QueryConfig) -> Fixture {
    let fixture = Fixture::filled(config).await;
    for sql in [ADOPTION, HOURLY] {
        fixture.create_view(sql).await.unwrap();
    }
    fixture.build_views().await;
    fixture
}

/// Asks until the view is answered from memory, which its plan shows.
async fn until_held(fixture: &Fixture, token: &str, view: &str) {
    let held = async {
        while fixture.ask(token, &format!("EXPLAIN SELECT * FROM {view}")).await.text().contains("ScopedScan") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), held).await.expect("the view is held");
}

async fn sums(fixture: &Fixture, token: &str) -> [i64; 3] {
    let mut sums = [0; 3];
    for (sum, of) in sums.iter_mut().zip(["events) FROM adoption", "users) FROM adoption", "events) FROM hourly"]) {
        *sum = fixture.ask(token, &format!("SELECT sum({of}")).await.single().as_i64().unwrap_or(0);
    }
    sums
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_view_shows_the_readers_rows_and_no_others() {
    let fixture = filled(QueryConfig::default()).await;
    for token in TOKENS {
        until_held(&fixture, token, "adoption").await;
        until_held(&fixture, token, "hourly").await;
    }
    for (token, events) in TOKENS.into_iter().zip([ALPHA_ROWS, ALPHA_ROWS / 2, ALPHA_ROWS / 2, BETA_ROWS]) {
        assert_eq!(sums(&fixture, token).await, [events, events, 2 * events], "{token}");
    }
    for sql in [
        "SELECT * FROM adoption",
        "SELECT * FROM adoption WHERE tenant = 'beta' OR true",
        "SELECT max(users), min(feature), max(last_user) FROM adoption",
        "SELECT cast(last_user AS int) FROM adoption",
        "SELECT * FROM hourly",
        "EXPLAIN ANALYZE SELECT * FROM adoption",
        "EXPLAIN VERBOSE SELECT * FROM hourly",
    ] {
        let answer = fixture.ask("alpha", sql).await;
        let seen = format!("{:?} {}", answer.headers, answer.text());
        for marker in ["BETASECRET", "betafeature", "3717", "4717", ".parquet", "file://"] {
            assert!(!seen.contains(marker), "{marker} in the answer to {sql}: {seen}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_folds_and_erasures_show_in_the_next_query() {
    let fixture = filled(QueryConfig::default()).await;
    let unheld = QueryConfig { held_views_bytes: 0, ..QueryConfig::default() };
    let beside = fixture.engine_with(unheld);
    for token in TOKENS {
        until_held(&fixture, token, "adoption").await;
        until_held(&fixture, token, "hourly").await;
    }
    let mut maintainers = REGIONS.map(|region| (region, fixture.maintainer(region)));
    // More commits than state is folded after.
    for n in 0..30_i64 {
        for (region, maintainer) in &mut maintainers {
            let user = format!("late-{}", n % 7);
            let rows = vec![
                event("alpha", "prod", region, &user, "feature-x", "{}"),
                event("beta", "staging", region, &format!("BETASECRET-{n}"), &format!("feature-{n}"), "{}"),
            ];
            fixture.append(Stream::ProductEvents, region, &rows).await;
            while maintainer.round().await.unwrap() {}
        }
        let alpha = sums(&fixture, "alpha").await;
        assert_eq!(alpha[0], ALPHA_ROWS + 2 * (n + 1), "after {n}");
        assert_eq!(alpha[2], 2 * alpha[0], "after {n}");
        assert_eq!(sums(&fixture, "beta").await[0], BETA_ROWS + 2 * (n + 1), "after {n}");
        assert_eq!(sums(&fixture, "alpha-us").await[0], ALPHA_ROWS / 2 + n + 1, "after {n}");
    }
    for token in TOKENS {
        assert_eq!(sums(&fixture, token).await, sums(&beside, token).await, "{token}");
    }
    let before = sums(&fixture, "alpha").await;
    for (region, maintainer) in &mut maintainers {
        let erased = erase(&fixture.storage(region), "product_events", "alpha", "user_id", "late-3").await.unwrap();
        assert!(erased.rows > 0);
        while maintainer.round().await.unwrap() {}
    }
    for token in TOKENS {
        assert_eq!(sums(&fixture, token).await, sums(&beside, token).await, "{token}");
        until_held(&fixture, token, "adoption").await;
        assert_eq!(sums(&fixture, token).await, sums(&beside, token).await, "{token} held again");
    }
    let after = sums(&fixture, "alpha").await;
    assert!(after[0] < before[0] && after[1] < before[1], "{before:?} {after:?}");
    assert!(!fixture.ask("alpha", "SELECT last_user FROM adoption").await.text().contains("late-3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_made_anew_is_not_answered_by_the_old_one() {
    let fixture = filled(QueryConfig::default()).await;
    until_held(&fixture, "alpha", "adoption").await;
    let other = ADOPTION.replace("CREATE", "CREATE OR REPLACE").replace("count(*) AS events", "2 * count(*) AS events");
    fixture.create_view(&other).await.unwrap();
    fixture.build_views().await;
    let swapped = async {
        while sums(&fixture, "alpha").await[0] != 2 * ALPHA_ROWS {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), swapped).await.expect("the new view is shown");
    until_held(&fixture, "alpha", "adoption").await;
    assert_eq!(sums(&fixture, "alpha").await[0], 2 * ALPHA_ROWS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_larger_than_the_memory_for_it_is_read_from_state() {
    let fixture = filled(QueryConfig { held_views_bytes: 4096, ..QueryConfig::default() }).await;
    for _ in 0..5 {
        assert_eq!(fixture.ask("beta", "SELECT sum(users) FROM adoption").await.single(), json!(BETA_ROWS));
    }
    let plan = fixture.ask("beta", "EXPLAIN SELECT * FROM adoption").await;
    assert!(plan.text().contains("ScopedScan"), "{}", plan.text());
}
