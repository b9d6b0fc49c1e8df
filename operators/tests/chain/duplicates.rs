//! Duplicates against a plain map, through flushes, spills, expiry and restarts.

use std::collections::HashMap;

use companyos_operators::{DecodeConfig, DedupConfig, PartitionChain, Record};
use companyos_schemas::Stream;
use proptest::prelude::*;

use crate::fuzz::chain;

const HORIZON_SECONDS: u64 = 8;
/// An eighth of the horizon.
const PANE_US: i64 = 1_000_000;
const START_US: i64 = 1_767_312_000_000_000;

#[derive(Debug, Clone)]
enum Step {
    /// Events of (tenant, id), some time after the step before, in one flush.
    Flush { after_us: i64, events: Vec<(bool, u8)> },
    /// The chain is thrown away and rebuilt from what the tables hold.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let events = prop::collection::vec((any::<bool>(), 0u8..40), 0..12);
    let flush = (0..3_000_000i64, events).prop_map(|(after_us, events)| Step::Flush { after_us, events });
    prop::collection::vec(prop_oneof![6 => flush, 1 => Just(Step::Restart)], 1..25)
}

fn fresh(max_entries: usize) -> PartitionChain {
    let dedup = DedupConfig { horizon_seconds: HORIZON_SECONDS, max_entries, spill_dir: None };
    chain(Stream::OpsEvents, DecodeConfig::default(), dedup)
}

fn event(tenant: &str, region: &str, id: u8) -> String {
    format!(
        r#"{{"event_id":"{id}","occurred_at":1767312000,"tenant":"{tenant}","env":"prod","region":"{region}","kind":"k","service":"s"}}"#
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn each_id_passes_once_per_tenant_and_horizon(max_entries in 1usize..30, steps in steps()) {
        let mut chain = fresh(max_entries);
        // What the tables hold: every row that passed, and when.
        let mut table: Vec<(&str, String, i64)> = Vec::new();
        let mut first_seen: HashMap<(&str, u8), i64> = HashMap::new();
        let (mut now, mut offset) = (START_US, 0);
        for step in steps {
            let Step::Flush { after_us, events } = step else {
                chain = fresh(max_entries);
                // Newest first: a table has no order.
                chain.restore_dedup(table.iter().rev().map(|(tenant, id, at)| (*tenant, id.as_str(), *at))).unwrap();
                continue;
            };
            now += after_us;
            let mut expected = Vec::new();
            for (row, (is_alpha, id)) in events.iter().enumerate() {
                let (tenant, region) = if *is_alpha { ("alpha", "eu-west-1") } else { ("beta", "us-east-1") };
                let text = event(tenant, region, *id);
                let record = Record { offset, payload: Some(text.as_bytes()), timestamp_ms: Some(START_US / 1_000), ..Record::default() };
                chain.push(&record, now);
                offset += 1;
                let seen = first_seen.get(&(tenant, *id));
                if seen.is_none_or(|first| now / PANE_US - first / PANE_US > HORIZON_SECONDS as i64) {
                    first_seen.insert((tenant, *id), now);
                    table.push((tenant, id.to_string(), now));
                    expected.push(row as u32);
                }
            }
            let output = chain.flush().unwrap();
            let mut passed: Vec<u32> = output.routes.into_iter().flat_map(|(_, rows)| rows).collect();
            passed.sort_unstable();
            prop_assert_eq!(output.stats.duplicates as usize, events.len() - expected.len());
            prop_assert_eq!(passed, expected);
        }
    }
}

#[test]
fn a_refused_event_does_not_make_its_correction_a_duplicate() {
    let mut chain = fresh(10);
    let (bad, good) = (event("alpha", "us-east-1", 1), event("alpha", "eu-west-1", 1));
    for (offset, text) in [(0, &bad), (1, &good)] {
        chain.push(&Record { offset, payload: Some(text.as_bytes()), ..Record::default() }, START_US);
    }
    let stats = chain.flush().unwrap().stats;
    assert_eq!((stats.routed, stats.duplicates, stats.quarantined.len()), (1, 0, 1));
}
