//! A store that dies at a chosen call, or performs one and loses the reply.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use companyos_sinks::storage::Storage;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, path::Path,
};
use tokio::sync::Notify;

/// When a store fails. Writes (puts, copies, deletes) are counted from 0.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Never.
    None,
    /// This write is the last one performed, its reply lost: the process died.
    DieAfter(usize),
    /// This write is not performed.
    FailOnce(usize),
    /// This write is performed, its reply lost.
    LoseReply(usize),
}

/// Counts writes over all storages that share it, and decides which fail.
#[derive(Debug)]
pub struct Faults {
    fault: Fault,
    writes: Mutex<Vec<String>>,
    death: Notify,
}

enum Verdict {
    Do,
    DoAndFail,
    Fail,
}

impl Faults {
    pub fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self { fault, writes: Mutex::default(), death: Notify::new() })
    }

    /// Paths of the writes tried so far.
    pub fn writes(&self) -> Vec<String> {
        self.writes.lock().unwrap().clone()
    }

    /// Runs the work until it ends or its process dies: then it is dropped where it stands.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.death.notified() => None,
            done = work => Some(done),
        }
    }

    /// The storage, failing by this plan.
    pub fn on(self: &Arc<Self>, storage: &Storage) -> Storage {
        storage.clone().map_store(|inner| Arc::new(Faulty { inner, faults: self.clone() }))
    }

    fn judge(&self, path: &Path) -> Verdict {
        let mut writes = self.writes.lock().unwrap();
        let n = writes.len();
        writes.push(path.to_string());
        match self.fault {
            Fault::DieAfter(last) if n >= last => {
                self.death.notify_one();
                if n == last { Verdict::DoAndFail } else { Verdict::Fail }
            }
            Fault::FailOnce(at) if n == at => Verdict::Fail,
            Fault::LoseReply(at) if n == at => Verdict::DoAndFail,
            _ => Verdict::Do,
        }
    }
}

#[derive(Debug)]
struct Faulty {
    inner: Arc<dyn ObjectStore>,
    faults: Arc<Faults>,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "Faulty", source: "injected".into() }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        match self.faults.judge(location) {
            Verdict::Fail => Err(broken()),
            Verdict::Do => self.inner.put_opts(location, payload, opts).await,
            Verdict::DoAndFail => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(broken())
            }
        }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        match self.faults.judge(location) {
            Verdict::Do => self.inner.put_multipart_opts(location, opts).await,
            _ => Err(broken()),
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, faults) = (self.inner.clone(), self.faults.clone());
        let one = move |location: Result<Path>| {
            let (inner, faults) = (inner.clone(), faults.clone());
            async move {
                let location = location?;
                let verdict = faults.judge(&location);
                if matches!(verdict, Verdict::Fail) {
                    return Err(broken());
                }
                let mut done = inner.delete_stream(futures::stream::iter([Ok(location.clone())]).boxed());
                done.next().await.unwrap_or_else(|| Err(broken()))?;
                match verdict {
                    Verdict::Do => Ok(location),
                    _ => Err(broken()),
                }
            }
        };
        locations.then(one).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        match self.faults.judge(to) {
            Verdict::Fail => Err(broken()),
            Verdict::Do => self.inner.copy_opts(from, to, options).await,
            Verdict::DoAndFail => {
                self.inner.copy_opts(from, to, options).await?;
                Err(broken())
            }
        }
    }
}
