//! The standing oracle: whatever the portions, the order and the folding in between, a view's answer
//! is that of the batch query.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod batch;
mod cases;
mod events;
mod refusals;

use std::sync::Arc;

use companyos_schemas::Stream;
use companyos_views::{Dimensions, HeldRows, HeldView, ReadInput, ViewPlan, ViewStatement, parse};
use datafusion::{
    arrow::{
        array::{RecordBatch, UInt32Array},
        compute::concat_batches,
        datatypes::SchemaRef,
    },
    catalog::TableProvider,
    datasource::MemTable,
    physical_plan::collect,
    prelude::SessionContext,
};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

use crate::{batch::rows_of, cases::Case};

struct Features;

impl Dimensions for Features {
    fn schema(&self, name: &str) -> Option<SchemaRef> {
        (name == "features").then(|| events::features().schema())
    }
}

fn plan(sql: &str) -> ViewPlan {
    let ViewStatement::Create { name, options, query, .. } = parse(sql).unwrap() else { panic!("{sql}") };
    ViewPlan::new(&name, &query, options, &Features).unwrap_or_else(|e| panic!("{sql}: {e}"))
}

/// Takes the events in by random portions in random order, folding now and then.
async fn answer(view: &ViewPlan, events: &RecordBatch, rng: &mut StdRng) -> Vec<RecordBatch> {
    let mut order: Vec<u32> = (0..events.num_rows() as u32).collect();
    if rng.random_bool(0.7) {
        order.shuffle(rng);
    }
    let shuffled = datafusion::arrow::compute::take_record_batch(events, &UInt32Array::from(order)).unwrap();
    let mut state: Vec<RecordBatch> = Vec::new();
    let mut at = 0;
    while at < shuffled.num_rows() {
        let rows = rng.random_range(1..=1 + shuffled.num_rows() / 4).min(shuffled.num_rows() - at);
        let portion = shuffled.slice(at, rows);
        at += rows;
        let half = rows / 2;
        state.extend(view.partial(&[portion.slice(0, half), portion.slice(half, rows - half)]).await.unwrap());
        if rng.random_bool(0.3) {
            state.shuffle(rng);
            let kept = state.split_off(rng.random_range(0..=state.len()));
            let folded = view.fold(&state).await.unwrap();
            state = kept.into_iter().chain(folded).collect();
        }
    }
    read(view, state, None, &[]).await
}

async fn read(
    view: &ViewPlan,
    state: Vec<RecordBatch>,
    projection: Option<&[usize]>,
    filters: &[datafusion::prelude::Expr],
) -> Vec<RecordBatch> {
    let context = SessionContext::new();
    let partitions = match state.is_empty() {
        true => vec![Vec::new()],
        false => state.into_iter().map(|batch| vec![batch]).collect(),
    };
    let state = Arc::new(MemTable::try_new(view.state_schema.clone(), partitions).unwrap());
    let dimension = view.dimension.as_ref().map(|_| {
        let features = events::features();
        Arc::new(MemTable::try_new(features.schema(), vec![vec![features]]).unwrap()) as Arc<dyn TableProvider>
    });
    let plan = view.read(&context, ReadInput { state, dimension }, projection, filters).await.unwrap();
    collect(plan, context.task_ctx()).await.unwrap()
}

async fn check(case: &Case, seed: u64, rows: usize) {
    let mut rng = StdRng::seed_from_u64(seed);
    let events = match case.stream {
        Stream::SliMetrics => events::sli_metrics(&mut rng, rows),
        _ => events::product_events(&mut rng, rows),
    };
    let view = plan(&case.view());
    let ours = rows_of(&answer(&view, &events, &mut rng).await);
    let batch = batch::answer(case, &events).await;
    batch::compare(case, &ours, &batch).unwrap_or_else(|problem| {
        panic!("{} (seed {seed}, {rows} rows): {problem}\n{}", case.name, case.view());
    });
    let held = rows_of(&held(&view, &events, &mut rng).await);
    batch::compare(case, &held, &batch).unwrap_or_else(|problem| {
        panic!("{} held in memory (seed {seed}, {rows} rows): {problem}\n{}", case.name, case.view());
    });
}

/// What a view held in memory shows after taking state in by random portions, looked at now and
/// then in between.
async fn held(view: &ViewPlan, events: &RecordBatch, rng: &mut StdRng) -> Vec<RecordBatch> {
    let mut held = HeldView::new(view).unwrap();
    let mut order: Vec<u32> = (0..events.num_rows() as u32).collect();
    order.shuffle(rng);
    let shuffled = datafusion::arrow::compute::take_record_batch(events, &UInt32Array::from(order)).unwrap();
    let mut at = 0;
    while at < shuffled.num_rows() {
        let rows = rng.random_range(1..=1 + shuffled.num_rows() / 8).min(shuffled.num_rows() - at);
        let state: Vec<_> = view.partial(&[shuffled.slice(at, rows)]).await.unwrap().into_iter().collect();
        held.take_in(view, &state).await.unwrap();
        at += rows;
    }
    match held.rows() {
        HeldRows::Answer(rows) => rows,
        HeldRows::State(state) => read(view, state, None, &[]).await,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn every_case_equals_the_batch_query() {
    let all = cases::all();
    assert!(all.len() >= 40, "{} cases", all.len());
    let runtime = runtime();
    for case in &all {
        for seed in 0..3 {
            runtime.block_on(check(case, seed, 300));
        }
        runtime.block_on(check(case, 99, 1));
        runtime.block_on(check(case, 98, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn random_definitions_equal_the_batch_query(case in cases::random(), seed in any::<u64>(), rows in 0usize..400) {
        runtime().block_on(check(&case, seed, rows));
    }
}

/// More keys than a part of a held answer has, touched again and again, so that parts are put
/// together and made anew; keys that HAVING lets in, and later out.
#[test]
fn what_is_held_stays_right_over_many_keys_and_portions() {
    runtime().block_on(async {
        let mut rng = StdRng::seed_from_u64(11);
        let events = events::product_events(&mut rng, 18_000);
        let view = plan(
            "CREATE MATERIALIZED VIEW v AS SELECT _offset, count(*) AS n, count(DISTINCT feature) AS features, \
             max(occurred_at) AS newest FROM product_events GROUP BY _offset HAVING count(*) < 3",
        );
        let mut held = HeldView::new(&view).unwrap();
        let mut all = Vec::new();
        for round in 0..140 {
            let rows = match round {
                0 => events.clone(),
                // All at once, so that most of what is held is dead.
                70 => events.slice(0, 15_000),
                _ => events.slice(rng.random_range(0..17_800), rng.random_range(1..200)),
            };
            let state: Vec<_> = view.partial(&[rows]).await.unwrap().into_iter().collect();
            held.take_in(&view, &state).await.unwrap();
            all.extend(state);
            if round % 23 == 0 || round >= 138 {
                let HeldRows::Answer(rows) = held.rows() else { panic!("held as an answer") };
                let mut whole = rows_of(&read(&view, all.clone(), None, &[]).await);
                let mut rows = rows_of(&rows);
                whole.sort();
                rows.sort();
                assert!(whole.len() > 1000);
                assert!(rows == whole, "after {round}: {} rows and {}", rows.len(), whole.len());
            }
        }
    });
}

#[test]
fn filters_and_projections_read_less_and_change_nothing() {
    use datafusion::prelude::{col, lit};
    runtime().block_on(async {
        let mut rng = StdRng::seed_from_u64(5);
        let events = events::sli_metrics(&mut rng, 400);
        let view = plan(
            "CREATE MATERIALIZED VIEW v AS SELECT service, tumble(interval '1 hour') AS hour, count(*) AS n, \
             avg(value) AS mean, stddev(value) AS spread FROM sli_metrics GROUP BY service, tumble(interval '1 hour') \
             HAVING count(*) > 1",
        );
        let state: Vec<RecordBatch> = view.partial(&[events]).await.unwrap().into_iter().collect();
        let all = read(&view, state.clone(), None, &[]).await;
        let all = concat_batches(&all[0].schema(), &all).unwrap();
        let service = view.schema.index_of("service").unwrap();
        let mean = view.schema.index_of("mean").unwrap();
        let filter = col("service").eq(lit("api"));
        let some = read(&view, state, Some(&[service, mean]), std::slice::from_ref(&filter)).await;
        let expected = SessionContext::new().read_batch(all).unwrap().filter(filter).unwrap();
        let expected = expected.select_columns(&["service", "mean"]).unwrap().collect().await.unwrap();
        let (mut some, mut expected) = (rows_of(&some), rows_of(&expected));
        some.sort();
        expected.sort();
        assert!(!expected.is_empty());
        assert_eq!(some, expected);
    });
}

#[test]
fn explain_prints_both_halves() {
    let view = plan(
        "CREATE MATERIALIZED VIEW v AS SELECT feature, tumble(interval '1 day') AS day, count(*) AS n \
         FROM product_events WHERE role <> 'bot' GROUP BY feature, tumble(interval '1 day')",
    );
    let text = runtime().block_on(companyos_views::explain(&view)).unwrap();
    for part in ["mode=Partial", "mode=Final", "FilterExec: role", "stream: product_events", "date_bin"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn state_of_another_definition_has_another_table() {
    let a = plan("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM product_events");
    let again = plan("create materialized view v as select count(*) as n from product_events");
    let b = plan("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM product_events WHERE role = 'x'");
    assert_eq!(a.table, again.table);
    assert_ne!(a.table, b.table);
    assert!(a.table.starts_with("view_v_"));
}

#[test]
fn members_of_a_json_payload_are_keys_filters_and_values() {
    runtime().block_on(async {
        let mut rng = StdRng::seed_from_u64(7);
        let events = events::product_events(&mut rng, 4);
        let mut columns = events.columns().to_vec();
        let payloads = [
            r#"{"plan": "pro", "cart": {"total": 3}}"#,
            r#"{"plan": "pro", "cart": {"total": 4}}"#,
            r#"{"plan": "free", "cart": {"total": 50}}"#,
            r#"{"cart": {"total": "many"}}"#,
        ];
        let payload: datafusion::arrow::array::StringArray = payloads.into_iter().map(Some).collect();
        columns[events.schema().index_of("payload").unwrap()] = Arc::new(payload);
        let events = RecordBatch::try_new(events.schema(), columns).unwrap();
        let view = plan(
            "CREATE MATERIALIZED VIEW v AS SELECT payload->>'plan' AS plan, count(*) AS n, \
             sum(json_get_int(payload, 'cart', 'total')) AS total FROM product_events \
             WHERE payload->>'plan' = 'pro' OR payload->>'plan' IS NULL GROUP BY payload->>'plan'",
        );
        let state: Vec<RecordBatch> = view.partial(&[events]).await.unwrap().into_iter().collect();
        let answer = read(&view, state, None, &[]).await;
        let context = SessionContext::new();
        context.register_batch("v", concat_batches(&answer[0].schema(), &answer).unwrap()).unwrap();
        let sql = "SELECT plan, sum(n) AS n, sum(total) AS total FROM v GROUP BY plan ORDER BY plan";
        let rows = context.sql(sql).await.unwrap().to_string().await.unwrap();
        insta::assert_snapshot!(rows, @r"
        +------+---+-------+
        | plan | n | total |
        +------+---+-------+
        | pro  | 2 | 7     |
        |      | 1 |       |
        +------+---+-------+
        ");
    });
}
