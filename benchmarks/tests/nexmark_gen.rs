//! The command that writes Nexmark's events, as a user runs it: two runs with a seed give the same file, line by line
//! what another tool can read.

use std::process::Command;

use serde_json::Value;

#[test]
fn the_same_seed_writes_the_same_events() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, seed: &str| {
        let file = folder.path().join(name);
        let status = Command::new(env!("CARGO_BIN_EXE_companyos-bench"))
            .args(["nexmark-gen", "--events", "500", "--base-ms", "1767225600000", "--seed", seed, "--out"])
            .arg(&file)
            .status()
            .unwrap();
        assert!(status.success());
        std::fs::read_to_string(file).unwrap()
    };
    let first = write("a", "1");
    assert_eq!(first, write("b", "1"));
    assert_ne!(first, write("c", "2"));
    let events: Vec<Value> = first.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |feature: &str| events.iter().filter(|event| event["feature"] == feature).count();
    assert_eq!((of("person"), of("auction"), of("bid")), (10, 30, 460));
}
