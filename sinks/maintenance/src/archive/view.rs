//! One table as of one moment in both roots.

use std::collections::BTreeSet;

use companyos_sinks::storage::Storage;
use deltalake::{DeltaTable, kernel::Add};

use super::{Manifest, unsettled};
use crate::{
    MaintenanceError,
    live_table::{LiveFile, LiveTable},
};

/// One table as of one moment in both roots: a read of `hot` and of `archive` without its
/// `unsettled` files has every row once, whatever moves are under way.
#[derive(Debug)]
pub struct TableView {
    /// The table in hot storage, if it exists.
    pub hot: Option<DeltaTable>,
    /// The table in the archive, if it exists.
    pub archive: Option<DeltaTable>,
    /// Paths of files of `archive` (below its table, as in the log's `add` actions) whose rows
    /// `hot` still has. Almost always empty.
    pub unsettled: BTreeSet<String>,
}

impl TableView {
    /// Opens the latest versions.
    ///
    /// Hot comes first, and `unsettled` is told by that very snapshot. Rows are removed from hot
    /// only after they are in the archive, in the commit that moves hot's position on. So rows
    /// that the hot snapshot lacks are in the younger archive snapshot, and those it has are in
    /// archive files beyond its position, which are left out.
    pub async fn open(hot: &Storage, archive: Option<&Storage>, table: &str) -> Result<Self, MaintenanceError> {
        let hot = LiveTable::open(hot, table).await?;
        let both = Both::beside(hot, archive, table).await?;
        let delta = |table: LiveTable| table.delta().clone();
        Ok(Self { hot: both.hot.map(delta), archive: both.archive.map(delta), unsettled: both.unsettled })
    }
}

/// The files that hold all rows the hot table had at one version or had moved to the archive by
/// then, each row once.
#[derive(Debug, Clone)]
pub struct StoredFiles {
    /// Version of the hot table.
    pub version: u64,
    /// Files of the hot table.
    pub hot: Vec<Add>,
    /// Files of the archive.
    pub archive: Vec<Add>,
}

impl StoredFiles {
    /// As of a version of the hot table (the latest unless named); none if there is no such table.
    pub async fn of(
        hot: &Storage,
        archive: Option<&Storage>,
        table: &str,
        version: Option<u64>,
    ) -> Result<Option<Self>, MaintenanceError> {
        let hot = match version {
            None => LiveTable::open(hot, table).await?,
            Some(version) => Some(LiveTable::open_at(hot, table, version).await?),
        };
        let both = Both::beside(hot, archive, table).await?;
        let Some(hot) = both.hot else { return Ok(None) };
        let archived = both.archive.iter().flat_map(|archive| &archive.files);
        let archived = archived.filter(|file| !both.unsettled.contains(&file.path)).map(LiveFile::add);
        Ok(Some(Self {
            version: hot.version,
            hot: hot.files.iter().map(LiveFile::add).collect(),
            archive: archived.collect(),
        }))
    }
}

struct Both {
    hot: Option<LiveTable>,
    archive: Option<LiveTable>,
    unsettled: BTreeSet<String>,
}

impl Both {
    /// The archive's latest version, opened after `hot` was.
    async fn beside(hot: Option<LiveTable>, archive: Option<&Storage>, table: &str) -> Result<Self, MaintenanceError> {
        let archive = match archive {
            Some(root) => LiveTable::open(root, table).await?,
            None => None,
        };
        let mut beyond = BTreeSet::new();
        if let (Some(hot), Some(archive)) = (&hot, &archive) {
            for partition in archive.partitions().keys() {
                let position = hot.position(&Manifest::app_id(table, partition)).await?.unwrap_or(0);
                beyond.extend(unsettled(archive, partition, position).map(|f| f.path.clone()));
            }
        }
        Ok(Self { hot, archive, unsettled: beyond })
    }
}
