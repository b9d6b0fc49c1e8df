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

const RULE: &str = r#"title: Root signs in
id: 6a1d2c1e-0f0e-4b7e-9c62-3e2f54a1b001
status: test
logsource:
  product: aws
  service: cloudtrail
detection:
  selection:
    eventName: ConsoleLogin
    userIdentity.type: Root
  condition: selection
level: high
"#;

/// Rules that loaded, beside the detectors that are always there.
fn of_folder(report: &serde_json::Value) -> usize {
    let loaded = report["loaded"].as_array().unwrap();
    loaded.iter().filter(|rule| rule["title"] == "Root signs in").count()
}

#[test]
fn sigma_rules_are_judged_with_file_line_and_reason() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "good.yml", RULE);
    let checked = companyos(&["detect", "check", &folder.path().display().to_string(), "--json"], &[]);
    assert_eq!(checked.status.code(), Some(0), "{}{}", out(&checked), err(&checked));
    let report: serde_json::Value = serde_json::from_str(&out(&checked)).unwrap();
    assert_eq!(of_folder(&report), 1, "{report}");
    assert_eq!(report["refused"], serde_json::json!([]));

    let bad = RULE.replace("condition: selection", "condition: selection and nothing_of_that_name");
    write(folder.path(), "bad.yml", &bad.replace("3e2f54a1b001", "3e2f54a1b002"));
    let unknown = RULE.replace("eventName", "colourOfTheSky").replace("3e2f54a1b001", "3e2f54a1b003");
    write(folder.path(), "unknown.yml", &unknown);
    let path = folder.path().display().to_string();
    let checked = companyos(&["detect", "check", &path, "--json"], &[]);
    assert_eq!(checked.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_str(&out(&checked)).unwrap();
    assert_eq!(of_folder(&report), 2, "one broken rule leaves the others: {report}");
    let refused = &report["refused"][0];
    assert!(refused["file"].as_str().unwrap().ends_with("bad.yml"), "{refused}");
    assert!(refused["line"].is_u64(), "{refused}");
    assert!(refused["reason"].as_str().unwrap().contains("nothing_of_that_name"), "{refused}");
    assert!(report["unknown_fields"]["colourOfTheSky"][0].as_str().unwrap().contains("unknown.yml"), "{report}");
    let table = out(&companyos(&["detect", "check", &path], &[]));
    for said in ["bad.yml", "nothing_of_that_name", "colourOfTheSky", "2 documents loaded, 1 refused"] {
        assert!(table.contains(said), "{said}: {table}");
    }
}

#[test]
fn nothing_to_check_is_told_from_something_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let empty = companyos(&["detect", "check", &folder.path().display().to_string()], &[]);
    assert_eq!(empty.status.code(), Some(2), "{}", err(&empty));
    assert!(err(&empty).contains("there is no rule in it"), "{}", err(&empty));
    let missing = companyos(&["detect", "check", "/no/such/rules"], &[]);
    assert_eq!(missing.status.code(), Some(2), "{}", err(&missing));
    assert!(err(&missing).contains("/no/such/rules"), "{}", err(&missing));
}

#[test]
fn a_rule_tried_on_events_says_by_its_exit_whether_it_fired() {
    let folder = tempfile::tempdir().unwrap();
    let rule = write(folder.path(), "root.yml", RULE);
    let event = |kind: &str| {
        format!(
            "{{\"eventTime\":\"2026-01-02T03:04:05Z\",\"eventSource\":\"signin.amazonaws.com\",\
             \"eventName\":\"ConsoleLogin\",\"eventID\":\"{kind}\",\"awsRegion\":\"us-east-1\",\
             \"sourceIPAddress\":\"203.0.113.7\",\"userIdentity\":{{\"type\":\"{kind}\",\"arn\":\"arn:aws:iam::1:x\",\
             \"accountId\":\"1\"}}}}\n"
        )
    };
    let fires = write(folder.path(), "fires.ndjson", &(event("IAMUser") + &event("Root")));
    let tried = companyos(&["detect", "test", &rule, "--against", &fires, "--json"], &[]);
    assert_eq!(tried.status.code(), Some(0), "{}{}", out(&tried), err(&tried));
    assert_eq!(out(&tried).lines().count(), 1, "{}", out(&tried));
    let finding: serde_json::Value = serde_json::from_str(out(&tried).lines().next().unwrap()).unwrap();
    assert!(finding.to_string().contains("Root signs in"), "{finding}");
    let quiet = write(folder.path(), "quiet.ndjson", &event("IAMUser"));
    assert_eq!(companyos(&["detect", "test", &rule, "--against", &quiet], &[]).status.code(), Some(1));
}

#[test]
fn service_levels_are_judged_with_file_line_and_field() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/slo");
    let good = companyos(&["slo", "check", &shipped.display().to_string(), "--json"], &[]);
    assert_eq!(good.status.code(), Some(0), "{}{}", out(&good), err(&good));
    serde_json::from_str::<serde_json::Value>(&out(&good)).unwrap();
    let text = std::fs::read_to_string(shipped.join("checkout-availability.yaml")).unwrap();
    let bad =
        write(folder.path(), "bad.yaml", &text.replacen("budgetingMethod: Occurrences", "budgetingMethod: Guesses", 1));
    let refused = companyos(&["slo", "check", &bad], &[]);
    assert_eq!(refused.status.code(), Some(1));
    let said = out(&refused);
    assert!(said.contains("bad.yaml") && said.contains("budgetingMethod") && said.contains("Guesses"), "{said}");
}
