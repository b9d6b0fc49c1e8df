//! Where the embedded broker keeps its records.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
};

use url::Url;

use crate::BrokerError;

/// Where records, topics and group offsets are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BrokerStorage {
    /// In memory: gone with the broker.
    Memory,
    /// In an SQLite file, which is made if it is missing; its folder too.
    Sqlite(PathBuf),
}

/// A storage that is this process's alone until the value is dropped.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) url: Url,
    /// The lock ends with the file handle, also when the process is killed.
    _lock: Option<File>,
}

impl BrokerStorage {
    /// Makes the folder, locks `FILE.lock` and names the storage as tansu wants it.
    pub(crate) fn claim(&self) -> Result<Claimed, BrokerError> {
        match self {
            Self::Memory => Ok(Claimed { url: parse("memory://companyos/", Path::new(""))?, _lock: None }),
            Self::Sqlite(path) => {
                let failed = |source| BrokerError::StorageFile { path: path.clone(), source };
                let path = &std::path::absolute(path).map_err(failed)?;
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder).map_err(failed)?;
                }
                let url = sqlite_url(path)?;
                let mut lock_path = path.clone().into_os_string();
                lock_path.push(".lock");
                let lock = File::create(lock_path).map_err(failed)?;
                match lock.try_lock() {
                    Ok(()) => Ok(Claimed { url, _lock: Some(lock) }),
                    Err(TryLockError::WouldBlock) => Err(BrokerError::StorageInUse(path.clone())),
                    Err(TryLockError::Error(source)) => Err(failed(source)),
                }
            }
        }
    }
}

/// tansu strips one slash and takes the rest, still encoded, relative to the working directory.
fn sqlite_url(path: &Path) -> Result<Url, BrokerError> {
    let text = path.to_str().ok_or_else(|| BrokerError::StoragePath(path.to_owned()))?;
    let url = parse(&format!("sqlite:///{text}"), path)?;
    if url.path().strip_prefix('/') == Some(text) { Ok(url) } else { Err(BrokerError::StoragePath(path.to_owned())) }
}

fn parse(text: &str, path: &Path) -> Result<Url, BrokerError> {
    Url::parse(text).map_err(|_| BrokerError::StoragePath(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absolute_path_survives_the_url() {
        let url = sqlite_url(Path::new("/var/lib/companyos/broker.db")).unwrap();
        assert_eq!(url.path(), "//var/lib/companyos/broker.db");
    }

    #[test]
    fn a_path_that_would_be_another_file_is_refused() {
        for path in ["/tmp/my data/broker.db", "/tmp/a?vacuum_into=b", "/tmp/a#b", "/tmp/é.db", "/tmp/../etc/x"] {
            let refused = sqlite_url(Path::new(path));
            assert!(matches!(refused, Err(BrokerError::StoragePath(_))), "{path}: {refused:?}");
        }
    }

    #[test]
    fn one_file_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let storage = BrokerStorage::Sqlite(dir.path().join("new/broker.db"));
        let first = storage.claim().unwrap();
        assert!(matches!(storage.claim(), Err(BrokerError::StorageInUse(_))));
        drop(first);
        storage.claim().unwrap();
    }
}
