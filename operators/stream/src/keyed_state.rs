//! State by key, with expiry and incremental snapshots.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::{
    array::{Array, AsArray, BinaryBuilder, Int64Builder, RecordBatch, StringBuilder},
    datatypes::{DataType, Field, Int64Type, Schema},
};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;

use crate::{SnapshotKind, StateBatch, StreamError};

/// Values by key that expire, and know what changed since the last snapshot.
///
/// A value expires at the time given with it (any monotone clock in microseconds, usually event
/// time), when [`expire`](Self::expire) is told that this time has come. Values are stored with
/// postcard, which has no names: `flatten`, `untagged` and skipped fields do not work in `V`.
#[derive(Debug, Clone)]
pub struct KeyedState<V> {
    name: String,
    entries: HashMap<String, Entry<V>>,
    /// Keys by expiry.
    expiries: BTreeMap<i64, BTreeSet<String>>,
    changed: BTreeSet<String>,
    bytes: u64,
}

#[derive(Debug, Clone)]
struct Entry<V> {
    value: V,
    expires_at: i64,
}

/// Bytes an entry takes beside its key and value.
const OVERHEAD: u64 = 96;

impl<V: Serialize + DeserializeOwned> KeyedState<V> {
    /// Empty state; the name tells its snapshots from others of the same operator.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            entries: HashMap::new(),
            expiries: BTreeMap::new(),
            changed: BTreeSet::new(),
            bytes: 0,
        }
    }

    /// A value.
    pub fn get(&self, key: &str) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// Changes a value in place, made with `V::default` if there is none, and sets when it expires.
    pub fn update(&mut self, key: &str, expires_at: i64, change: impl FnOnce(&mut V))
    where
        V: Default,
    {
        if let Some(entry) = self.entries.get_mut(key) {
            change(&mut entry.value);
            let before = std::mem::replace(&mut entry.expires_at, expires_at);
            if before != expires_at {
                unlist(&mut self.expiries, before, key);
                self.expiries.entry(expires_at).or_default().insert(key.to_owned());
            }
        } else {
            let mut value = V::default();
            change(&mut value);
            self.put(key, Entry { value, expires_at });
        }
        if !self.changed.contains(key) {
            self.changed.insert(key.to_owned());
        }
    }

    /// Sets a value.
    pub fn insert(&mut self, key: &str, expires_at: i64, value: V) {
        self.take(key);
        self.put(key, Entry { value, expires_at });
        self.changed.insert(key.to_owned());
    }

    /// Removes a value.
    pub fn remove(&mut self, key: &str) -> Option<V> {
        let entry = self.take(key)?;
        self.changed.insert(key.to_owned());
        Some(entry.value)
    }

    /// Removes what has expired at `now`, and returns it, earliest first.
    pub fn expire(&mut self, now: i64) -> Vec<(String, V)> {
        let mut expired = Vec::new();
        while let Some((&at, _)) = self.expiries.first_key_value() {
            if at > now {
                break;
            }
            for key in self.expiries.get(&at).cloned().unwrap_or_default() {
                if let Some(value) = self.remove(&key) {
                    expired.push((key, value));
                }
            }
            self.expiries.remove(&at);
        }
        expired
    }

    /// Keys and values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.entries.iter().map(|(key, entry)| (key.as_str(), &entry.value))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes held, about: keys, bookkeeping and the values' own size without what they point to.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Everything, or what changed since the last snapshot. A removed key has a null value.
    pub fn snapshot(&mut self, kind: SnapshotKind) -> Result<StateBatch, StreamError> {
        let changed = std::mem::take(&mut self.changed);
        let mut keys = StringBuilder::new();
        let mut values = BinaryBuilder::new();
        let mut expiries = Int64Builder::new();
        let mut write = |key: &str, entry: Option<&Entry<V>>| -> Result<(), StreamError> {
            keys.append_value(key);
            match entry {
                Some(entry) => {
                    values.append_value(postcard::to_stdvec(&entry.value).map_err(|e| self.problem(&e))?);
                    expiries.append_value(entry.expires_at);
                }
                None => {
                    values.append_null();
                    expiries.append_value(0);
                }
            }
            Ok(())
        };
        match kind {
            SnapshotKind::Full => {
                for (key, entry) in &self.entries {
                    write(key, Some(entry))?;
                }
            }
            SnapshotKind::Incremental => {
                for key in &changed {
                    write(key, self.entries.get(key))?;
                }
            }
        }
        let schema = Schema::new(vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", DataType::Binary, true),
            Field::new("expires_at", DataType::Int64, false),
        ]);
        let columns: Vec<arrow::array::ArrayRef> =
            vec![Arc::new(keys.finish()), Arc::new(values.finish()), Arc::new(expiries.finish())];
        Ok(StateBatch { name: self.name.clone(), batch: RecordBatch::try_new(Arc::new(schema), columns)? })
    }

    /// Takes in those of the batches that carry this state's name, in order.
    pub fn restore(&mut self, state: &[StateBatch]) -> Result<(), StreamError> {
        let name = self.name.clone();
        for part in state.iter().filter(|part| part.name == name) {
            let column = |name| {
                part.batch.column_by_name(name).ok_or_else(|| StreamError::State {
                    part: self.name.clone(),
                    problem: format!("has no column {name}"),
                })
            };
            let (keys, values, expiries) = (column("key")?, column("value")?, column("expires_at")?);
            let (Some(keys), Some(values), Some(expiries)) =
                (keys.as_string_opt::<i32>(), values.as_binary_opt::<i32>(), expiries.as_primitive_opt::<Int64Type>())
            else {
                return Err(self.problem(&"has columns of other types"));
            };
            for row in 0..part.batch.num_rows() {
                let key = keys.value(row);
                self.take(key);
                if !values.is_null(row) {
                    let value = postcard::from_bytes(values.value(row)).map_err(|e| self.problem(&e))?;
                    self.put(key, Entry { value, expires_at: expiries.value(row) });
                }
            }
        }
        self.changed.clear();
        Ok(())
    }

    fn put(&mut self, key: &str, entry: Entry<V>) {
        self.bytes += self.weight(key);
        self.expiries.entry(entry.expires_at).or_default().insert(key.to_owned());
        self.entries.insert(key.to_owned(), entry);
    }

    fn take(&mut self, key: &str) -> Option<Entry<V>> {
        let entry = self.entries.remove(key)?;
        self.bytes = self.bytes.saturating_sub(self.weight(key));
        unlist(&mut self.expiries, entry.expires_at, key);
        Some(entry)
    }

    fn weight(&self, key: &str) -> u64 {
        (3 * key.len() + size_of::<V>()) as u64 + OVERHEAD
    }

    fn problem(&self, problem: &dyn std::fmt::Display) -> StreamError {
        StreamError::State { part: self.name.clone(), problem: problem.to_string() }
    }
}

fn unlist(expiries: &mut BTreeMap<i64, BTreeSet<String>>, at: i64, key: &str) {
    if let Some(keys) = expiries.get_mut(&at) {
        keys.remove(key);
        if keys.is_empty() {
            expiries.remove(&at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn expiry_removes_in_order_and_an_update_moves_it() {
        let mut state: KeyedState<u32> = KeyedState::new("s");
        state.update("a", 10, |v| *v += 1);
        state.update("b", 5, |v| *v += 2);
        state.update("a", 20, |v| *v += 1);
        assert_eq!(state.expire(10), [("b".to_owned(), 2)]);
        assert_eq!(state.expire(20), [("a".to_owned(), 2)]);
        assert!(state.is_empty() && state.bytes() == 0);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Update(u8, i64),
        Remove(u8),
        Expire(i64),
        Snapshot,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..8u8, 0..50i64).prop_map(|(k, t)| Step::Update(k, t)),
            1 => (0..8u8).prop_map(Step::Remove),
            1 => (0..50i64).prop_map(Step::Expire),
            2 => Just(Step::Snapshot),
        ]
    }

    proptest! {
        #[test]
        fn a_chain_of_snapshots_restores_the_same_state(steps in prop::collection::vec(step(), 0..60)) {
            let mut state: KeyedState<u64> = KeyedState::new("s");
            let mut chain = vec![state.snapshot(SnapshotKind::Full).unwrap()];
            for (i, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Update(k, t) => state.update(&k.to_string(), t, |v| *v = v.wrapping_mul(31) + i as u64),
                    Step::Remove(k) => drop(state.remove(&k.to_string())),
                    Step::Expire(t) => drop(state.expire(t)),
                    Step::Snapshot => chain.push(state.snapshot(SnapshotKind::Incremental).unwrap()),
                }
            }
            chain.push(state.snapshot(SnapshotKind::Incremental).unwrap());
            let mut restored: KeyedState<u64> = KeyedState::new("s");
            restored.restore(&chain).unwrap();
            let sorted = |s: &KeyedState<u64>| {
                let mut all: Vec<_> = s.entries.iter().map(|(k, e)| (k.clone(), e.value, e.expires_at)).collect();
                all.sort();
                all
            };
            prop_assert_eq!(sorted(&state), sorted(&restored));
            prop_assert_eq!(state.bytes(), restored.bytes());
        }
    }
}
