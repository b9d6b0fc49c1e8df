//! An object store that fails at a rate read from a file, so that the harness can turn it up and
//! down in workers that run.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, path::Path,
};

/// How often calls fail, in percent, and the dice.
#[derive(Debug)]
pub(crate) struct Weather {
    percent: AtomicU32,
    dice: Mutex<fastrand::Rng>,
}

/// What happens to a call.
enum Fate {
    Fine,
    /// Nothing is done.
    FailBefore,
    /// It is done, and the caller hears of an error.
    LoseReply,
    /// It is done late.
    Slow(Duration),
    /// It is not done, and the caller hears of it late.
    TimeOut(Duration),
}

impl Weather {
    /// Follows the percentage in `file`; a missing file is fair weather.
    pub(crate) fn watch(file: PathBuf, seed: u64) -> Arc<Self> {
        let weather = Arc::new(Self { percent: AtomicU32::new(0), dice: Mutex::new(fastrand::Rng::with_seed(seed)) });
        let watched = weather.clone();
        tokio::spawn(async move {
            loop {
                let percent = std::fs::read_to_string(&file).ok().and_then(|t| t.trim().parse().ok()).unwrap_or(0);
                watched.percent.store(percent, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        weather
    }

    fn fate(&self) -> Fate {
        let percent = self.percent.load(Ordering::Relaxed);
        let mut dice = self.dice.lock().unwrap_or_else(|e| e.into_inner());
        if dice.u32(..100) >= percent {
            return Fate::Fine;
        }
        match dice.u32(..10) {
            0..4 => Fate::FailBefore,
            4..8 => Fate::LoseReply,
            8 => Fate::Slow(Duration::from_millis(dice.u64(100..3000))),
            _ => Fate::TimeOut(Duration::from_millis(dice.u64(100..3000))),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    weather: Arc<Weather>,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, weather: Arc<Weather>) -> Self {
        Self { inner, weather }
    }

    async fn through<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        match self.weather.fate() {
            Fate::Fine => call.await,
            Fate::FailBefore => Err(broken()),
            Fate::LoseReply => {
                call.await?;
                Err(broken())
            }
            Fate::Slow(pause) => {
                tokio::time::sleep(pause).await;
                call.await
            }
            Fate::TimeOut(pause) => {
                tokio::time::sleep(pause).await;
                Err(broken())
            }
        }
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: "injected fault".into() }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.through(self.inner.put_opts(location, payload, opts)).await
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.through(self.inner.put_multipart_opts(location, opts)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.through(self.inner.get_opts(location, options)).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.through(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.through(self.inner.copy_opts(from, to, options)).await
    }
}
