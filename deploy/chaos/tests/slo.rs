//! An outage from the events to the alert and its end: the short form of `companyos-chaos slo`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

#[test]
fn an_outage_is_told_once_and_signed_though_receiver_and_worker_fail() {
    let output = Command::new(env!("CARGO_BIN_EXE_companyos-chaos")).args(["slo", "--seed", "7"]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print!("{out}");
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("one alert, once in the table"), "{out}");
}
