//! The sink over the S3 protocol: a real server, real requests, put-if-absent by `If-None-Match`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeMap, sync::Arc};

use companyos_sinks::{
    delta::{DeltaSink, FileOptions, PartitionRows, RoutedBatch, TableEpoch, TableSpec},
    storage::Storage,
};
use deltalake::{
    arrow::{
        array::{Array, AsArray, Int64Array, RecordBatch, StringArray},
        datatypes::{DataType, Field, Int64Type, Schema},
    },
    datafusion::prelude::SessionContext,
};
use hyper::{Method, Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use object_store::{ObjectStoreExt, PutMode, PutOptions, path::Path};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use tokio::{net::TcpListener, sync::Mutex};

/// An S3 server over a folder, with a bucket called `lake`.
struct Server {
    _dir: tempfile::TempDir,
    address: String,
}

async fn serve() -> Server {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("lake")).unwrap();
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(dir.path()).unwrap());
    builder.set_auth(SimpleAuth::from_single("access", "secret"));
    let service = builder.build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    // s3s-fs looks whether an object exists and then writes it; S3 does both at once, so puts take turns.
    let turn = Arc::new(Mutex::new(()));
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (service, turn) = (service.clone(), turn.clone());
            tokio::spawn(async move {
                let handle = service_fn(move |request: Request<Incoming>| {
                    let (service, turn) = (service.clone(), turn.clone());
                    async move {
                        let _turn = if request.method() == Method::PUT { Some(turn.lock().await) } else { None };
                        hyper::service::Service::call(&service, request).await
                    }
                });
                // A client that hangs up is no failure of the server.
                let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), handle).await;
            });
        }
    });
    Server { _dir: dir, address }
}

impl Server {
    fn storage(&self) -> Storage {
        let options = [
            ("aws_endpoint", self.address.as_str()),
            ("aws_access_key_id", "access"),
            ("aws_secret_access_key", "secret"),
            ("aws_region", "us-east-1"),
            ("aws_allow_http", "true"),
        ];
        let options: BTreeMap<String, String> = options.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        Storage::open(&"s3://lake/eu".parse().unwrap(), &options).unwrap()
    }
}

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

fn part(app: &str, numbers: std::ops::Range<i64>, expected: Option<i64>) -> PartitionRows {
    let days = StringArray::from(vec!["2026-01-01"; numbers.clone().count()]);
    let rows = (0..Array::len(&days) as u32).collect();
    let last = numbers.end - 1;
    let numbers = Int64Array::from_iter_values(numbers);
    let batch = RecordBatch::try_new(spec().schema, vec![Arc::new(numbers), Arc::new(days)]).unwrap();
    let rows = vec![RoutedBatch { batch, groups: vec![(vec![Arc::from("2026-01-01")], rows)] }];
    PartitionRows { app_id: app.into(), expected, last, rows }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_put_if_absent_is_refused() {
    let server = serve().await;
    let store = server.storage().store();
    let create = || PutOptions { mode: PutMode::Create, ..Default::default() };
    let path = Path::from("_delta_log/1.json");
    store.put_opts(&path, "first".into(), create()).await.unwrap();
    let second = store.put_opts(&path, "second".into(), create()).await;
    assert!(matches!(second, Err(object_store::Error::AlreadyExists { .. })), "{second:?}");
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_and_a_zombie_share_a_table_on_s3() {
    let server = serve().await;
    let open = async || DeltaSink::open(&server.storage(), spec(), FileOptions::default()).await.unwrap();
    let (mut a, mut b, mut zombie) = (open().await, open().await, open().await);
    zombie.load_positions(&["a".into()]).await.unwrap();
    for round in 0..5i64 {
        let expected = (round > 0).then(|| round * 10 - 1);
        let range = round * 10..round * 10 + 10;
        let (one, two) = tokio::join!(
            a.commit(TableEpoch { epoch: 1, parts: vec![part("a", range.clone(), expected)] }),
            b.commit(TableEpoch { epoch: 1, parts: vec![part("b", range.clone(), expected)] }),
        );
        assert_eq!((one.unwrap().rows, two.unwrap().rows), (10, 10));
    }
    let late = zombie.commit(TableEpoch { epoch: 1, parts: vec![part("a", 0..7, None)] }).await.unwrap();
    assert_eq!(late.fenced, [Arc::from("a")]);

    let table = server.storage().load_table("t").await.unwrap().unwrap();
    let frame = SessionContext::new().read_table(table.table_provider().await.unwrap()).unwrap();
    let mut numbers = Vec::new();
    for batch in frame.select_columns(&["n"]).unwrap().collect().await.unwrap() {
        numbers.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..50).flat_map(|n| [n, n]).collect::<Vec<i64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_say_so_and_never_show_the_secret() {
    let server = serve().await;
    let options = [
        ("aws_endpoint", server.address.as_str()),
        ("aws_access_key_id", "access"),
        ("aws_secret_access_key", "hunter2"),
        ("aws_region", "us-east-1"),
        ("aws_allow_http", "true"),
    ];
    let options: BTreeMap<String, String> = options.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let storage = Storage::open(&"s3://lake/eu".parse().unwrap(), &options).unwrap();
    let error = DeltaSink::open(&storage, spec(), FileOptions::default()).await.unwrap_err();
    assert!(!format!("{error} {error:?} {storage:?}").contains("hunter2"), "{error:?}");
}
