//! A correlator's state as batches: what changed, by group. It has the form of [`KeyedState`]'s own snapshots.

use arrow::array::{Array, AsArray};
use companyos_sigma::{Correlator, CorrelatorHead, CorrelatorPart};
use companyos_stream::{KeyedState, SnapshotKind, StateBatch, StreamError};

/// Everything, or the groups that changed since the last snapshot.
pub(crate) fn save(name: &str, correlator: &mut Correlator, kind: SnapshotKind) -> Result<StateBatch, StreamError> {
    let changes = correlator.take_changes();
    let mut parts: KeyedState<Option<CorrelatorPart>> = KeyedState::new(name);
    match kind {
        SnapshotKind::Full => correlator.parts().for_each(|(key, part)| parts.insert(&key, i64::MAX, Some(part))),
        SnapshotKind::Incremental => {
            for (key, part) in changes {
                let gone = part.is_none();
                parts.insert(&key, i64::MAX, part);
                if gone {
                    // What was there and is not any more is stored as gone.
                    parts.remove(&key);
                }
            }
        }
    }
    parts.snapshot(kind)
}

/// Takes back what was saved, in order.
pub(crate) fn load(name: &str, correlator: &mut Correlator, state: &[StateBatch]) -> Result<(), StreamError> {
    for batch in state.iter().filter(|batch| batch.name == name) {
        let columns = (batch.batch.column_by_name("key"), batch.batch.column_by_name("value"));
        if let (Some(Some(keys)), Some(values)) = (columns.0.map(|c| c.as_string_opt::<i32>()), columns.1) {
            (0..keys.len()).filter(|&row| values.is_null(row)).for_each(|row| correlator.put(keys.value(row), None));
        }
        let mut parts: KeyedState<Option<CorrelatorPart>> = KeyedState::new(name);
        parts.restore(std::slice::from_ref(batch))?;
        for (key, part) in parts.iter() {
            correlator.put(key, part.clone());
        }
    }
    Ok(())
}

pub(crate) fn encode(head: &CorrelatorHead) -> Result<Vec<u8>, StreamError> {
    postcard::to_stdvec(head).map_err(|e| problem(&e))
}

pub(crate) fn decode(bytes: &[u8]) -> Result<CorrelatorHead, StreamError> {
    postcard::from_bytes(bytes).map_err(|e| problem(&e))
}

fn problem(problem: &dyn std::fmt::Display) -> StreamError {
    StreamError::State { part: "correlations".to_owned(), problem: problem.to_string() }
}
