//! A shard's line of checkpoints: opening it, adding to it, delivering it, cleaning up behind it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use companyos_stream::{Output, SnapshotKind, StateBatch, StreamError};
use futures::{StreamExt, TryStreamExt, future::try_join_all};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use tracing::{debug, warn};
use uuid::Uuid;

use super::{
    CheckpointError, NoticeSink,
    files::{Folder, retries},
    manifest::{ChainStep, FORMAT, Manifest, file_name},
    outbox::{self, Delivery},
};
use crate::storage::Storage;

/// How a line is kept.
#[derive(Debug, Clone)]
pub struct LineOptions {
    /// Snapshots of changes after which all of the state is written again.
    pub full_every: usize,
    /// Checkpoints kept, the newest included; at least two.
    pub keep: usize,
}

impl Default for LineOptions {
    fn default() -> Self {
        Self { full_every: 16, keep: 3 }
    }
}

/// What a checkpoint took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its number.
    pub sequence: u64,
    /// Bytes of state and outbox written for it.
    pub bytes: u64,
}

/// One owner's hold on a shard's checkpoints.
pub struct CheckpointLine {
    name: Arc<str>,
    folder: Folder,
    storage: Storage,
    options: LineOptions,
    /// Checkpoints in the store, oldest first.
    kept: Vec<Manifest>,
    delivered: bool,
    delivery: Delivery,
}

impl CheckpointLine {
    /// Reads where the line stands. `shard` names the shard among how many, such as `0-of-4`.
    pub async fn open(
        storage: &Storage,
        operator: &str,
        shard: &str,
        options: LineOptions,
    ) -> Result<Self, CheckpointError> {
        let folder = Folder { store: storage.store(), root: format!("_state/{operator}/{shard}") };
        let mut line = Self {
            name: Arc::from(format!("{operator}/{shard}")),
            folder,
            storage: storage.clone(),
            options,
            kept: Vec::new(),
            delivered: false,
            delivery: Delivery::default(),
        };
        for sequence in line.numbers().await? {
            // One that is gone meanwhile was cleaned up by its owner.
            if let Some(manifest) = line.manifest(sequence).await? {
                line.kept.push(manifest);
            }
        }
        line.sweep().await;
        Ok(line)
    }

    /// `<operator>/<shard>`: the app id of its positions in tables.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The newest checkpoint; none before the first.
    pub fn newest(&self) -> Option<&Manifest> {
        self.kept.last()
    }

    /// Versions of the streams' tables the newest checkpoint has read.
    pub fn positions(&self) -> BTreeMap<String, u64> {
        self.newest().map(|manifest| manifest.positions.clone()).unwrap_or_default()
    }

    /// Hands the newest checkpoint's state to `restore`, snapshot by snapshot, oldest first.
    pub async fn restore(
        &self,
        mut restore: impl FnMut(&[StateBatch]) -> Result<(), StreamError>,
    ) -> Result<(), CheckpointError> {
        for step in self.newest().map(|manifest| manifest.chain.as_slice()).unwrap_or_default() {
            let mut state = Vec::new();
            for file in &step.files {
                let batches = self.folder.read(file).await?;
                state.extend(batches.into_iter().map(|batch| StateBatch { name: file.name.clone(), batch }));
            }
            restore(&state)?;
        }
        Ok(())
    }

    /// How much of the state the next checkpoint needs.
    pub fn next_kind(&self) -> SnapshotKind {
        let chain = self.newest().map(|manifest| manifest.chain.as_slice()).unwrap_or_default();
        let Some((full, changes)) = chain.split_first() else { return SnapshotKind::Full };
        let outgrown = changes.iter().map(ChainStep::bytes).sum::<u64>() > full.bytes();
        match changes.len() >= self.options.full_every || outgrown {
            true => SnapshotKind::Full,
            false => SnapshotKind::Incremental,
        }
    }

    /// Adds a checkpoint, whose state is a snapshot of [`next_kind`](Self::next_kind). Refused while
    /// the one before is not delivered. After an error the operator has to start again from the
    /// line: what changed since the last snapshot is known to nobody.
    pub async fn write(
        &mut self,
        positions: BTreeMap<String, u64>,
        state: Vec<StateBatch>,
        output: &Output,
    ) -> Result<Written, CheckpointError> {
        self.check_delivered()?;
        let mut chain = match self.next_kind() {
            SnapshotKind::Full => Vec::new(),
            SnapshotKind::Incremental => self.newest().map(|m| m.chain.clone()).unwrap_or_default(),
        };
        let full = chain.is_empty();
        let parts = state.into_iter().filter(|part| part.batch.num_rows() > 0);
        let files = parts.map(|part| {
            let folder = &self.folder;
            async move { folder.write("state", &part.name, part.batch).await }
        });
        let step = ChainStep { files: try_join_all(files).await? };
        let outbox = outbox::store(&self.folder, output).await?;
        let outgoing = outbox.rows.iter().chain(&outbox.notices).map(|file| file.bytes).sum::<u64>();
        let bytes = step.bytes() + outgoing;
        if full || !step.files.is_empty() {
            chain.push(step);
        }
        let sequence = self.newest().map_or(1, |manifest| manifest.sequence + 1);
        let manifest = Manifest {
            format: FORMAT,
            sequence,
            attempt: Uuid::new_v4(),
            created_at: Utc::now(),
            positions,
            chain,
            outbox,
        };
        self.commit(&manifest).await?;
        self.kept.push(manifest);
        self.delivered = false;
        Ok(Written { sequence, bytes })
    }

    /// Delivers the newest checkpoint's outbox, and then cleans up. May be called again after an
    /// error, and does nothing when all is delivered.
    pub async fn deliver(&mut self, notices: &dyn NoticeSink) -> Result<(), CheckpointError> {
        if self.delivered {
            return Ok(());
        }
        if let Some(manifest) = self.kept.last().cloned() {
            for file in &manifest.outbox.rows {
                let batches = self.folder.read(file).await?;
                self.delivery.rows(&self.storage, &self.name, manifest.sequence, &file.name, batches).await?;
            }
            if let Some(file) = &manifest.outbox.notices {
                let batches = self.folder.read(file).await?;
                notices.send(&outbox::from_batches(&file.path, &batches)?).await?;
            }
        }
        self.delivered = true;
        self.clean_up().await;
        Ok(())
    }

    fn check_delivered(&self) -> Result<(), CheckpointError> {
        match self.newest() {
            Some(newest) if !self.delivered => Err(CheckpointError::Format {
                path: self.folder.root.clone(),
                problem: format!("checkpoint {} is not delivered yet", newest.sequence),
            }),
            _ => Ok(()),
        }
    }

    async fn commit(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let below = format!("manifest/{}", file_name(manifest.sequence));
        let path = self.folder.path(&below);
        let bytes = serde_json::to_vec(manifest)
            .map(Bytes::from)
            .map_err(|e| CheckpointError::Format { path: path.to_string(), problem: e.to_string() })?;
        let mut pauses = backon::BackoffBuilder::build(retries());
        loop {
            let create = PutOptions { mode: PutMode::Create, ..Default::default() };
            let error = match self.folder.store.put_opts(&path, bytes.clone().into(), create).await {
                Ok(_) => return self.check_not_left_behind(manifest).await,
                Err(error) => error,
            };
            // Taken by another owner, or by ourselves and the reply was lost.
            match self.manifest(manifest.sequence).await {
                Ok(Some(found)) if found.attempt == manifest.attempt => {
                    return self.check_not_left_behind(manifest).await;
                }
                Ok(Some(_)) => return Err(self.fenced(manifest.sequence)),
                Ok(None) | Err(_) => {}
            }
            let Some(pause) = pauses.next() else { return Err(self.folder.fail(&below)(error)) };
            tokio::time::sleep(pause).await;
        }
    }

    /// An owner that slept for long may find its number free because newer owners have cleaned it up.
    /// They clean up oldest first, so then the number before is gone as well.
    async fn check_not_left_behind(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let alone = match self.newest() {
            None => self.numbers().await? == BTreeSet::from([manifest.sequence]),
            Some(before) => self.manifest(before.sequence).await?.is_some_and(|m| m.attempt == before.attempt),
        };
        if alone {
            return Ok(());
        }
        let ours = self.folder.path(&format!("manifest/{}", file_name(manifest.sequence)));
        if let Err(error) = self.folder.store.delete(&ours).await {
            debug!(line = %self.name, %error, "a checkpoint that is of no use could not be removed");
        }
        Err(self.fenced(manifest.sequence))
    }

    fn fenced(&self, sequence: u64) -> CheckpointError {
        CheckpointError::Fenced { line: self.name.to_string(), sequence }
    }

    async fn numbers(&self) -> Result<BTreeSet<u64>, CheckpointError> {
        let objects = self.folder.store.list(Some(&self.folder.path("manifest")));
        let objects: Vec<_> = objects.try_collect().await.map_err(self.folder.fail("manifest"))?;
        let number = |name: &str| name.strip_suffix(".json").and_then(|n| n.parse().ok());
        Ok(objects.iter().filter_map(|object| object.location.filename().and_then(number)).collect())
    }

    async fn manifest(&self, sequence: u64) -> Result<Option<Manifest>, CheckpointError> {
        let below = format!("manifest/{}", file_name(sequence));
        let path = self.folder.path(&below);
        let bytes = match self.folder.store.get(&path).await {
            Ok(found) => found.bytes().await.map_err(self.folder.fail(&below))?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.folder.fail(&below)(error)),
        };
        let bad = |problem: String| CheckpointError::Format { path: path.to_string(), problem };
        let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
        match manifest.format {
            FORMAT => Ok(Some(manifest)),
            other => Err(bad(format!("has format {other}, and this release reads {FORMAT}"))),
        }
    }

    /// Removes checkpoints beyond those kept, oldest first: their manifests, then what only they had.
    async fn clean_up(&mut self) {
        while self.kept.len() > self.options.keep.max(2) {
            let old = self.kept.remove(0);
            let needed: BTreeSet<String> = self.kept.iter().flat_map(Manifest::paths).collect();
            let mut gone = vec![format!("manifest/{}", file_name(old.sequence))];
            gone.extend(old.paths().difference(&needed).cloned());
            for below in gone {
                match self.folder.store.delete(&self.folder.path(&below)).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => {
                        warn!(line = %self.name, %below, %error, "an old checkpoint could not be removed");
                        // In order or not at all: the next opening sees it again.
                        if below.starts_with("manifest/") {
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Removes files no checkpoint has: left by attempts that never got their manifest. Only old
    /// ones, as another owner may be about to write its own.
    async fn sweep(&self) {
        let needed: BTreeSet<_> =
            self.kept.iter().flat_map(Manifest::paths).map(|below| self.folder.path(&below)).collect();
        let before = Utc::now() - TimeDelta::days(1);
        for kind in ["state", "outbox"] {
            let mut objects = self.folder.store.list(Some(&self.folder.path(kind)));
            while let Some(Ok(object)) = objects.next().await {
                if object.last_modified < before
                    && !needed.contains(&object.location)
                    && let Err(error) = self.folder.store.delete(&object.location).await
                {
                    debug!(line = %self.name, %error, "a left-over file could not be removed");
                }
            }
        }
    }
}
