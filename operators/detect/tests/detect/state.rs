//! What is stored of correlations: the groups that changed, and together all that is needed.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use companyos_detect::DetectOperator;
use companyos_stream::{ShardOperator, SnapshotKind, StateBatch};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::operating::{book, feed};

fn step(actor: usize, second: u64) -> Value {
    json!({"signal_type": "step", "actor": format!("a{actor}"), "at": format!("{second}s")})
}

/// Stored bytes of keys and values, and rows.
fn size(state: &[StateBatch]) -> (usize, usize) {
    let bytes = |batch: &StateBatch| {
        let (keys, values) = (batch.batch.column(0).as_string::<i32>(), batch.batch.column(1).as_binary::<i32>());
        let key_bytes: usize = keys.iter().flatten().map(str::len).sum();
        key_bytes + values.iter().flatten().map(<[u8]>::len).sum::<usize>()
    };
    (state.iter().map(bytes).sum(), state.iter().map(|b| b.batch.num_rows()).sum())
}

#[test]
fn a_snapshot_after_one_event_holds_one_group() {
    let mut operator = DetectOperator::new(book("{}", &[])).unwrap();
    let many: Vec<Value> = (0..1500).map(|actor| step(actor, 1)).collect();
    feed(&mut operator, &many, 0);
    let full = operator.snapshot(SnapshotKind::Full).unwrap();
    feed(&mut operator, &[step(7, 2)], 1500);
    let changed = operator.snapshot(SnapshotKind::Incremental).unwrap();
    let groups = |state: &[StateBatch]| {
        state.iter().filter(|b| b.name == "correlations_live").map(|b| b.batch.num_rows()).sum::<usize>()
    };
    assert_eq!((groups(&full), groups(&changed)), (1500, 1));
    let ((all, _), (part, rows)) = (size(&full), size(&changed));
    assert!(part * 200 < all && rows < 10, "{part} of {all} bytes, {rows} rows");
    assert!(operator.stats().state_keys >= 1500, "groups are told in the metrics");
}

/// Everything that is stored, whatever the order of rows.
fn rows(operator: &mut DetectOperator) -> BTreeMap<(String, String), Vec<u8>> {
    let mut rows = BTreeMap::new();
    for state in operator.snapshot(SnapshotKind::Full).unwrap() {
        let (keys, values) = (state.batch.column(0).as_string::<i32>(), state.batch.column(1).as_binary::<i32>());
        for row in (0..keys.len()).filter(|&row| values.is_valid(row)) {
            rows.insert((state.name.clone(), keys.value(row).to_owned()), values.value(row).to_vec());
        }
    }
    rows
}

#[derive(Debug, Clone)]
enum Move {
    Step(usize, u64),
    Snapshot,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A chain of snapshots, however it is cut, restores the state, and what is found afterwards is the same.
    #[test]
    fn a_chain_restores_the_state(
        moves in prop::collection::vec(
            prop_oneof![4 => (0..5usize, 0..4000u64).prop_map(|(a, s)| Move::Step(a, s)), 1 => Just(Move::Snapshot)],
            1..40,
        ),
        one_by_one: bool,
    ) {
        let mut operator = DetectOperator::new(book("lateness: 5m", &[])).unwrap();
        let mut chain = vec![operator.snapshot(SnapshotKind::Full).unwrap()];
        for (offset, step_or_not) in moves.iter().enumerate() {
            match step_or_not {
                Move::Step(actor, second) => feed(&mut operator, &[step(*actor, *second)], offset),
                Move::Snapshot => chain.push(operator.snapshot(SnapshotKind::Incremental).unwrap()),
            }
        }
        chain.push(operator.snapshot(SnapshotKind::Incremental).unwrap());
        operator.take_findings();
        let mut restored = DetectOperator::new(book("lateness: 5m", &[])).unwrap();
        if one_by_one {
            chain.iter().for_each(|part| restored.restore(part).unwrap());
        } else {
            restored.restore(&chain.concat()).unwrap();
        }
        prop_assert_eq!(rows(&mut operator), rows(&mut restored));
        let more: Vec<Value> = (0..5).flat_map(|a| [step(a, 3990), step(a, 4000), step(a, 4010)]).collect();
        feed(&mut operator, &more, 1000);
        feed(&mut restored, &more, 1000);
        prop_assert_eq!(operator.take_findings(), restored.take_findings());
    }
}
