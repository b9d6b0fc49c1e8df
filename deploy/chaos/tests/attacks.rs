//! Every attack that ships, through broker, worker and query server: `companyos-chaos attacks`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

#[test]
fn every_attack_is_found_by_its_rules_alone_and_seen_by_its_tenant_alone() {
    let output = Command::new(env!("CARGO_BIN_EXE_companyos-chaos")).arg("attacks").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print!("{out}");
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("8 attacks found"), "not all attacks were tried:\n{out}");
}
