//! Checkpoints of a shard, with a crash between any two writes, and with two owners.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use companyos_sinks::{
    checkpoint::{CheckpointError, CheckpointLine, LineOptions, NoticeError, NoticeSink, OutgoingNotice},
    storage::Storage,
};
use companyos_stream::{KeyedState, Notice, Output, OutputTable};
use deltalake::{
    arrow::{
        array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
        datatypes::{DataType, Field, Int64Type, Schema},
    },
    datafusion::prelude::SessionContext,
};
use futures::stream::{BoxStream, StreamExt};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, path::Path,
};
use tokio::sync::Notify;

/// Stands still for good at one of its writes, before or after it is stored.
#[derive(Debug)]
struct CrashingStore {
    inner: Arc<dyn ObjectStore>,
    plan: Arc<Plan>,
}

#[derive(Debug, Default)]
struct Plan {
    writes_left: AtomicUsize,
    after: bool,
    crashed: Notify,
}

impl Plan {
    fn at(writes: usize, after: bool) -> Arc<Self> {
        Arc::new(Self { writes_left: AtomicUsize::new(writes), after, crashed: Notify::new() })
    }

    fn is_now(&self) -> bool {
        self.writes_left.fetch_sub(1, Ordering::SeqCst) == 0
    }

    async fn crash<T>(&self) -> T {
        self.crashed.notify_one();
        std::future::pending().await
    }
}

impl fmt::Display for CrashingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CrashingStore")
    }
}

#[async_trait]
impl ObjectStore for CrashingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if !self.plan.is_now() {
            return self.inner.put_opts(location, payload, opts).await;
        }
        if self.plan.after {
            self.inner.put_opts(location, payload, opts).await?;
        }
        self.plan.crash().await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if self.plan.is_now() {
            self.plan.crashed.notify_one();
            return futures::stream::pending().boxed();
        }
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Collects what is sent.
#[derive(Default)]
struct Notices(Mutex<Vec<String>>);

#[async_trait]
impl NoticeSink for Notices {
    async fn send(&self, notices: &[OutgoingNotice]) -> std::result::Result<(), NoticeError> {
        self.0.lock().unwrap().extend(notices.iter().map(|n| format!("{}:{}", n.id, n.body)));
        Ok(())
    }
}

const STEPS: u64 = 6;
/// Small, so that the scenario has full snapshots, incremental ones and clean-up.
const OPTIONS: LineOptions = LineOptions { full_every: 2, keep: 2 };

fn storage(dir: &tempfile::TempDir) -> Storage {
    Storage::open(&url::Url::from_directory_path(dir.path()).unwrap(), &BTreeMap::new()).unwrap()
}

fn output(step: u64) -> Output {
    let text = |value: &str| Arc::new(StringArray::from(vec![value, value])) as ArrayRef;
    let schema = Arc::new(Schema::new(vec![
        Field::new("tenant", DataType::Utf8, false),
        Field::new("env", DataType::Utf8, false),
        Field::new("region", DataType::Utf8, false),
        Field::new("n", DataType::Int64, false),
    ]));
    let n = Arc::new(Int64Array::from(vec![2 * step as i64, 2 * step as i64 + 1])) as ArrayRef;
    let tenants = Arc::new(StringArray::from(vec!["alpha", "beta"])) as ArrayRef;
    let batch = RecordBatch::try_new(schema.clone(), vec![tenants, text("prod"), text("eu"), n]).unwrap();
    let notice = Notice {
        id: format!("n{step}"),
        kind: "slo_alert",
        tenant: "alpha".into(),
        body: format!("{{\"step\":{step}}}"),
        traceparent: None,
    };
    // Every third step has nothing to say.
    match step % 3 {
        0 => Output::default(),
        _ => Output { rows: vec![(OutputTable { name: "out", schema }, batch)], notices: vec![notice] },
    }
}

/// Takes the steps that are left, as an operator does.
async fn work(storage: &Storage, notices: &Notices) -> std::result::Result<KeyedState<u64>, CheckpointError> {
    let mut line = CheckpointLine::open(storage, "counter", "0-of-1", OPTIONS).await?;
    line.deliver(notices).await?;
    let mut state: KeyedState<u64> = KeyedState::new("s");
    line.restore(|batches| state.restore(batches)).await?;
    let done = line.positions().get("product_events").copied().unwrap_or(0);
    for step in done + 1..=STEPS {
        state.update(&format!("k{}", step % 3), step as i64 + 3, |value| *value = *value * 10 + step);
        state.expire(step as i64);
        let snapshot = state.snapshot(line.next_kind())?;
        line.write(BTreeMap::from([("product_events".to_owned(), step)]), vec![snapshot], &output(step)).await?;
        line.deliver(notices).await?;
    }
    Ok(state)
}

async fn rows(storage: &Storage) -> Vec<i64> {
    let table = storage.load_table("out").await.unwrap().unwrap();
    let context = SessionContext::new();
    let frame = context.read_table(table.table_provider().await.unwrap()).unwrap();
    let mut numbers = Vec::new();
    for batch in frame.select_columns(&["n"]).unwrap().collect().await.unwrap() {
        numbers.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
    }
    numbers.sort_unstable();
    numbers
}

fn contents(state: &KeyedState<u64>) -> BTreeMap<String, u64> {
    state.iter().map(|(key, value)| (key.to_owned(), *value)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_write_loses_and_repeats_nothing() {
    let calm = tempfile::tempdir().unwrap();
    let expected = contents(&work(&storage(&calm), &Notices::default()).await.unwrap());
    let expected_rows = rows(&storage(&calm)).await;
    assert_eq!(expected_rows, [2, 3, 4, 5, 8, 9, 10, 11]);
    let mut crashes = 0;
    for at in 0.. {
        let mut finished = 0;
        for after in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let plan = Plan::at(at, after);
            let crashing = storage(&dir).map_store(|inner| Arc::new(CrashingStore { inner, plan: plan.clone() }));
            let notices = Notices::default();
            tokio::select! {
                done = work(&crashing, &notices) => {
                    done.unwrap();
                    finished += 1;
                }
                () = plan.crashed.notified() => crashes += 1,
            }
            let state = work(&storage(&dir), &notices).await.unwrap();
            assert_eq!(contents(&state), expected, "state after a crash at write {at} ({after})");
            assert_eq!(rows(&storage(&dir)).await, expected_rows, "rows after a crash at write {at} ({after})");
            let mut sent = notices.0.lock().unwrap().clone();
            sent.sort();
            sent.dedup();
            let all = [1, 2, 4, 5].map(|step| format!("n{step}:{{\"step\":{step}}}"));
            assert_eq!(sent, all, "notices after a crash at write {at} ({after})");
        }
        if finished == 2 {
            break;
        }
    }
    assert!(crashes > 40, "{crashes} crashes");
}

#[tokio::test]
async fn of_two_owners_one_is_fenced_even_after_a_long_sleep() {
    let dir = tempfile::tempdir().unwrap();
    let (storage, notices) = (storage(&dir), Notices::default());
    let mut sleeper = CheckpointLine::open(&storage, "counter", "0-of-1", OPTIONS).await.unwrap();
    let mut state: KeyedState<u64> = KeyedState::new("s");
    let mut old = KeyedState::<u64>::new("s");
    let mut line = CheckpointLine::open(&storage, "counter", "0-of-1", OPTIONS).await.unwrap();
    for step in 1..=5 {
        if step == 2 {
            // The number is taken, but not cleaned up yet.
            let part = old.snapshot(sleeper.next_kind()).unwrap();
            let late = sleeper.write(BTreeMap::new(), vec![part], &output(1)).await;
            assert!(matches!(late, Err(CheckpointError::Fenced { sequence: 1, .. })), "{late:?}");
        }
        state.insert("k", 100, step);
        let part = state.snapshot(line.next_kind()).unwrap();
        line.write(BTreeMap::from([("t".to_owned(), step)]), vec![part], &output(step)).await.unwrap();
        line.deliver(&notices).await.unwrap();
    }
    // Number 1 is free again, and taking it must not be taken for success.
    let part = old.snapshot(sleeper.next_kind()).unwrap();
    let late = sleeper.write(BTreeMap::new(), vec![part], &output(1)).await;
    assert!(matches!(late, Err(CheckpointError::Fenced { .. })), "{late:?}");
    let reopened = CheckpointLine::open(&storage, "counter", "0-of-1", OPTIONS).await.unwrap();
    assert_eq!(reopened.newest().unwrap().sequence, 5);
    let manifests = std::fs::read_dir(dir.path().join("_state/counter/0-of-1/manifest")).unwrap().count();
    assert_eq!(manifests, 2, "only those that are kept");
    assert_eq!(rows(&storage).await, [2, 3, 4, 5, 8, 9, 10, 11]);
}

#[tokio::test]
async fn nothing_is_written_before_the_last_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let storage = storage(&dir);
    let mut line = CheckpointLine::open(&storage, "counter", "0-of-1", OPTIONS).await.unwrap();
    line.write(BTreeMap::new(), Vec::new(), &output(1)).await.unwrap();
    let early = line.write(BTreeMap::new(), Vec::new(), &output(2)).await;
    assert!(matches!(early, Err(CheckpointError::Format { .. })), "{early:?}");
}
