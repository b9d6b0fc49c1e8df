//! An object store that fails when it is told to.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, path::Path,
};

/// What goes wrong with a write.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Nothing is stored.
    FailBefore,
    /// It is stored, but the caller hears of an error.
    LoseReply,
}

/// The faults to come, and how many came.
#[derive(Debug, Default)]
pub struct Faults {
    log: Mutex<Option<Fault>>,
    /// Writes of data files that fail from now on.
    file_failures: AtomicUsize,
    pub injected: AtomicUsize,
}

impl Faults {
    pub fn next_log_write(&self, fault: Fault) {
        *self.log.lock().unwrap() = Some(fault);
    }

    pub fn next_file_writes_fail(&self, count: usize) {
        self.file_failures.store(count, Ordering::Relaxed);
    }

    fn take(&self, location: &Path) -> Option<Fault> {
        let fault = match location.as_ref().contains("_delta_log/") {
            true => self.log.lock().unwrap().take(),
            false => self
                .file_failures
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
                .then_some(Fault::FailBefore),
        };
        self.injected.fetch_add(usize::from(fault.is_some()), Ordering::Relaxed);
        fault
    }
}

#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    faults: Arc<Faults>,
}

impl FaultyStore {
    pub fn new(inner: Arc<dyn ObjectStore>, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
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
        match self.faults.take(location) {
            Some(Fault::FailBefore) => Err(broken()),
            Some(Fault::LoseReply) => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(broken())
            }
            None => self.inner.put_opts(location, payload, opts).await,
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
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
