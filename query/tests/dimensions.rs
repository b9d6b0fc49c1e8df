//! Dimensions are read and joined with the reader's scope, like every table.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use companyos_pipelines::views::{DimensionError, LoadDimension, RegistryError, ViewRegistry, erase_from_dimensions};
use companyos_query::QueryConfig;
use companyos_sinks::storage::Storage;
use serde_json::json;
use support::{ALPHA_ROWS, BETA_ROWS, Fixture, views::REGIONS};

const VIEW: &str = "CREATE MATERIALIZED VIEW by_category AS SELECT f.category, count(*) AS n FROM product_events \
                    LEFT JOIN features f ON product_events.feature = f.name GROUP BY f.category";

struct Place<'a> {
    fixture: &'a Fixture,
    registry: ViewRegistry,
}

impl<'a> Place<'a> {
    fn new(fixture: &'a Fixture) -> Self {
        Self { fixture, registry: fixture.registry() }
    }

    fn storages(&self) -> BTreeMap<String, Storage> {
        REGIONS.map(|region| (region.to_owned(), self.fixture.storage(region))).into()
    }

    async fn load(&mut self, name: &str, shared: bool, columns: &[(&str, &[&str])]) -> Result<u64, DimensionError> {
        let columns =
            columns.iter().map(|(name, values)| (*name, Arc::new(StringArray::from(values.to_vec())) as ArrayRef));
        let rows = [RecordBatch::try_from_iter(columns).unwrap()];
        let storages = self.storages();
        let load = LoadDimension { name, rows: &rows, shared, home_region: REGIONS[0], storages: &storages };
        load.run(&mut self.registry).await
    }

    async fn create(&mut self, sql: &str) -> Result<bool, RegistryError> {
        self.registry.create(sql, REGIONS.map(str::to_owned).into(), 1, false, false).await
    }

    async fn build(&self) {
        self.fixture.build_views().await;
    }
}

/// Names and values.
type Columns = &'static [(&'static str, &'static [&'static str])];

/// A query process looks at the registry a few times a second.
async fn until(fixture: &Fixture, sql: &str, seen: impl Fn(&support::Answer) -> bool) {
    tokio::time::timeout(Duration::from_secs(10), async {
        while !seen(&fixture.ask("alpha", sql).await) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("{sql} never shows the change"));
}

/// Features of both tenants have the same names; what they are called is each tenant's own.
const TENANT_FEATURES: &[(&str, &[&str])] = &[
    ("tenant", &["alpha", "beta", "beta"]),
    ("name", &["feature-x", "feature-x", "betafeature"]),
    ("category", &["alpha-things", "BETASECRET", "BETASECRET"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_view_joins_the_tenants_own_rows() {
    let fixture = Fixture::filled(QueryConfig::default()).await;
    let mut place = Place::new(&fixture);
    place.load("features", false, TENANT_FEATURES).await.unwrap();
    place.create(VIEW).await.unwrap();
    place.build().await;
    let alpha = fixture.ask("alpha", "SELECT category, sum(n) AS n FROM by_category GROUP BY category").await;
    assert!(alpha.text().contains("alpha-things"), "{}", alpha.text());
    assert!(!alpha.text().contains("BETASECRET"), "{}", alpha.text());
    // No row is lost by the join, and none is doubled by the other tenant's row of the same name.
    for (token, rows) in [("alpha", ALPHA_ROWS), ("alpha-us", ALPHA_ROWS / 2), ("beta", BETA_ROWS)] {
        assert_eq!(fixture.ask(token, "SELECT sum(n) FROM by_category").await.single(), json!(rows), "{token}");
    }
    assert_eq!(fixture.ask("alpha", "SELECT count(*) FROM features").await.single(), json!(1));
    assert_eq!(fixture.ask("beta", "SELECT count(*) FROM features").await.single(), json!(2));
    for sql in [
        "SELECT * FROM features",
        "SELECT * FROM features WHERE tenant = 'beta'",
        "SELECT cast(category AS int) FROM features",
        "SELECT 1 / (CASE WHEN category = 'BETASECRET' THEN 0 ELSE 1 END) FROM features",
    ] {
        let seen = fixture.ask("alpha", sql).await.text();
        assert!(sql.contains("BETASECRET") && seen.contains('1') || !seen.contains("BETASECRET"), "{sql}: {seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn loading_again_replaces_it_at_once_and_what_views_use_stays() {
    let fixture = Fixture::filled(QueryConfig::default()).await;
    let mut place = Place::new(&fixture);
    place.load("features", true, &[("name", &["feature-x"]), ("category", &["old"])]).await.unwrap();
    place.create(VIEW).await.unwrap();
    place.build().await;
    let categories = "SELECT count(*) FROM by_category WHERE category = 'new'";
    assert_eq!(fixture.ask("alpha", categories).await.single(), json!(0));
    let more: &[(&str, &[&str])] = &[("name", &["feature-x"]), ("category", &["new"]), ("owner", &["me"])];
    place.load("features", true, more).await.unwrap();
    until(&fixture, categories, |answer| answer.single() != json!(0)).await;

    let refused = place.load("features", true, &[("name", &["feature-x"])]).await.unwrap_err().to_string();
    assert!(refused.starts_with("view \"by_category\" joins the dimension \"features\""), "{refused}");
    let number = [RecordBatch::try_from_iter([
        ("name", Arc::new(StringArray::from(vec!["feature-x"])) as ArrayRef),
        ("category", Arc::new(Int64Array::from(vec![1]))),
    ])
    .unwrap()];
    let storages = place.storages();
    let load =
        LoadDimension { name: "features", rows: &number, shared: true, home_region: REGIONS[0], storages: &storages };
    let refused = load.run(&mut place.registry).await.unwrap_err().to_string();
    assert!(refused.contains("would be of another type"), "{refused}");
    let refused = place.registry.drop_dimension("features").await.unwrap_err().to_string();
    assert!(refused.contains("drop the view first"), "{refused}");
    place.registry.drop_view("by_category").await.unwrap();
    place.registry.drop_dimension("features").await.unwrap();
    until(&fixture, "SELECT * FROM features", |answer| answer.text().contains("not found")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_show_rows_to_others_is_refused() {
    let fixture = Fixture::filled(QueryConfig::default()).await;
    let mut place = Place::new(&fixture);
    let cases: [(&str, bool, Columns, &str); 7] = [
        ("plans", false, &[("plan", &["pro"])], "column \"tenant\": is missing"),
        ("plans", true, &[("tenant", &["alpha"])], "column \"tenant\": says whose rows they are"),
        ("product_events", true, &[("plan", &["pro"])], "is a table's name"),
        ("view_alerts", true, &[("plan", &["pro"])], "is a table's name"),
        ("Plans", true, &[("plan", &["pro"])], "is not a name"),
        ("plans", true, &[("region", &["eu-west-1", "mars"])], "row 2: there is no region \"mars\""),
        ("plans", true, &[("", &["pro"])], "needs a name of its own"),
    ];
    for (name, shared, columns, problem) in cases {
        let error = place.load(name, shared, columns).await.unwrap_err().to_string();
        assert!(error.contains(problem), "{error} / {problem}");
    }
    let names: BTreeSet<&str> = place.registry.dimensions().iter().map(|(name, _)| name).collect();
    assert!(names.is_empty(), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_region_lie_and_are_read_there() {
    let fixture = Fixture::filled(QueryConfig::default()).await;
    let mut place = Place::new(&fixture);
    let columns: &[(&str, &[&str])] =
        &[("region", &["eu-west-1", "us-east-1", "us-east-1"]), ("team", &["a", "b", "c"])];
    place.load("teams", true, columns).await.unwrap();
    assert_eq!(fixture.ask("alpha", "SELECT count(*) FROM teams").await.single(), json!(3));
    assert_eq!(fixture.ask("alpha-us", "SELECT count(*) FROM teams").await.single(), json!(2));
    for (region, rows) in [("eu-west-1", 1), ("us-east-1", 2)] {
        let dimension = place.registry.dimensions().get("teams").unwrap().clone();
        let path = &dimension.objects[region];
        let stored = companyos_pipelines::views::Dimension::read(&fixture.storage(region), path).await.unwrap();
        assert_eq!(stored.num_rows(), rows, "{region}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_erased_from_dimensions() {
    let fixture = Fixture::filled(QueryConfig::default()).await;
    let mut place = Place::new(&fixture);
    let columns: &[(&str, &[&str])] =
        &[("tenant", &["alpha", "alpha", "beta"]), ("user_id", &["u1", "u2", "u1"]), ("name", &["Ann", "Bo", "Cy"])];
    place.load("people", false, columns).await.unwrap();
    let before = place.registry.dimensions().get("people").unwrap().clone();
    let storages = place.storages();
    let erased = erase_from_dimensions(&mut place.registry, REGIONS[0], &storages, "alpha", "u1").await.unwrap();
    assert_eq!(erased, [("people".to_owned(), 1)]);
    assert_eq!(fixture.ask("alpha", "SELECT min(name) FROM people").await.single(), json!("Bo"));
    assert_eq!(fixture.ask("beta", "SELECT min(name) FROM people").await.single(), json!("Cy"));
    let (storage, path) = (fixture.storage(REGIONS[0]), &before.objects[REGIONS[0]]);
    let gone = companyos_pipelines::views::Dimension::read(&storage, path).await;
    assert!(gone.is_err(), "the object that held the person's row is deleted");
}
