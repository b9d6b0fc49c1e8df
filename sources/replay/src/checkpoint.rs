//! How far a replay has come, in a small file beside the replayed one.
//!
//! `rows` counts the leading rows of the file that need nothing more: acknowledged by Kafka
//! without a gap. The file is replaced whole, so a crash leaves the old one or the new one.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Counts;

const VERSION: u32 = 1;
/// Leading bytes of a file that tell it from another of the same name and size.
const HEAD: u64 = 64 << 10;

/// What is saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Checkpoint {
    version: u32,
    #[serde(flatten)]
    pub(crate) identity: Identity,
    /// Leading rows of the file that are done.
    pub(crate) rows: u64,
    /// What became of them.
    pub(crate) counts: Counts,
    /// Whether that is the whole file.
    pub(crate) complete: bool,
    /// When it was saved, RFC 3339.
    saved_at: String,
}

/// Which replay a checkpoint belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Size of the file in bytes.
    pub(crate) file_bytes: u64,
    /// SHA-256 of its first 64 KiB.
    pub(crate) file_head_sha256: String,
    /// SHA-256 of the map's text.
    pub(crate) map_sha256: String,
    /// Topic.
    pub(crate) topic: String,
}

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Reading or writing it failed.
    #[error("checkpoint {}: {source}; another folder can be given as state directory", path.display())]
    Io {
        /// The checkpoint.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not a checkpoint of this version.
    #[error("checkpoint {}: {reason}; remove it and replay without resume", path.display())]
    Damaged {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It belongs to another replay.
    #[error("checkpoint {}: {changed} changed since; replay without resume (event ids keep rows from counting twice)", path.display())]
    Mismatch {
        /// The checkpoint.
        path: PathBuf,
        /// the file, the map or the topic.
        changed: &'static str,
    },
}

impl Identity {
    /// Identifies a replay of a file by a map to a topic.
    pub(crate) fn of(file: &Path, map_sha256: &str, topic: &str) -> io::Result<Self> {
        let file = File::open(file)?;
        let file_bytes = file.metadata()?.len();
        let mut head = Vec::new();
        file.take(HEAD).read_to_end(&mut head)?;
        let file_head_sha256 = hex::encode(Sha256::digest(&head));
        Ok(Self { file_bytes, file_head_sha256, map_sha256: map_sha256.to_owned(), topic: topic.to_owned() })
    }
}

/// Where a replay's checkpoint is.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    path: PathBuf,
}

impl Store {
    /// `FILE.MAP.TOPIC.replay.json` in `dir`, or beside the file.
    pub(crate) fn new(file: &Path, map: &Path, topic: &str, dir: Option<&Path>) -> Self {
        let part = |name: Option<&std::ffi::OsStr>| name.map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let name = format!("{}.{}.{topic}.replay.json", part(file.file_name()), part(map.file_stem()));
        let beside = || file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self { path: dir.unwrap_or_else(beside).join(name) }
    }

    /// The checkpoint file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the checkpoint of this replay, if there is one.
    pub(crate) fn load(&self, identity: &Identity) -> Result<Option<Checkpoint>, CheckpointError> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.io(e)),
        };
        let damaged = |reason: String| CheckpointError::Damaged { path: self.path.clone(), reason };
        let saved: Checkpoint = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
        if saved.version != VERSION {
            return Err(damaged(format!("version {} instead of {VERSION}", saved.version)));
        }
        let mismatch = |changed| Err(CheckpointError::Mismatch { path: self.path.clone(), changed });
        let (a, b) = (&saved.identity, identity);
        if (a.file_bytes, &a.file_head_sha256) != (b.file_bytes, &b.file_head_sha256) {
            return mismatch("the file");
        }
        if a.map_sha256 != b.map_sha256 {
            return mismatch("the map");
        }
        if a.topic != b.topic {
            return mismatch("the topic");
        }
        Ok(Some(saved))
    }

    /// Replaces the checkpoint, durably.
    pub(crate) fn save(&self, identity: &Identity, counts: Counts, complete: bool) -> Result<(), CheckpointError> {
        let checkpoint = Checkpoint {
            version: VERSION,
            identity: identity.clone(),
            rows: counts.rows(),
            counts,
            complete,
            saved_at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        };
        let text = serde_json::to_vec_pretty(&checkpoint).map_err(|e| self.io(e.into()))?;
        if let Some(dir) = self.path.parent() {
            std::fs::create_dir_all(dir).map_err(|e| self.io(e))?;
        }
        let mut draft = self.path.clone().into_os_string();
        draft.push(".new");
        let mut file = File::create(&draft).map_err(|e| self.io(e))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(|e| self.io(e))?;
        std::fs::rename(&draft, &self.path).map_err(|e| self.io(e))
    }

    fn io(&self, source: io::Error) -> CheckpointError {
        CheckpointError::Io { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn belongs_to_one_file_map_and_topic() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.ndjson.gz");
        std::fs::write(&file, "one").unwrap();
        let store = Store::new(&file, Path::new("maps/wiki.yaml"), "t", None);
        assert!(store.path().ends_with("a.ndjson.gz.wiki.t.replay.json"));
        let identity = Identity::of(&file, "m", "t").unwrap();
        assert_eq!(store.load(&identity).unwrap(), None);

        let counts = Counts { mapped: 5, blank: 2, ..Counts::default() };
        store.save(&identity, counts, false).unwrap();
        let loaded = store.load(&identity).unwrap().unwrap();
        assert_eq!((loaded.rows, loaded.counts, loaded.complete), (7, counts, false));

        let changed = |identity: &Identity| store.load(identity).unwrap_err().to_string();
        assert!(changed(&Identity::of(&file, "m2", "t").unwrap()).contains("the map changed"));
        assert!(changed(&Identity::of(&file, "m", "t2").unwrap()).contains("the topic changed"));
        std::fs::write(&file, "two").unwrap();
        assert!(changed(&Identity::of(&file, "m", "t").unwrap()).contains("the file changed"));
        std::fs::write(store.path(), "{").unwrap();
        assert!(matches!(store.load(&identity), Err(CheckpointError::Damaged { .. })));
    }
}
