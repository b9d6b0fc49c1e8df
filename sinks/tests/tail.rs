//! Following the log of a real table: appends, compaction, clean-up, older files, odd partition values.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeMap, sync::Arc};

use companyos_sinks::{
    delta::{
        Add, DeltaSink, DeltaSinkError, FileOptions, FileReader, PartitionRows, RoutedBatch, TableEpoch, TableSpec,
        TableTail, table_files,
    },
    storage::Storage,
};
use deltalake::arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
};

fn storage(dir: &tempfile::TempDir) -> Storage {
    Storage::open(&url::Url::from_directory_path(dir.path()).unwrap(), &BTreeMap::new()).unwrap()
}

fn schema(extra: bool) -> SchemaRef {
    let mut fields = vec![Field::new("tenant", DataType::Utf8, false), Field::new("n", DataType::Int64, false)];
    if extra {
        fields.push(Field::new("note", DataType::Utf8, true));
    }
    Arc::new(Schema::new(fields))
}

async fn sink(storage: &Storage, extra: bool) -> DeltaSink {
    let spec = TableSpec { name: "t".into(), schema: schema(extra), partition_columns: vec!["tenant".into()] };
    DeltaSink::open(storage, spec, FileOptions::default()).await.unwrap()
}

async fn append(sink: &mut DeltaSink, extra: bool, tenant: &str, n: i64) {
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(vec![tenant])), Arc::new(Int64Array::from(vec![n]))];
    if extra {
        columns.push(Arc::new(StringArray::from(vec!["new"])));
    }
    let batch = RecordBatch::try_new(schema(extra), columns).unwrap();
    let expected = sink.load_positions(&["a".into()]).await.unwrap()[0];
    let rows = vec![RoutedBatch { batch, groups: vec![(vec![Arc::from(tenant)], vec![0])] }];
    let part = PartitionRows { app_id: "a".into(), expected, last: n, rows };
    sink.commit(TableEpoch { epoch: 1, parts: vec![part] }).await.unwrap();
}

/// Tenant, number and note of every row.
async fn read(reader: &FileReader, adds: &[Add]) -> Vec<(String, i64, Option<String>)> {
    let mut rows = Vec::new();
    for add in adds {
        let visit = |batch: RecordBatch| {
            assert_eq!(batch.schema().field(0).data_type(), &DataType::Utf8);
            let (tenants, notes) = (batch.column(0).as_string::<i32>(), batch.column(2).as_string::<i32>());
            for (row, n) in batch.column(1).as_primitive::<Int64Type>().values().iter().enumerate() {
                let note = (!notes.is_null(row)).then(|| notes.value(row).to_owned());
                rows.push((tenants.value(row).to_owned(), *n, note));
            }
            Ok(())
        };
        reader.read(add, visit).await.unwrap();
    }
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_are_seen_once_in_order_and_compaction_shows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let storage = storage(&dir);
    let mut tail = TableTail::at(&storage, "t", None);
    assert!(tail.next().await.unwrap().is_none(), "a missing table is at its end");
    let mut writer = sink(&storage, false).await;
    append(&mut writer, false, "alpha", 1).await;
    append(&mut writer, false, "alpha", 2).await;
    let table = storage.load_table("t").await.unwrap().unwrap();
    let (table, metrics) = table.optimize().await.unwrap();
    assert_eq!(metrics.num_files_removed, 2);
    let mut writer = sink(&storage, true).await;
    append(&mut writer, true, "alpha", 3).await;
    let reader = FileReader::new(&storage, "t", schema(true));
    let mut seen = Vec::new();
    while let Some(entry) = tail.next().await.unwrap() {
        let rows = read(&reader, &entry.adds).await;
        assert!(entry.removed.is_empty());
        seen.push((entry.version, rows, entry.positions.first().map(|p| p.version)));
    }
    let row = |n: i64, note: Option<&str>| vec![("alpha".to_owned(), n, note.map(str::to_owned))];
    let added = table.version().unwrap() + 1;
    let expected = [
        (0, vec![], None),
        (1, row(1, None), Some(1)),
        (2, row(2, None), Some(2)),
        (3, vec![], None),
        (added, vec![], None),
        (added + 1, row(3, Some("new")), Some(3)),
    ];
    assert_eq!(seen, expected);
    // The files of a version hold the same rows, with a null where they are older than the column.
    let files = table_files(&storage, "t", None).await.unwrap().unwrap();
    assert_eq!((files.version, files.files.len()), (added + 1, 2));
    let all = read(&reader, &files.files).await;
    assert_eq!(all, [row(1, None), row(2, None), row(3, Some("new"))].concat());
    let before = table_files(&storage, "t", Some(1)).await.unwrap().unwrap();
    assert_eq!(read(&reader, &before.files).await, row(1, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_were_cleaned_up_are_a_gap_and_not_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let storage = storage(&dir);
    let mut writer = sink(&storage, false).await;
    for n in 1..=5 {
        append(&mut writer, false, "alpha", n).await;
    }
    for version in 0..=3 {
        std::fs::remove_file(dir.path().join(format!("t/_delta_log/{version:020}.json"))).unwrap();
    }
    for at in [None, Some(0), Some(1), Some(2)] {
        let next = at.map_or(0, |v| v + 1);
        let gap = TableTail::at(&storage, "t", at).next().await;
        assert!(matches!(gap, Err(DeltaSinkError::Gap { version, .. }) if version == next), "{at:?}: {gap:?}");
    }
    assert_eq!(TableTail::oldest(&storage, "t", 1).await.unwrap(), Some(4));
    assert_eq!(TableTail::oldest(&storage, "t", 6).await.unwrap(), None);
    let mut tail = TableTail::at(&storage, "t", Some(3));
    assert_eq!(tail.latest().await, Some(5));
    assert_eq!(tail.next().await.unwrap().unwrap().version, 4);
    assert_eq!(tail.next().await.unwrap().unwrap().version, 5);
    assert!(tail.next().await.unwrap().is_none());
    assert_eq!(TableTail::oldest(&storage, "none", 0).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_vector_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let storage = storage(&dir);
    let mut writer = sink(&storage, false).await;
    append(&mut writer, false, "alpha", 1).await;
    let mut files = table_files(&storage, "t", None).await.unwrap().unwrap().files;
    let vector = serde_json::json!({ "storageType": "u", "pathOrInlineDv": "x", "sizeInBytes": 1, "cardinality": 1 });
    files[0].deletion_vector = Some(serde_json::from_value(vector).unwrap());
    let reader = FileReader::new(&storage, "t", schema(true));
    let refused = reader.read(&files[0], |_| Ok(())).await.unwrap_err();
    assert!(refused.to_string().contains("deletion vector"), "{refused}");
    files[0].deletion_vector = None;
    files[0].path = files[0].path.replace("tenant=", "tenant%3D");
    assert_eq!(read(&reader, &files).await, [("alpha".to_owned(), 1, None)], "paths in the log are URL-encoded");
}
