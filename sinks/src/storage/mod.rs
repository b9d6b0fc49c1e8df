//! A region's storage: one object store root, with the region's Delta tables below it.
//!
//! Every layer opens tables through [`Storage`], so that options, durability and put-if-absent
//! semantics are the same for the writer, maintenance and queries.

mod durable_local;

use std::{collections::BTreeMap, sync::Arc};

use companyos_schemas::tenancy::Region;
use deltalake::{
    DeltaTable, DeltaTableError,
    logstore::{LogStoreRef, StorageConfig, default_logstore},
};
use object_store::{ObjectStore, ObjectStoreScheme, path::Path, prefix::PrefixStore};
use url::Url;

use durable_local::DurableLocal;

/// An object store root.
#[derive(Debug, Clone)]
pub struct Storage {
    url: Url,
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

/// Why storage or a table in it cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The URL or its options do not describe a store.
    #[error("cannot open storage {url}: {source}")]
    Open {
        /// Root URL (without credentials: they are options).
        url: String,
        /// What object_store said.
        source: object_store::Error,
    },
    /// The table's log cannot be read.
    #[error("cannot load table {table}: {source}")]
    Table {
        /// Table URL.
        table: String,
        /// What delta-rs said.
        source: Box<DeltaTableError>,
    },
}

impl Storage {
    /// Opens a root by URL (`file`, `s3`, `gs`, `az`/`abfs`), with object_store's option keys.
    ///
    /// Local folders are written durably: a put returns only after fsync of file and folder.
    pub fn open(url: &Url, options: &BTreeMap<String, String>) -> Result<Self, StorageError> {
        let fail = |source| StorageError::Open { url: url.to_string(), source };
        let (scheme, _) = ObjectStoreScheme::parse(url).map_err(|e| fail(e.into()))?;
        let (store, prefix) = object_store::parse_url_opts(url, options.iter()).map_err(fail)?;
        let store: Arc<dyn ObjectStore> = match scheme {
            ObjectStoreScheme::Local => Arc::new(DurableLocal::default()),
            _ => Arc::from(store),
        };
        Ok(Self { url: url.clone(), store, prefix })
    }

    /// Opens a region's hot storage.
    pub fn for_region(region: &Region) -> Result<Self, StorageError> {
        Self::open(&region.storage, &region.options)
    }

    /// Opens a region's archive, if it has one.
    pub fn archive_of(region: &Region) -> Result<Option<Self>, StorageError> {
        region.archive.as_ref().map(|url| Self::open(url, &region.options)).transpose()
    }

    /// The same root through another store, such as one that counts or fails calls. The store's
    /// root must be the root of the URL's bucket or file system.
    pub fn map_store(mut self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        self.store = wrap(self.store);
        self
    }

    /// Root URL.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// A store whose paths are relative to the root.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(PrefixStore::new(self.store.clone(), self.prefix.clone()))
    }

    /// URL of a table below the root.
    pub fn table_url(&self, table: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/{table}/", self.url.path().trim_end_matches('/')));
        url
    }

    /// The Delta log of a table, whether or not the table exists yet.
    pub fn log_store(&self, table: &str) -> LogStoreRef {
        let prefix = self.prefix.clone().join(table);
        let prefixed = Arc::new(PrefixStore::new(self.store.clone(), prefix));
        default_logstore(prefixed, self.store.clone(), &self.table_url(table), &StorageConfig::default())
    }

    /// Whether the table has been created. Cheaper than loading it.
    pub async fn table_exists(&self, table: &str) -> Result<bool, StorageError> {
        self.log_store(table)
            .is_delta_table_location()
            .await
            .map_err(|e| StorageError::Table { table: self.table_url(table).to_string(), source: Box::new(e) })
    }

    /// The table's latest version, or none if it does not exist yet.
    pub async fn load_table(&self, table: &str) -> Result<Option<DeltaTable>, StorageError> {
        load_if_exists(self.log_store(table)).await.map_err(|source| StorageError::Table {
            table: self.table_url(table).to_string(),
            source: Box::new(source),
        })
    }
}

/// The table's latest version, or none if it does not exist yet. Which error a missing table gives
/// depends on the store, so after a failed load the log itself is asked.
pub(crate) async fn load_if_exists(log_store: LogStoreRef) -> Result<Option<DeltaTable>, DeltaTableError> {
    let mut table = DeltaTable::new(log_store.clone());
    if table.load().await.is_ok() {
        return Ok(Some(table));
    }
    match log_store.is_delta_table_location().await {
        Ok(false) => Ok(None),
        // It may have been created between the two looks.
        _ => {
            let mut table = DeltaTable::new(log_store);
            table.load().await?;
            Ok(Some(table))
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::{ObjectStoreExt, PutMode, PutOptions};

    use super::*;

    fn local(dir: &tempfile::TempDir) -> Storage {
        Storage::open(&Url::from_directory_path(dir.path()).unwrap(), &BTreeMap::new()).unwrap()
    }

    #[tokio::test]
    async fn a_missing_table_is_none_and_paths_are_relative_to_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let storage = local(&dir);
        assert!(storage.load_table("product_events").await.unwrap().is_none());
        storage.store().put(&Path::from("a/b"), "x".into()).await.unwrap();
        assert_eq!(std::fs::read(dir.path().join("a/b")).unwrap(), b"x");
        assert!(storage.table_url("t").as_str().ends_with("/t/"));
    }

    #[tokio::test]
    async fn put_if_absent_refuses_the_second_writer() {
        let dir = tempfile::tempdir().unwrap();
        let storage = local(&dir);
        let create = || PutOptions { mode: PutMode::Create, ..Default::default() };
        storage.store().put_opts(&Path::from("log"), "1".into(), create()).await.unwrap();
        let second = storage.store().put_opts(&Path::from("log"), "2".into(), create()).await;
        assert!(matches!(second, Err(object_store::Error::AlreadyExists { .. })));
        assert_eq!(std::fs::read(dir.path().join("log")).unwrap(), b"1");
    }
}
