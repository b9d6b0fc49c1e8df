//! Each disturbance once, on a real Kafka: the short form of the chaos run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

#[test]
fn every_event_is_stored_once_whatever_happens() {
    let output = Command::new(env!("CARGO_BIN_EXE_companyos-chaos"))
        .args(["run", "--rounds", "8", "--events", "600", "--seed", "20260101"])
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    for disturbance in ["kill worker", "zombie", "crash broker", "break store", "remove worker"] {
        assert!(out.contains(disturbance), "no round with {disturbance}:\n{out}");
    }
}
