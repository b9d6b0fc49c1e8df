//! The rules and scenarios that ship, through the operator that runs them.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use companyos_detect::{
    Finding, RuleBook,
    events::Defaults,
    scenario::Scenario,
    testing::{self, test_rules},
};
use serde::Deserialize;
use serde_json::Value;

fn detections() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/detections")
}

fn book() -> Arc<RuleBook> {
    Arc::new(RuleBook::load(&detections()).unwrap())
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(detections().join(folder)).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTest {
    rule: String,
    fire: Vec<Vec<Value>>,
    quiet: Vec<Vec<Value>>,
}

fn ids(findings: &[Finding]) -> BTreeSet<&str> {
    findings.iter().map(|f| f.rule_id.as_str()).collect()
}

#[test]
fn every_rule_loads_and_has_a_severity_tags_and_a_test() {
    let report = testing::check(&detections()).unwrap();
    let refused: Vec<_> = report.refused.iter().map(ToString::to_string).collect();
    assert_eq!(refused, Vec::<String>::new());
    let tested: BTreeSet<String> = files("tests")
        .iter()
        .map(|f| serde_yaml_ng::from_str::<RuleTest>(&fs::read_to_string(f).unwrap()).unwrap().rule)
        .collect();
    let sigma: Vec<_> = report.rules.iter().filter(|r| !r.id.starts_with("stateful.")).collect();
    assert!(sigma.len() >= 60, "{}", sigma.len());
    for rule in sigma {
        assert!(!rule.tactics().is_empty(), "{} has no tactic", rule.title);
        assert!(rule.version.starts_with("20"), "{} has no date", rule.title);
        assert!(tested.contains(&rule.id), "{} has no test", rule.title);
    }
}

#[test]
fn firing_events_fire_exactly_their_rule_and_quiet_ones_none() {
    let book = book();
    let mut wrong = Vec::new();
    let mut cases = 0;
    for file in files("tests") {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let test: RuleTest = serde_yaml_ng::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        assert!(!test.fire.is_empty() && !test.quiet.is_empty(), "{name}");
        for (kind, expected, list) in
            [("fire", BTreeSet::from([test.rule.as_str()]), &test.fire), ("quiet", BTreeSet::new(), &test.quiet)]
        {
            for (number, events) in list.iter().enumerate() {
                cases += 1;
                let findings = test_rules(Arc::clone(&book), events.clone(), &Defaults::default()).unwrap();
                if ids(&findings) != expected {
                    let found: Vec<_> = findings.iter().map(|f| f.rule_title.as_str()).collect();
                    wrong.push(format!("{name}: {kind} {number} found {found:?}"));
                }
            }
        }
    }
    assert!(cases > 160, "{cases}");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_scenario_is_found_as_it_says() {
    let book = book();
    let scenarios = files("scenarios");
    assert!(scenarios.len() >= 6);
    let mut wrong = Vec::new();
    for file in scenarios {
        let scenario = Scenario::load(&file).unwrap();
        let events = scenario.render(&Defaults::default(), "1").unwrap();
        let with_stream = events.into_iter().map(|(stream, mut event)| {
            event["stream"] = stream.name().into();
            event
        });
        let findings = test_rules(Arc::clone(&book), with_stream, &Defaults::default()).unwrap();
        let (missing, unexpected) = scenario.compare(&findings);
        if !missing.is_empty() || !unexpected.is_empty() {
            wrong.push(format!("{}: missing {missing:?}, unexpected {unexpected:?}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The drill: AWS CloudTrail of a real exercise, 103 calls. These eleven are the attack: buckets and
/// objects listed until the first read, one more listing right after it, and ten minutes later
/// another round.
const FIRST_ROUND: [&str; 6] = ["7d91ac29", "bf575a0c", "5376677f", "46937d3a", "19d32cc1", "771299cb"];
const SECOND_ROUND: [&str; 4] = ["40266d7a", "fddb4992", "e5a92162", "edc2222c"];
const BETWEEN: &str = "2308e1b4";

#[test]
fn the_exfiltration_drill_is_found_and_ordinary_calls_are_not() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/cloudtrail_ec2_s3_exfiltration.ndjson.gz");
    let Ok(file) = fs::File::open(&path) else {
        eprintln!("SKIPPED: the drill's log is not here: {}", path.display());
        return;
    };
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 103);
    let findings = test_rules(book(), events, &Defaults::default()).unwrap();
    let titles: BTreeSet<_> = findings.iter().map(|f| f.rule_title.as_str()).collect();
    assert_eq!(titles, BTreeSet::from(["AWS Instance Role Browses And Reads S3"]));
    let evidence = |f: &Finding| -> Vec<String> { f.evidence.iter().map(|e| e.event_id[..8].to_owned()).collect() };
    assert_eq!(findings.len(), 2);
    assert_eq!(evidence(&findings[0]), FIRST_ROUND);
    assert_eq!(evidence(&findings[1]), SECOND_ROUND);
    assert!(findings.iter().all(|f| !evidence(f).contains(&BETWEEN.to_owned())), "it completes nothing");
    let sent: Vec<_> = findings.iter().map(Finding::status).collect();
    assert_eq!(sent, ["new", "suppressed"], "the second is a repeat within the hour");
    let first = &findings[0];
    assert!(first.entity.contains("BankingWAFRole"), "{}", first.entity);
    assert!(first.techniques.contains(&"T1552.005".to_owned()));
}
