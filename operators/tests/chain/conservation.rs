//! Whatever bytes come in, every event comes out exactly once: see [`crate::fuzz`] for what is checked.

use std::path::Path;

use proptest::prelude::*;

use crate::fuzz;

/// Pieces of JSON that together are nearly an event, and what spoils one.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        &b"{"[..],
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\xff",
        b"\n\n",
        b"\"",
        b"\\",
        b"\\ud800",
        b"1e999",
        b"-",
        b"null",
        b" ",
        br#""event_id":"1","occurred_at":"2026-01-02T00:00:00Z","tenant":"alpha","env":"prod","region":"eu-west-1""#,
        br#","kind":"deployment","service":"api""#,
        br#","service":"api","sli_type":"latency","window":"1m","value":1,"objective":1"#,
        br#","actor":"a","signal_type":"s","severity":"low","evidence":{}"#,
        br#","actor":"a","action":"b","resource":"c","outcome":"denied""#,
        br#","region":"us-east-1""#,
        br#""specversion":"1.0","id":"9","source":"/s","type":"t""#,
        br#","data":{}"#,
        b"ce: x\n",
        b"content-type: application/json\n",
        b"specversion: 1.0\nid: 1\nsource: s\ntype: t\n",
        "é\u{feff}\u{0}".as_bytes(),
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn of_arbitrary_bytes(data in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz::decode(&data);
    }

    #[test]
    fn of_nearly_events(mode in any::<u8>(), mut data in pieces()) {
        data.insert(0, mode);
        fuzz::decode(&data);
    }
}

#[test]
fn of_the_fuzzers_corpus() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/decode");
    let mut inputs = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        fuzz::decode(&std::fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs >= 10, "{inputs} inputs: the corpus is missing");
}
