//! Alerts on views over real tables: what fires, is told once, and is resolved.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{
        ArrayRef, Date32Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray, new_null_array,
    },
    datatypes::DataType,
};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use companyos_pipelines::{
    alerts::{Evaluator, FiringRow, ViewAlert, alert_jobs, shipped_alerts},
    tasks::JobContext,
    views::{MaintainerSetup, Shard, ViewMaintainer, ViewRegistry, ViewsConfig},
};
use companyos_schemas::{Stream, arrow_schema};
use companyos_sinks::{
    checkpoint::{NoticeError, NoticeSink, OutgoingNotice},
    delta::{DeltaSink, FileOptions, FileReader, PartitionRows, RoutedBatch, TableEpoch, TableSpec, table_files},
    storage::Storage,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use url::Url;

const SHARD: Shard = Shard { index: 0, of: 1 };

struct World {
    _dir: tempfile::TempDir,
    storage: Storage,
    offsets: HashMap<Stream, i64>,
}

/// Columns that an event of a test gives; the rest is null or nothing.
type Event = (DateTime<Utc>, Vec<(&'static str, Value)>);

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = Url::from_directory_path(dir.path()).unwrap();
        let storage = Storage::open(&url, &BTreeMap::new()).unwrap();
        let mut registry = ViewRegistry::new(&storage);
        registry.create_built_in(&BTreeSet::from(["eu".to_owned()]), SHARD.of).await.unwrap();
        Self { _dir: dir, storage, offsets: HashMap::new() }
    }

    async fn registry(&self) -> ViewRegistry {
        let mut registry = ViewRegistry::new(&self.storage);
        registry.refresh().await.unwrap();
        registry
    }

    fn context(&self) -> JobContext {
        let (storage, home) = (self.storage.clone(), self.storage.clone());
        JobContext { region: Arc::from("eu"), shard: SHARD, storage, home }
    }

    /// One commit to a stream's table, and the views brought up to it.
    async fn write(&mut self, stream: Stream, tenant: &str, events: &[Event]) {
        let schema = arrow_schema::table_schema(stream);
        let rows = events.len();
        let offset = self.offsets.entry(stream).or_default();
        let text = |name: &str, row: usize| {
            let (_, given) = &events[row];
            given.iter().find(|(column, _)| *column == name).map(|(_, value)| value.clone())
        };
        let columns =
            schema.fields().iter().map(|field| -> ArrayRef {
                let name = field.name().as_str();
                match (name, field.data_type()) {
                    ("tenant", _) => Arc::new(StringArray::from(vec![tenant; rows])),
                    ("region", _) => Arc::new(StringArray::from(vec!["eu"; rows])),
                    ("env", _) => Arc::new(StringArray::from(vec!["prod"; rows])),
                    ("day", _) => Arc::new(Date32Array::from_iter_values(
                        events.iter().map(|(at, _)| at.timestamp().div_euclid(86_400) as i32),
                    )),
                    ("_offset", _) => Arc::new(Int64Array::from_iter_values(*offset..*offset + rows as i64)),
                    ("_partition" | "_index", _) => Arc::new(Int32Array::from(vec![0; rows])),
                    (_, DataType::Utf8) => Arc::new(StringArray::from_iter_values((0..rows).map(|row| {
                        text(name, row).map_or_else(String::new, |value| value.as_str().unwrap().to_owned())
                    }))),
                    (_, DataType::Float64) => Arc::new(Float64Array::from_iter(
                        (0..rows).map(|row| text(name, row).map(|value| value.as_f64().unwrap())),
                    )),
                    (_, other) if field.is_nullable() => new_null_array(other, rows),
                    _ => Arc::new(
                        TimestampMicrosecondArray::from_iter_values(events.iter().map(|(at, _)| at.timestamp_micros()))
                            .with_timezone("UTC"),
                    ),
                }
            });
        let batch = RecordBatch::try_new(schema.clone(), columns.collect()).unwrap();
        let mut groups: BTreeMap<Vec<Arc<str>>, Vec<u32>> = BTreeMap::new();
        for (row, (at, _)) in events.iter().enumerate() {
            let values = vec![Arc::from(tenant), Arc::from("eu"), Arc::from(at.date_naive().to_string())];
            groups.entry(values).or_default().push(row as u32);
        }
        let spec = TableSpec {
            name: stream.name().into(),
            schema,
            partition_columns: arrow_schema::PARTITION_COLUMNS.map(str::to_owned).to_vec(),
        };
        let mut sink = DeltaSink::open(&self.storage, spec, FileOptions::default()).await.unwrap();
        let expected = (*offset > 0).then(|| *offset - 1);
        *offset += rows as i64;
        let rows = vec![RoutedBatch { batch, groups: groups.into_iter().collect() }];
        let part = PartitionRows { app_id: "p/t/0".into(), expected, last: *offset - 1, rows };
        sink.commit(TableEpoch { epoch: 1, parts: vec![part] }).await.unwrap();
        self.follow().await;
    }

    async fn follow(&self) {
        let setup = MaintainerSetup {
            config: ViewsConfig { registry_interval: Duration::ZERO, ..ViewsConfig::default() },
            home: self.storage.clone(),
            region: Arc::from("eu"),
            storage: self.storage.clone(),
            archive: None,
            shard: SHARD,
        };
        let mut maintainer = ViewMaintainer::new(setup);
        while maintainer.round().await.unwrap() {}
    }

    async fn ask(&self, alert: &str, now: DateTime<Utc>) -> Option<Vec<FiringRow>> {
        let alerts = shipped_alerts().unwrap();
        let alert = alerts.iter().find(|a| a.name == alert).unwrap();
        let evaluator = Evaluator::new(self.context()).unwrap();
        let mut rows = evaluator.ask(alert, &self.registry().await, now).await.unwrap()?;
        rows.sort_by(|a, b| (&a.tenant, &a.subject).cmp(&(&b.tenant, &b.subject)));
        Some(rows)
    }

    /// `state` and `subject` of the stored changes, oldest first.
    async fn stored(&self) -> Vec<(String, String)> {
        let table = companyos_pipelines::alerts::view_alerts_table();
        let files = table_files(&self.storage, table.name, None).await.unwrap().unwrap();
        let reader = FileReader::new(&self.storage, table.name, table.schema);
        let mut rows = Vec::new();
        for add in &files.files {
            let visit = |batch: RecordBatch| {
                use arrow::array::AsArray;
                let text =
                    |name: &str, row| batch.column_by_name(name).unwrap().as_string::<i32>().value(row).to_owned();
                let at =
                    batch.column_by_name("at").unwrap().as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
                rows.extend((0..batch.num_rows()).map(|row| (at.value(row), text("state", row), text("subject", row))));
                Ok(())
            };
            reader.read(add, visit).await.unwrap();
        }
        rows.sort();
        rows.into_iter().map(|(_, state, subject)| (state, subject)).collect()
    }
}

fn uses(feature: &'static str, day: DateTime<Utc>, times: usize) -> Vec<Event> {
    (0..times)
        .map(|i| (day + TimeDelta::minutes(i as i64), vec![("feature", json!(feature)), ("role", json!("admin"))]))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_top_feature_that_is_used_a_fifth_less_is_a_regression() {
    let mut world = World::new().await;
    let today: DateTime<Utc> = "2026-03-20T00:00:00Z".parse().unwrap();
    assert_eq!(world.ask("adoption_regression", today).await, None, "views that are being built say nothing");
    let day = |ago: i64| today - TimeDelta::days(ago);
    let mut events = Vec::new();
    for (feature, last_week, this_week) in
        [("export", 100, 79), ("search", 100, 80), ("share", 60, 0), ("rare", 49, 0), ("new", 0, 100)]
    {
        events.extend(uses(feature, day(9), last_week));
        events.extend(uses(feature, day(3), this_week));
    }
    // Today is not over yet, and what is older than two weeks is not asked for.
    events.extend(uses("search", day(15), 1000));
    world.write(Stream::ProductEvents, "alpha", &events).await;
    world.write(Stream::ProductEvents, "beta", &uses("export", day(3), 10)).await;
    let rows = world.ask("adoption_regression", today + TimeDelta::hours(5)).await.unwrap();
    let seen: Vec<_> = rows.iter().map(|row| (row.tenant.as_str(), row.subject.as_str())).collect();
    assert_eq!(seen, [("alpha", r#"{"feature":"export"}"#), ("alpha", r#"{"feature":"share"}"#)]);
    let details: Value = serde_json::from_str(&rows[0].details).unwrap();
    assert_eq!(
        (&details["last_week"], &details["this_week"], &details["change"]),
        (&json!(100), &json!(79), &json!(-0.21))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_latency_over_its_target_counts_in_three_whole_intervals_only() {
    let mut world = World::new().await;
    let now: DateTime<Utc> = "2026-03-20T10:02:00Z".parse().unwrap();
    let samples = |service: &'static str, slot: i64, value: f64| -> Vec<Event> {
        let at: DateTime<Utc> = "2026-03-20T10:00:00Z".parse().unwrap();
        (0..20)
            .map(|i| {
                let given = vec![
                    ("service", json!(service)),
                    ("sli_type", json!("latency")),
                    ("value", json!(value)),
                    ("objective", json!(300.0)),
                ];
                (at + TimeDelta::minutes(5 * slot) + TimeDelta::seconds(i), given)
            })
            .collect()
    };
    let mut events = Vec::new();
    for slot in [-3, -2, -1] {
        events.extend(samples("api", slot, 400.0));
        events.extend(samples("web", slot, if slot == -2 { 100.0 } else { 400.0 }));
        // On target is not over it.
        events.extend(samples("edge", slot, 300.0));
    }
    // The interval that is not over yet does not count.
    events.extend(samples("batch", -2, 400.0));
    events.extend(samples("batch", -1, 400.0));
    events.extend(samples("batch", 0, 400.0));
    world.write(Stream::SliMetrics, "alpha", &events).await;
    let rows = world.ask("latency_regression", now).await.unwrap();
    let seen: Vec<_> = rows.iter().map(|row| row.subject.as_str()).collect();
    assert_eq!(seen, [r#"{"service":"api"}"#]);
}

struct Told(mpsc::UnboundedSender<Value>);

#[async_trait]
impl NoticeSink for Told {
    async fn send(&self, notices: &[OutgoingNotice]) -> Result<(), NoticeError> {
        for notice in notices {
            let mut body: Value = serde_json::from_str(&notice.body).unwrap();
            body["id"] = json!(notice.id);
            self.0.send(body).map_err(|e| NoticeError(e.to_string()))?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_is_told_once_across_restarts_and_resolved() {
    let mut world = World::new().await;
    let alert: ViewAlert = serde_json::from_value(json!({
        "name": "some", "severity": "page", "summary": "between three and five", "keys": ["feature"], "every": "0s",
        "query": "SELECT tenant, env, region, feature, sum(events) AS n FROM feature_adoption \
                  GROUP BY tenant, env, region, feature HAVING sum(events) BETWEEN 3 AND 5",
    }))
    .unwrap();
    let broken = ViewAlert { name: "broken".into(), query: "SELECT 1 FROM feature_adoption".into(), ..alert.clone() };
    let (told, mut notices) = mpsc::unbounded_channel();
    let make = alert_jobs(vec![broken, alert], Arc::new(Told(told)));
    let day: DateTime<Utc> = "2026-03-20T00:00:00Z".parse().unwrap();
    let start = |context: JobContext| {
        let (mut job, stop) = (make(&context), CancellationToken::new());
        let stopped = stop.clone();
        (stop, tokio::spawn(async move { job.run(context, stopped).await }))
    };
    // The next owner sends its predecessor's last notice again, under the same id.
    let mut seen = BTreeSet::new();
    let mut next = async |notices: &mut mpsc::UnboundedReceiver<Value>| loop {
        let notice = tokio::time::timeout(Duration::from_secs(30), notices.recv()).await.expect("a notice").unwrap();
        if seen.insert(notice["id"].as_str().unwrap().to_owned()) {
            return notice;
        }
    };
    world.write(Stream::ProductEvents, "alpha", &uses("export", day, 4)).await;
    let (stop, running) = start(world.context());
    let first = next(&mut notices).await;
    assert_eq!((&first["state"], &first["tenant"]), (&json!("firing"), &json!("alpha")));
    assert_eq!(first["subject"], json!({"feature": "export"}));
    stop.cancel();
    running.await.unwrap().unwrap();

    // The next owner knows what fires already, tells of what is new, and of what has ended.
    world.write(Stream::ProductEvents, "alpha", &uses("search", day, 3)).await;
    let (stop, running) = start(world.context());
    let second = next(&mut notices).await;
    assert_eq!(second["subject"], json!({"feature": "search"}), "{second}");
    world.write(Stream::ProductEvents, "alpha", &uses("export", day + TimeDelta::hours(1), 2)).await;
    let third = next(&mut notices).await;
    assert_eq!((&third["state"], &third["subject"]), (&json!("resolved"), &json!({"feature": "export"})));
    assert_eq!(third["alert_id"], first["alert_id"]);
    assert_ne!(third["id"], first["id"]);
    stop.cancel();
    running.await.unwrap().unwrap();
    let row = |state: &str, feature: &str| (state.to_owned(), format!("{{\"feature\":\"{feature}\"}}"));
    assert_eq!(world.stored().await, [row("firing", "export"), row("firing", "search"), row("resolved", "export")]);
}
