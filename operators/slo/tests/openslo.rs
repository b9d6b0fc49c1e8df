//! Every construct of OpenSLO v1 that its own examples use, in documents of ours: each is read or
//! refused, and a refusal names file, line, field and reason.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fmt::Write, path::Path};

use companyos_slo::{Fault, check::check_path, compile, load_path, load_str};

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openslo")
}

#[test]
fn each_construct_is_read_or_refused_with_line_field_and_reason() {
    let report = check_path(&folder());
    let mut out = String::new();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    for object in &report.loaded {
        let file = name(Path::new(&object.file));
        let _ = writeln!(out, "read     {file}:{} {} {}", object.line.unwrap(), object.kind, object.name);
    }
    for slo in &report.runnable {
        let _ =
            writeln!(out, "runs     {} on {}, {}: {}", slo.slo, slo.stream, slo.objective, slo.conditions.join(" "));
    }
    for r in &report.refused {
        let place = format!("{}:{}", name(&r.origin.file), r.origin.line.unwrap());
        let what = format!("{} {}", r.kind.as_deref().unwrap_or("?"), r.name.as_deref().unwrap_or("?"));
        let reason = r.reason.replace(&format!("{}/", folder().display()), "");
        let _ = writeln!(out, "refused  {place} {what}: {}: {:?}: {reason}", r.field, r.fault);
    }
    insta::assert_snapshot!(out);
}

#[test]
fn every_line_that_is_told_is_the_line_of_the_field() {
    let report = load_path(&folder());
    let refused = report.refused.iter().chain(&compile(&report).refused).cloned().collect::<Vec<_>>();
    let mut seen = 0;
    for r in refused {
        let text = std::fs::read_to_string(&r.origin.file).unwrap();
        let line = text.lines().nth(r.origin.line.unwrap() - 1).unwrap();
        let field = r.field.split('(').next().unwrap();
        let key = field.rsplit(['.', ']']).next().unwrap();
        // What is missing has no line; nor has an item of a list a key.
        if ![Fault::Malformed, Fault::Duplicate].contains(&r.fault)
            && !key.is_empty()
            && text.contains(&format!("{key}:"))
        {
            let there = line.contains(key) || r.reason.contains("needed");
            assert!(there, "{r}: {line}");
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn a_table_has_a_row_for_each_object_in_the_order_of_files() {
    let report = check_path(&folder().join("runs.yaml"));
    assert!(report.is_ok());
    let table = report.table();
    let place = |name: &str| table.find(name).unwrap_or_else(|| panic!("{name} is not in\n{table}"));
    let order = ["bakery", "our-streams", "loaves-sold", "by-reference", "wake-the-baker", "slow-burn", "bell"];
    assert!(order.windows(2).all(|pair| place(pair[0]) < place(pair[1])), "{table}");
    assert!(table.ends_with("12 loaded, 6 objectives run, 0 refused"), "{table}");
    let bad = check_path(&folder().join("mistakes.yaml"));
    assert!(!bad.is_ok() && bad.table().contains("spec.servcie"));
}

#[test]
fn text_that_is_nothing_or_not_there_is_no_success() {
    assert!(!check_path(&folder().join("nowhere.yaml")).is_ok());
    assert!(load_str(Path::new("f.yaml"), "---\n# nothing\n").loaded.is_empty());
}
