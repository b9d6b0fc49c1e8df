//! Views while workers are killed, added and taken away: the short form of `companyos-chaos views`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

#[test]
fn views_equal_their_batch_answers_whatever_happens_to_workers() {
    let output = Command::new(env!("CARGO_BIN_EXE_companyos-chaos"))
        .args(["views", "--kills", "2", "--events", "400", "--seed", "20261125"])
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print!("{out}");
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("16 views equal their batch answers"), "not all views were compared:\n{out}");
}
