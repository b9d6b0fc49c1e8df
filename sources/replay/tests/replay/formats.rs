//! Every format and compression, and the pace.

use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use companyos_source_replay::{Outcome, ReplayError, Speed};
use parquet::arrow::ArrowWriter;
use serde_json::json;

use crate::harness::{MAP, World, body, ids, ndjson, run};

#[tokio::test(flavor = "multi_thread")]
async fn every_format_and_compression_gives_the_same_events() {
    let text = ndjson(0..5);
    let csv: String = std::iter::once("id,at,n\n".to_owned())
        .chain((0..5).map(|i| format!("r-{i:04},{},\"{i}\"\n", 1_700_000_000 + i)))
        .collect();
    let log: String = (0..5).map(|i| format!("[{}] r-{i:04} n={i}\n", 1_700_000_000 + i)).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    // Two members, as `cat a.gz b.gz` makes them.
    let (first, second) = text.split_at(text.find("{\"id\":\"r-0003").unwrap());
    gzip.write_all(first.as_bytes()).unwrap();
    let mut gzipped = gzip.finish().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(second.as_bytes()).unwrap();
    gzipped.extend(gzip.finish().unwrap());
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(StringArray::from_iter_values(ids(0..5))) as ArrayRef),
        ("at", Arc::new(Int64Array::from_iter_values((0..5).map(|i| 1_700_000_000 + i)))),
        ("n", Arc::new(Int64Array::from_iter_values(0..5))),
    ])
    .unwrap();
    let mut parquet = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut parquet, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();

    let files = [
        ("a.ndjson", text.clone().into_bytes()),
        ("a.ndjson.gz", gzipped),
        ("a.jsonl.zst", zstd::encode_all(text.as_bytes(), 3).unwrap()),
        ("a.csv", csv.clone().into_bytes()),
        ("a.csv.zst", zstd::encode_all(csv.as_bytes(), 3).unwrap()),
        ("a.tsv", csv.replace(',', "\t").into_bytes()),
        ("a.log", log.into_bytes()),
        ("a.parquet", parquet),
    ];
    for (name, content) in files {
        let world = World::start().await;
        let file = world.write(name, content);
        let pattern = r"lines: { pattern: '^\[(?P<at>\d+)\] (?P<id>\S+) n=(?P<n>\d+)$' }";
        let map = world
            .write("map.yaml", format!("{MAP}payload:\n  build: {{ n: {{ from: n, then: [number] }} }}\n{pattern}\n"));
        let summary = run(world.options_by(&file, &map)).await.unwrap();
        assert_eq!(
            (summary.outcome, summary.counts.mapped, summary.counts.rows()),
            (Outcome::Complete, 5, 5),
            "{name}"
        );
        assert_eq!(world.event_ids().await, ids(0..5), "{name}");
        for event in world.records("product_events").await.iter().map(body) {
            let i: i64 = event["event_id"].as_str().unwrap()[2..].parse().unwrap();
            assert_eq!(event["payload"], json!({ "n": i }), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_speed_keeps_the_distance_of_the_events() {
    let world = World::start().await;
    let file = world.write("a.ndjson", ndjson(0..5));
    let mut options = world.options(&file);
    // Four seconds of events at twenty times their pace; never sooner, whatever the machine does.
    options.speed = Speed::Times(20.0);
    let started = Instant::now();
    assert_eq!(run(options).await.unwrap().counts.mapped, 5);
    assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_what_they_say_are_refused_before_anything_is_sent() {
    let world = World::start().await;
    let files = [
        ("a.ndjson.gz", "not gzip", "the name says gzip"),
        ("a.data", "?", "cannot tell the format"),
        ("a.csv", "id,id\n1,2\n", "stands twice"),
        ("a.log", "x\n", "needs lines.pattern"),
        ("a.parquet", "PAR1", "a.parquet"),
    ];
    for (name, content, expected) in files {
        let error = run(world.options(&world.write(name, content))).await.unwrap_err();
        assert!(matches!(error, ReplayError::Open(_)), "{name}: {error}");
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }
    let missing = run(world.options(&world.path("absent.ndjson"))).await.unwrap_err();
    assert!(missing.to_string().contains("absent.ndjson"), "{missing}");
    assert!(world.event_ids().await.is_empty());
}
