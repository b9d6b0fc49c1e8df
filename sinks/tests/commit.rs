//! The commit protocol against a store that fails, loses replies and has other writers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod faulty;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use companyos_sinks::{
    delta::{DeltaSink, FileOptions, PartitionRows, RoutedBatch, TableEpoch, TableSpec},
    storage::Storage,
};
use deltalake::{
    arrow::{
        array::{AsArray, Int64Array, RecordBatch, StringArray},
        datatypes::{DataType, Field, Int64Type, Schema},
    },
    datafusion::prelude::SessionContext,
};
use faulty::{Fault, Faults, FaultyStore};

fn spec() -> TableSpec {
    TableSpec {
        name: "t".into(),
        schema: Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, false),
            Field::new("day", DataType::Utf8, false),
        ])),
        partition_columns: vec!["day".into()],
    }
}

struct Place {
    dir: tempfile::TempDir,
    faults: Arc<Faults>,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), faults: Arc::default() }
    }

    fn storage(&self) -> Storage {
        let url = url::Url::from_directory_path(self.dir.path()).unwrap();
        let faults = self.faults.clone();
        Storage::open(&url, &BTreeMap::new()).unwrap().map_store(|store| Arc::new(FaultyStore::new(store, faults)))
    }

    async fn sink(&self) -> DeltaSink {
        DeltaSink::open(&self.storage(), spec(), FileOptions::default()).await.unwrap()
    }

    /// All numbers in the table, sorted, as a fresh reader sees them.
    async fn numbers(&self) -> Vec<i64> {
        let table = self.storage().load_table("t").await.unwrap().unwrap();
        let context = SessionContext::new();
        let frame = context.read_table(table.table_provider().await.unwrap()).unwrap();
        let mut numbers = Vec::new();
        for batch in frame.select_columns(&["n"]).unwrap().collect().await.unwrap() {
            numbers.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
        }
        numbers.sort_unstable();
        numbers
    }

    fn data_files(&self) -> usize {
        let days = std::fs::read_dir(self.dir.path().join("t")).unwrap().map(|e| e.unwrap().path());
        days.filter(|d| d.is_dir() && !d.ends_with("_delta_log")).map(|d| std::fs::read_dir(d).unwrap().count()).sum()
    }
}

/// Offsets `from..=last` of source partition `app`, each as a row holding its own number plus `base`.
fn part(app: &str, base: i64, expected: Option<i64>, last: i64) -> PartitionRows {
    let from = expected.map_or(0, |e| e + 1);
    let numbers: Vec<i64> = (from..=last).map(|n| base + n).collect();
    let days = StringArray::from(vec!["2026-01-01"; numbers.len()]);
    let rows: Vec<u32> = (0..numbers.len() as u32).collect();
    let batch = RecordBatch::try_new(spec().schema, vec![Arc::new(Int64Array::from(numbers)), Arc::new(days)]).unwrap();
    let rows = vec![RoutedBatch { batch, groups: vec![(vec![Arc::from("2026-01-01")], rows)] }];
    PartitionRows { app_id: app.into(), expected, last, rows }
}

fn epoch(parts: Vec<PartitionRows>) -> TableEpoch {
    TableEpoch { epoch: 1, parts }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_creators_one_makes_the_table_and_all_can_commit() {
    for _ in 0..10 {
        let place = Place::new();
        let opened = futures::future::join_all((0..8).map(|i| {
            let storage = place.storage();
            tokio::spawn(async move {
                let mut sink = DeltaSink::open(&storage, spec(), FileOptions::default()).await.unwrap();
                let app = format!("a{i}");
                sink.commit(TableEpoch { epoch: 1, parts: vec![part(&app, i * 10, None, 0)] }).await.unwrap();
                // What the others have written since is absorbed by the next commit.
                sink.commit(TableEpoch { epoch: 2, parts: vec![part(&app, i * 10, Some(0), 1)] }).await.unwrap();
            })
        }));
        opened.await.into_iter().for_each(|done| done.unwrap());
        let numbers = place.numbers().await;
        assert_eq!(numbers, (0..8).flat_map(|i| [i * 10, i * 10 + 1]).collect::<Vec<i64>>());
        let log = place.dir.path().join("t/_delta_log");
        let logs = std::fs::read_dir(log)
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e == "json"));
        let protocols = logs.filter(|p| std::fs::read_to_string(p).unwrap().contains("\"protocol\":")).count();
        assert_eq!(protocols, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_and_rows_become_visible_together() {
    let place = Place::new();
    let mut sink = place.sink().await;
    assert_eq!(sink.load_positions(&["a".into()]).await.unwrap(), [None]);
    let done = sink.commit(epoch(vec![part("a", 0, None, 4), part("b", 100, None, 2)])).await.unwrap();
    assert_eq!((done.rows, done.files, done.fenced.len()), (8, 1, 0));
    assert_eq!(place.numbers().await, [0, 1, 2, 3, 4, 100, 101, 102]);
    let mut fresh = place.sink().await;
    let ids = ["a".into(), "b".into(), "c".into()];
    assert_eq!(fresh.load_positions(&ids).await.unwrap(), [Some(4), Some(2), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_is_fenced_and_its_other_partitions_still_land() {
    let place = Place::new();
    let (mut zombie, mut owner) = (place.sink().await, place.sink().await);
    zombie.load_positions(&["a".into(), "b".into()]).await.unwrap();
    owner.load_positions(&["a".into()]).await.unwrap();
    owner.commit(epoch(vec![part("a", 0, None, 9)])).await.unwrap();
    let done = zombie.commit(epoch(vec![part("a", 0, None, 5), part("b", 100, None, 1)])).await.unwrap();
    assert_eq!(done.fenced, [Arc::from("a")]);
    assert_eq!(place.numbers().await, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 100, 101]);
    // The files that held the fenced rows are gone again: one of the owner's, one of the zombie's.
    assert_eq!(place.data_files(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_reply_was_lost_is_not_made_twice() {
    let place = Place::new();
    let mut sink = place.sink().await;
    for (round, fault) in [Fault::LoseReply, Fault::FailBefore, Fault::LoseReply].into_iter().enumerate() {
        let expected = (round > 0).then(|| round as i64 * 10 - 1);
        place.faults.next_log_write(fault);
        let done = sink.commit(epoch(vec![part("a", 0, expected, round as i64 * 10 + 9)])).await.unwrap();
        assert_eq!((done.rows, done.fenced.len()), (10, 0));
        assert_eq!(place.faults.injected.load(Ordering::Relaxed), round + 1, "the fault was not hit");
    }
    assert_eq!(place.numbers().await, (0..30).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_whose_file_cannot_be_stored_comes_back_whole() {
    let place = Place::new();
    let mut sink = place.sink().await;
    // One more than the sink tries by itself.
    place.faults.next_file_writes_fail(6);
    let failed = sink.commit(epoch(vec![part("a", 0, None, 4)])).await.unwrap_err();
    assert!(failed.error.is_transient(), "{}", failed.error);
    sink.commit(failed.epoch).await.unwrap();
    assert_eq!(place.numbers().await, [0, 1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_different_partitions_never_lose_to_each_other() {
    let place = Place::new();
    place.sink().await;
    let writers = (0..4i64).map(|w| {
        let storage = place.storage();
        tokio::spawn(async move {
            let mut sink = DeltaSink::open(&storage, spec(), FileOptions::default()).await.unwrap();
            for round in 0..15 {
                let expected = (round > 0).then(|| round * 2 - 1);
                let rows = part(&format!("w{w}"), w * 1000, expected, round * 2 + 1);
                let done = sink.commit(epoch(vec![rows])).await.unwrap();
                assert!(done.fenced.is_empty());
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let expected: Vec<i64> = (0..4).flat_map(|w| (0..30).map(move |n| w * 1000 + n)).collect();
    assert_eq!(place.numbers().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_nullable_column_is_added_and_anything_else_is_refused() {
    let place = Place::new();
    place.sink().await.commit(epoch(vec![part("a", 0, None, 0)])).await.unwrap();
    let with = |field: Field| {
        let mut fields: Vec<Field> = spec().schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        match fields.iter_mut().find(|f| f.name() == field.name()) {
            Some(same) => *same = field,
            None => fields.push(field),
        }
        TableSpec { schema: Arc::new(Schema::new(fields)), ..spec() }
    };
    let open = async |spec| DeltaSink::open(&place.storage(), spec, FileOptions::default()).await;
    open(with(Field::new("extra", DataType::Utf8, true))).await.unwrap();
    let table = place.storage().load_table("t").await.unwrap().unwrap();
    assert!(table.snapshot().unwrap().schema().field("extra").is_some());
    // A writer that has not heard of the column goes on.
    place.sink().await.commit(epoch(vec![part("a", 0, Some(0), 3)])).await.unwrap();
    assert_eq!(place.numbers().await, [0, 1, 2, 3]);
    for (bad, says) in [
        (Field::new("must", DataType::Utf8, false), "only nullable columns can be added"),
        (Field::new("n", DataType::Utf8, false), "is wanted"),
    ] {
        let error = open(with(bad)).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
