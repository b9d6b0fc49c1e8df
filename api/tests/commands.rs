//! The small commands, as scripts see them: exit codes and what is printed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Clippy allows them in #[test] functions only.

use std::{
    path::Path,
    process::{Command, Output},
};

fn companyos(args: &[&str], envs: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_companyos"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("COMPANYOS_")) {
        command.env_remove(name);
    }
    command.args(args).envs(envs.iter().copied()).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_key_that_does_not_exist_stops_every_role_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "c.toml", "[kafka]\nbrokerz = 'x:1'\n");
    for role in [&["worker"][..], &["gateway"], &["query"], &["config", "check"]] {
        let refused = companyos(&[role, &["--config", &file]].concat(), &[]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(err(&refused).contains("kafka.brokerz") && err(&refused).contains("c.toml"), "{}", err(&refused));
    }
    let variable = companyos(&["config", "check"], &[("COMPANYOS_WORKER__MEMBERZ", "2")]);
    assert!(err(&variable).contains("COMPANYOS_WORKER__MEMBERZ"), "{}", err(&variable));
    let missing = companyos(&["config", "check", "--config", "/no/such/file"], &[]);
    assert!(err(&missing).contains("/no/such/file"), "{}", err(&missing));
}

#[test]
fn variables_win_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "c.toml", "[kafka]\nbrokers = 'file:1'\n");
    let checked = companyos(&["config", "check", "--config", &file], &[("COMPANYOS_KAFKA__BROKERS", "variable:2")]);
    assert!(checked.status.success(), "{}", err(&checked));
    assert!(out(&checked).contains("variable:2"), "{}", out(&checked));
}

#[test]
fn a_created_token_is_an_entry_the_configuration_takes() {
    let folder = tempfile::tempdir().unwrap();
    let created = companyos(
        &["token", "create", "--tenant", "alpha", "--env", "prod", "--region", "local", "--permission", "ingest"],
        &[],
    );
    assert!(created.status.success(), "{}", err(&created));
    let tenants = "[tenancy]\nhome_region = 'local'\n[tenancy.regions.local]\nstorage = 'file:///tmp/x'\n\
        [tenancy.tenants.alpha]\nenvironments = ['prod']\nregions = ['local']\n";
    let file = write(folder.path(), "c.toml", &(out(&created) + tenants));
    let checked = companyos(&["config", "check", "--config", &file], &[]);
    assert!(checked.status.success() && out(&checked).contains("tokens     1"), "{}{}", out(&checked), err(&checked));
}

#[test]
fn a_schema_change_is_judged_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let printed = companyos(&["schemas", "print", "product_events"], &[]);
    let old = write(folder.path(), "old.json", &out(&printed));
    let mut new: serde_json::Value = serde_json::from_str(&out(&printed)).unwrap();
    new["properties"]["team"] = serde_json::json!({"type": ["string", "null"], "x-companyos-type": "text"});
    let wider = write(folder.path(), "wider.json", &new.to_string());
    let accepted = companyos(&["schemas", "check", &old, &wider], &[]);
    assert_eq!(accepted.status.code(), Some(0), "{}", out(&accepted));
    let refused = companyos(&["schemas", "check", &wider, &old], &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(out(&refused).contains("team"), "{}", out(&refused));
}

#[test]
fn a_scan_says_what_is_where_and_repeats_none_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "t.ndjson", "{\"text\": \"ü write to ann@example.com\"}\nnothing here\n");
    let found = companyos(&["dlp", "scan", &file, "--json"], &[]);
    assert!(found.status.success(), "{}", err(&found));
    let lines = out(&found);
    assert_eq!(lines.lines().count(), 1, "{lines}");
    let finding: serde_json::Value = serde_json::from_str(&lines).unwrap();
    assert_eq!((&finding["line"], &finding["type"]), (&1.into(), &"email".into()));
    assert_eq!((&finding["start"], &finding["end"]), (&11.into(), &26.into()));
    assert!(!lines.contains("ann@"));
    let table = companyos(&["dlp", "scan", &file], &[]);
    assert!(out(&table).contains("email") && !out(&table).contains("ann@"), "{}", out(&table));
}
