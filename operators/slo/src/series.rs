//! The state of every key: a small head that changes with each evaluation, and panes, of which only
//! the pages that changed go into an incremental snapshot.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, BinaryBuilder, Int8Builder, Int64Builder, RecordBatch, StringBuilder},
    datatypes::{DataType, Field, Int8Type, Int64Type, Schema},
};
use companyos_stream::{KeyedState, SnapshotKind, StateBatch, StreamError};
use serde::{Deserialize, Serialize};

use crate::{
    alert::Alert,
    panes::{Counts, Page, Panes},
};

/// What is kept of one (tenant, env, region, service, slo) beside its panes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Head {
    /// What is measured.
    pub fingerprint: u64,
    /// Minute of the first event that panes can still tell of; none before any.
    pub since: Option<i64>,
    /// The newest commit that brought events, microseconds.
    pub seen_at: i64,
    /// When the key was last put out, microseconds, and what was.
    pub emitted_at: i64,
    pub emitted: Option<(Vec<Counts>, u8, f64)>,
    /// Alerts that are on, by policy and condition.
    pub alerts: BTreeMap<String, Alert>,
    /// When data was found missing, microseconds.
    pub no_data: Option<i64>,
}

/// Heads and panes by key.
#[derive(Debug)]
pub(crate) struct Series {
    heads: KeyedState<Head>,
    panes: HashMap<String, Panes>,
    /// Keys whose panes changed since the last snapshot.
    changed: BTreeSet<String>,
    /// Keys whose pages of before the last snapshot are void.
    dropped: BTreeSet<String>,
}

const PAGES: &str = "slo_pages";

impl Series {
    pub fn new() -> Self {
        Self {
            heads: KeyedState::new("slo_heads"),
            panes: HashMap::new(),
            changed: BTreeSet::new(),
            dropped: BTreeSet::new(),
        }
    }

    /// Changes a key, made if there is none, and sets when it expires.
    pub fn update(&mut self, key: &str, expires_at: i64, change: impl FnOnce(&mut Head, &mut Panes)) {
        if !self.panes.contains_key(key) {
            self.panes.insert(key.to_owned(), Panes::default());
        }
        let Some(panes) = self.panes.get_mut(key) else { return };
        self.heads.update(key, expires_at, |head| change(head, panes));
        if !self.changed.contains(key) {
            self.changed.insert(key.to_owned());
        }
    }

    pub fn head(&self, key: &str) -> Option<&Head> {
        self.heads.get(key)
    }

    pub fn panes(&self, key: &str) -> Option<&Panes> {
        self.panes.get(key)
    }

    /// Sets the head of a key that is there; its panes stay.
    pub fn set_head(&mut self, key: &str, expires_at: i64, head: Head) {
        self.heads.insert(key, expires_at, head);
    }

    pub fn remove(&mut self, key: &str) -> Option<Head> {
        self.drop_panes(key);
        self.heads.remove(key)
    }

    /// Removes what has expired, and returns its heads.
    pub fn expire(&mut self, now: i64) -> Vec<(String, Head)> {
        let expired = self.heads.expire(now);
        for (key, _) in &expired {
            self.drop_panes(key);
        }
        expired
    }

    fn drop_panes(&mut self, key: &str) {
        self.panes.remove(key);
        self.changed.remove(key);
        self.dropped.insert(key.to_owned());
    }

    pub fn heads(&self) -> impl Iterator<Item = (&str, &Head)> {
        self.heads.iter()
    }

    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Bytes held, about.
    pub fn bytes(&self) -> u64 {
        let panes: usize = self.panes.values().map(Panes::len).sum();
        self.heads.bytes() + panes as u64 * 32
    }

    pub fn snapshot(&mut self, kind: SnapshotKind) -> Result<[StateBatch; 2], StreamError> {
        let mut rows = Pages::default();
        let changed = std::mem::take(&mut self.changed);
        let dropped = std::mem::take(&mut self.dropped);
        match kind {
            SnapshotKind::Full => {
                for (key, panes) in &mut self.panes {
                    panes.take_changed();
                    for page in panes.pages() {
                        rows.put(key, page, panes)?;
                    }
                }
            }
            SnapshotKind::Incremental => {
                for key in &dropped {
                    rows.drop(key);
                }
                for key in &changed {
                    let Some(panes) = self.panes.get_mut(key) else { continue };
                    for page in panes.take_changed() {
                        rows.put(key, page, panes)?;
                    }
                }
            }
        }
        Ok([self.heads.snapshot(kind)?, rows.finish()?])
    }

    /// Takes a snapshot's batches in, in order.
    pub fn restore(&mut self, state: &[StateBatch]) -> Result<(), StreamError> {
        self.heads.restore(state)?;
        for part in state.iter().filter(|part| part.name == PAGES) {
            self.restore_pages(&part.batch)?;
        }
        self.changed.clear();
        self.dropped.clear();
        Ok(())
    }

    fn restore_pages(&mut self, batch: &RecordBatch) -> Result<(), StreamError> {
        let column = |name| batch.column_by_name(name);
        let (Some(keys), Some(kinds), Some(pages), Some(contents)) = (
            column("key").and_then(|c| c.as_string_opt::<i32>()),
            column("kind").and_then(|c| c.as_primitive_opt::<Int8Type>()),
            column("page").and_then(|c| c.as_primitive_opt::<Int64Type>()),
            column("content").and_then(|c| c.as_binary_opt::<i32>()),
        ) else {
            return Err(problem("lacks a column, or has one of another type"));
        };
        for row in 0..batch.num_rows() {
            let key = keys.value(row);
            let page = match kinds.value(row) {
                DROP => {
                    self.panes.remove(key);
                    continue;
                }
                FOLD => Page::Fold,
                HOURS => Page::Hour(pages.value(row)),
                DAYS => Page::Day(pages.value(row)),
                other => return Err(problem(format!("has a page of kind {other}"))),
            };
            let content = match contents.is_null(row) {
                true => None,
                false => Some(postcard::from_bytes(contents.value(row)).map_err(problem)?),
            };
            self.panes.entry(key.to_owned()).or_default().set_page(page, content);
        }
        Ok(())
    }
}

fn problem(problem: impl ToString) -> StreamError {
    StreamError::State { part: PAGES.to_owned(), problem: problem.to_string() }
}

const DROP: i8 = 0;
const FOLD: i8 = 1;
const HOURS: i8 = 2;
const DAYS: i8 = 3;

/// Pages on their way into a snapshot: kind 0 voids the key's pages before it, a page without
/// content is gone.
#[derive(Default)]
struct Pages {
    keys: StringBuilder,
    kinds: Int8Builder,
    pages: Int64Builder,
    contents: BinaryBuilder,
}

impl Pages {
    fn drop(&mut self, key: &str) {
        self.keys.append_value(key);
        self.kinds.append_value(DROP);
        self.pages.append_value(0);
        self.contents.append_null();
    }

    fn put(&mut self, key: &str, page: Page, panes: &Panes) -> Result<(), StreamError> {
        let (kind, number) = match page {
            Page::Fold => (FOLD, 0),
            Page::Hour(hour) => (HOURS, hour),
            Page::Day(day) => (DAYS, day),
        };
        let content = panes.page(page).map(|page| postcard::to_stdvec(&page)).transpose().map_err(problem)?;
        self.keys.append_value(key);
        self.kinds.append_value(kind);
        self.pages.append_value(number);
        self.contents.append_option(content);
        Ok(())
    }

    fn finish(mut self) -> Result<StateBatch, StreamError> {
        let schema = Schema::new(vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("kind", DataType::Int8, false),
            Field::new("page", DataType::Int64, false),
            Field::new("content", DataType::Binary, true),
        ]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.keys.finish()),
            Arc::new(self.kinds.finish()),
            Arc::new(self.pages.finish()),
            Arc::new(self.contents.finish()),
        ];
        Ok(StateBatch { name: PAGES.to_owned(), batch: RecordBatch::try_new(Arc::new(schema), columns)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compile::Budgeting;

    #[derive(Debug, Clone)]
    enum Step {
        Add(u8, i64),
        Remove(u8),
        Snapshot,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..3u8, 0..400i64).prop_map(|(k, late)| Step::Add(k, late)),
            1 => (0..3u8).prop_map(Step::Remove),
            2 => Just(Step::Snapshot),
        ]
    }

    proptest! {
        #[test]
        fn a_chain_of_snapshots_restores_the_same_panes(
            steps in prop::collection::vec(step(), 0..80),
            full_at in 0..80usize,
        ) {
            let mut series = Series::new();
            let mut chain: Vec<StateBatch> = series.snapshot(SnapshotKind::Full).unwrap().into();
            let mut now = 1_000_000;
            for (i, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Add(key, late) => {
                        now += 173;
                        series.update(&key.to_string(), now, |head, panes| {
                            head.seen_at = now;
                            panes.fold(Budgeting::Occurrences, now, now - 6_000);
                            panes.add(Budgeting::Occurrences, now - late * 11, 1.0, 1.0);
                        });
                    }
                    Step::Remove(key) => drop(series.remove(&key.to_string())),
                    Step::Snapshot if i == full_at => chain = series.snapshot(SnapshotKind::Full).unwrap().into(),
                    Step::Snapshot => chain.extend(series.snapshot(SnapshotKind::Incremental).unwrap()),
                }
            }
            chain.extend(series.snapshot(SnapshotKind::Incremental).unwrap());
            let mut restored = Series::new();
            restored.restore(&chain).unwrap();
            let all = |s: &Series| {
                let pages = |p: &Panes| p.pages().into_iter().map(|at| (at, p.page(at))).collect::<Vec<_>>();
                s.panes.iter().map(|(key, panes)| (key.clone(), pages(panes))).collect::<BTreeMap<_, _>>()
            };
            prop_assert_eq!(all(&series), all(&restored));
            prop_assert_eq!(series.len(), restored.len());
        }
    }
}
