//! The tables one member writes: which rows go to which, where each continues from, and which of
//! them says where a partition resumes.
//!
//! A pipeline writes several tables (its stream and the quarantine, per region), and Delta commits
//! are per table. One of them, the stream's table in the home region, is the *anchor*: an epoch
//! commits to all others first and to the anchor last, and a partition resumes from the anchor.
//! A crash in between leaves others ahead; their own `txn` positions make the re-read skip exactly
//! the rows they already have.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::AsArray,
    datatypes::{Date32Type, Int64Type},
};
use companyos_operators::ChainOutput;
use companyos_schemas::{Stream, arrow_schema, quarantine, tenancy::Tenancy};
use companyos_sinks::{
    delta::{DeltaSink, DeltaSinkError, FileOptions, PartitionRows, RoutedBatch, TableEpoch, TableSpec},
    storage::Storage,
};
use companyos_source_kafka::TopicPartition;

use crate::epoch::{EpochPart, app_id};

/// A table of one region.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TableKey {
    pub region: Arc<str>,
    pub quarantine: bool,
}

/// All tables of a pipeline, opened when first needed.
pub(crate) struct Tables {
    pipeline: String,
    stream: Stream,
    anchor: TableKey,
    storages: HashMap<Arc<str>, Storage>,
    files: FileOptions,
    open: HashMap<TableKey, DeltaSink>,
    /// Where each table continues for each assigned partition.
    continues: HashMap<(TableKey, Arc<str>), Option<i64>>,
    assigned: Vec<TopicPartition>,
}

impl Tables {
    pub(crate) fn new(
        pipeline: &str,
        stream: Stream,
        tenancy: &Tenancy,
        storages: HashMap<Arc<str>, Storage>,
        files: FileOptions,
    ) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            stream,
            anchor: TableKey { region: Arc::from(tenancy.home_region.as_str()), quarantine: false },
            storages,
            files,
            open: HashMap::new(),
            continues: HashMap::new(),
            assigned: Vec::new(),
        }
    }

    /// The table that says where partitions resume.
    pub(crate) fn anchor(&self) -> TableKey {
        self.anchor.clone()
    }

    /// Takes over partitions: reads where every existing table stands, and returns the anchor's
    /// positions, in order.
    pub(crate) async fn assign(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>, DeltaSinkError> {
        self.release(partitions);
        self.assigned.extend_from_slice(partitions);
        self.open_existing().await?;
        // One read per table for all partitions, old ones included: `load_positions` starts afresh.
        let ids: Vec<Arc<str>> = self.assigned.iter().map(|p| app_id(&self.pipeline, p)).collect();
        let new: Vec<Arc<str>> = partitions.iter().map(|p| app_id(&self.pipeline, p)).collect();
        for (key, sink) in &mut self.open {
            for (id, position) in ids.iter().zip(sink.load_positions(&ids).await?) {
                if new.contains(id) {
                    self.continues.insert((key.clone(), id.clone()), position);
                }
            }
        }
        Ok(new.iter().map(|id| self.continues_from(&self.anchor, id)).collect())
    }

    /// Gives partitions up.
    pub(crate) fn release(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            let id = app_id(&self.pipeline, partition);
            self.continues.retain(|(_, app), _| *app != id);
        }
        self.assigned.retain(|p| !partitions.contains(p));
    }

    /// The share of an epoch that belongs to each table. Tables other than the anchor appear only
    /// if they get rows; the anchor always does, to carry the positions.
    pub(crate) async fn share_out(
        &mut self,
        epoch: u64,
        parts: &[EpochPart],
    ) -> Result<HashMap<TableKey, TableEpoch>, DeltaSinkError> {
        let mut routed: HashMap<TableKey, HashMap<usize, Vec<RoutedBatch>>> = HashMap::new();
        for (index, part) in parts.iter().enumerate() {
            for output in &part.outputs {
                for (key, batch) in route(output) {
                    routed.entry(key).or_default().entry(index).or_default().push(batch);
                }
            }
        }
        routed.entry(self.anchor.clone()).or_default();
        let mut shares = HashMap::new();
        for (key, mut by_part) in routed {
            self.open_for_write(&key).await?;
            let is_anchor = key == self.anchor;
            let mut share = TableEpoch { epoch, parts: Vec::new() };
            for (index, part) in parts.iter().enumerate() {
                let id = app_id(&self.pipeline, &part.partition);
                let expected = self.continues_from(&key, &id);
                if expected.is_some_and(|at| at >= part.last) {
                    continue;
                }
                let mut rows = by_part.remove(&index).unwrap_or_default();
                skip_committed(&mut rows, expected);
                if is_anchor || rows.iter().any(|r| r.rows() > 0) {
                    share.parts.push(PartitionRows { app_id: id, expected, last: part.last, rows });
                }
            }
            if !share.parts.is_empty() {
                shares.insert(key, share);
            }
        }
        Ok(shares)
    }

    /// Lends the sink of an open table; give it back with [`Tables::put_back`].
    pub(crate) fn take(&mut self, key: &TableKey) -> Option<DeltaSink> {
        self.open.remove(key)
    }

    /// Takes a sink back.
    pub(crate) fn put_back(&mut self, key: TableKey, sink: DeltaSink) {
        self.open.insert(key, sink);
    }

    /// Notes that a table now holds a partition up to `last`.
    pub(crate) fn advanced(&mut self, key: &TableKey, app: &Arc<str>, last: i64) {
        if let Some(position) = self.continues.get_mut(&(key.clone(), app.clone())) {
            *position = Some(last);
        }
    }

    fn continues_from(&self, key: &TableKey, app: &Arc<str>) -> Option<i64> {
        self.continues.get(&(key.clone(), app.clone())).copied().flatten()
    }

    async fn open_existing(&mut self) -> Result<(), DeltaSinkError> {
        let anchor = self.anchor.clone();
        self.open_sink(&anchor).await?;
        for (region, storage) in self.storages.clone() {
            for quarantine in [false, true] {
                let key = TableKey { region: region.clone(), quarantine };
                let name = table_name(self.stream, quarantine);
                if storage.table_exists(name).await? {
                    self.open_sink(&key).await?;
                }
            }
        }
        Ok(())
    }

    async fn open_for_write(&mut self, key: &TableKey) -> Result<(), DeltaSinkError> {
        if self.open.contains_key(key) {
            return Ok(());
        }
        self.open_sink(key).await?;
        let ids: Vec<Arc<str>> = self.assigned.iter().map(|p| app_id(&self.pipeline, p)).collect();
        if let Some(sink) = self.open.get_mut(key) {
            for (id, position) in ids.iter().zip(sink.load_positions(&ids).await?) {
                self.continues.insert((key.clone(), id.clone()), position);
            }
        }
        Ok(())
    }

    async fn open_sink(&mut self, key: &TableKey) -> Result<(), DeltaSinkError> {
        if self.open.contains_key(key) {
            return Ok(());
        }
        let spec = spec(self.stream, key.quarantine);
        let storage = self.storages.get(&key.region).ok_or_else(|| DeltaSinkError::Log {
            table: spec.name.clone(),
            problem: format!("region {} has no storage", key.region),
        })?;
        let sink = DeltaSink::open(storage, spec, self.files.clone()).await?;
        self.open.insert(key.clone(), sink);
        Ok(())
    }
}

fn table_name(stream: Stream, quarantined: bool) -> &'static str {
    match quarantined {
        true => quarantine::TABLE,
        false => stream.name(),
    }
}

fn spec(stream: Stream, quarantined: bool) -> TableSpec {
    let (schema, columns): (_, &[&str]) = match quarantined {
        true => (quarantine::table_schema(), &quarantine::PARTITION_COLUMNS),
        false => (arrow_schema::table_schema(stream), &arrow_schema::PARTITION_COLUMNS),
    };
    TableSpec {
        name: table_name(stream, quarantined).to_owned(),
        schema,
        partition_columns: columns.iter().map(|c| (*c).to_owned()).collect(),
    }
}

/// Which table each row of a chain's output goes to, with its partition values.
fn route(output: &ChainOutput) -> Vec<(TableKey, RoutedBatch)> {
    let mut tables: HashMap<TableKey, RoutedBatch> = HashMap::new();
    if let Some(batch) = &output.rows {
        for (route, rows) in &output.routes {
            let key = TableKey { region: route.region.clone(), quarantine: false };
            let entry = tables.entry(key).or_insert_with(|| RoutedBatch { batch: batch.clone(), groups: Vec::new() });
            let values = vec![route.tenant.clone(), route.region.clone(), day_text(route.day)];
            entry.groups.push((values, rows.clone()));
        }
    }
    let mut routed: Vec<_> = tables.into_iter().collect();
    for (region, batch) in &output.quarantine {
        let key = TableKey { region: region.clone(), quarantine: true };
        let mut groups: HashMap<i32, Vec<u32>> = HashMap::new();
        if let Some(days) = batch.column_by_name(arrow_schema::DAY).and_then(|c| c.as_primitive_opt::<Date32Type>()) {
            for (row, day) in days.values().iter().enumerate() {
                groups.entry(*day).or_default().push(row as u32);
            }
        }
        let groups = groups.into_iter().map(|(day, rows)| (vec![day_text(day)], rows)).collect();
        routed.push((key, RoutedBatch { batch: batch.clone(), groups }));
    }
    routed
}

/// Drops rows the table already has.
fn skip_committed(rows: &mut [RoutedBatch], expected: Option<i64>) {
    let Some(expected) = expected else { return };
    for routed in rows {
        let offsets = routed.batch.column_by_name(arrow_schema::OFFSET).and_then(|c| c.as_primitive_opt::<Int64Type>());
        let Some(offsets) = offsets.filter(|o| o.values().first().is_some_and(|first| *first <= expected)) else {
            continue;
        };
        for (_, rows) in &mut routed.groups {
            rows.retain(|row| offsets.values().get(*row as usize).is_some_and(|offset| *offset > expected));
        }
        routed.groups.retain(|(_, rows)| !rows.is_empty());
    }
}

fn day_text(day: i32) -> Arc<str> {
    let date = chrono::DateTime::from_timestamp(i64::from(day) * 86_400, 0).unwrap_or_default();
    Arc::from(date.format("%Y-%m-%d").to_string())
}
