//! Each source's sample events as OCSF: golden, valid, without loss, and as the columns say.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{collections::BTreeMap, io::Read as _, path::Path, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    datatypes::Int64Type,
};
use companyos_ocsf::{Extractor, SignalColumns, SignalRow, to_ocsf, validate};
use proptest::prelude::*;
use serde_json::Value;

const TIME: i64 = 1_700_000_000_123_456;

fn data(name: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

fn vendor<'a>(source: &'a str, payload: &'a str) -> SignalRow<'a> {
    SignalRow {
        event_id: "id-1",
        occurred_at: TIME,
        tenant: "acme",
        region: "eu",
        env: "prod",
        actor: "the-actor",
        signal_type: "vendor_event",
        severity: "medium",
        evidence: Some("{}"),
        source: Some(source),
        payload: Some(payload),
        ..SignalRow::default()
    }
}

/// Every scalar of a value, as text, with how often it is there.
fn leaves(value: &Value, into: &mut BTreeMap<String, usize>) {
    match value {
        Value::Object(object) => object.values().for_each(|v| leaves(v, into)),
        Value::Array(array) => array.iter().for_each(|v| leaves(v, into)),
        Value::Null => {}
        Value::String(text) => *into.entry(text.clone()).or_default() += 1,
        other => *into.entry(other.to_string()).or_default() += 1,
    }
}

/// Every scalar of `original` is in the event at least as often.
fn nothing_lost(original: &Value, event: &Value) {
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    leaves(original, &mut before);
    leaves(event, &mut after);
    for (leaf, count) in before {
        assert!(after.get(&leaf).is_some_and(|c| *c >= count), "{leaf:?} is lost in {event:#}");
    }
}

fn check(row: &SignalRow<'_>) -> Value {
    let event = to_ocsf(row).unwrap();
    assert_eq!(validate(&event), Vec::<String>::new(), "{event:#}");
    for text in [row.payload, row.evidence].into_iter().flatten() {
        nothing_lost(&serde_json::from_str(text).unwrap(), &event);
    }
    event
}

#[test]
fn vendors() {
    for source in ["cloudtrail", "okta", "github", "kubernetes"] {
        let events: Vec<Value> =
            data(&format!("{source}.ndjson")).iter().map(|line| check(&vendor(source, line))).collect();
        insta::assert_json_snapshot!(source, events);
    }
}

#[test]
fn openssh() {
    let mut events = Vec::new();
    for (n, line) in data("openssh.log").iter().enumerate() {
        // As an object with the line in it, and as the line alone.
        let payload =
            if n % 2 == 0 { serde_json::json!({"message": line, "facility": "auth"}) } else { line.as_str().into() };
        events.push(check(&vendor("openssh", &payload.to_string())));
    }
    insta::assert_json_snapshot!("openssh", events);
}

#[test]
fn own_signals() {
    let mut events = Vec::new();
    for line in data("own.ndjson") {
        let signal: Value = serde_json::from_str(&line).unwrap();
        let evidence = signal["evidence"].to_string();
        events.push(check(&SignalRow {
            actor: signal["actor"].as_str().unwrap(),
            signal_type: signal["signal_type"].as_str().unwrap(),
            severity: signal["severity"].as_str().unwrap(),
            evidence: Some(&evidence),
            payload: None,
            source: None,
            ..vendor("", "")
        }));
    }
    insta::assert_json_snapshot!("own", events);
}

#[test]
fn what_is_not_json_is_kept_as_text() {
    let event = to_ocsf(&vendor("okta", "{broken")).unwrap();
    assert_eq!(event["raw_data"], "{broken");
    assert_eq!(validate(&event), Vec::<String>::new(), "{event:#}");
}

/// Rows as the replay map makes them: the record is the evidence, `source` is its `eventSource`.
fn drill() -> Option<Vec<String>> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/cloudtrail_ec2_s3_exfiltration.ndjson.gz");
    let Ok(file) = std::fs::File::open(&path) else {
        eprintln!("SKIPPED: {} is not there", path.display());
        return None;
    };
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    Some(text.lines().map(str::to_owned).collect())
}

#[test]
fn the_exfiltration_drill_maps_without_loss_and_the_columns_agree() {
    let Some(lines) = drill() else { return };
    assert_eq!(lines.len(), 103);
    let sources: Vec<String> = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["eventSource"].as_str().unwrap().to_owned())
        .collect();
    let batch = batch(&sources, &lines, false);
    let names = [
        "class_uid",
        "activity_id",
        "type_uid",
        "status_id",
        "api.operation",
        "api.service.name",
        "src_endpoint.ip",
        "actor.user.name",
        "actor.user.uid",
        "cloud.region",
        "metadata.uid",
        "eventName",
        "userIdentity.arn",
        "requestParameters.bucketName",
        "requestParameters.instancesSet.items.instanceId",
    ];
    let extracted = Extractor::new(&names).extract(&batch).unwrap();
    assert_eq!(extracted.malformed, 0);
    let signals = SignalColumns::new(&batch).unwrap();
    assert_eq!(signals.len(), lines.len());
    for (index, line) in lines.iter().enumerate() {
        let event = check(&signals.row(index));
        let record: Value = serde_json::from_str(line).unwrap();
        for name in names {
            let vendor = name.starts_with("event") || name.starts_with("user") || name.starts_with("request");
            let within = if vendor { &record } else { &event };
            let expected = name.split('.').try_fold(within, |at, part| at.get(part)).filter(|v| !v.is_null());
            if name.contains("items") {
                continue; // Lists have their own test.
            }
            let expected = expected.map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned));
            assert_eq!(cell(&extracted.columns[name], index), expected, "{name} of row {index}");
        }
        assert_eq!(extracted.logsource.product.value(index), "aws");
        assert_eq!(extracted.logsource.service.value(index), "cloudtrail");
    }
    let calls = extracted.columns["api.operation"].as_string::<i32>();
    assert!(calls.iter().any(|c| c == Some("GetObject")), "the drill's theft is there");
}

#[test]
fn columns_of_all_sources_at_once() {
    let (mut sources, mut payloads) = (Vec::new(), Vec::new());
    for source in ["cloudtrail", "okta", "github", "kubernetes"] {
        for line in data(&format!("{source}.ndjson")) {
            sources.push(source.to_owned());
            payloads.push(line);
        }
    }
    for line in data("openssh.log") {
        sources.push("openssh".to_owned());
        payloads.push(Value::from(line).to_string());
    }
    sources.push("okta".to_owned());
    payloads.push("{broken".to_owned());
    let batch = batch(&sources, &payloads, true);
    let names = [
        "actor",
        "occurred_at",
        "class_uid",
        "status_id",
        "src_endpoint.ip",
        "src_endpoint.port",
        "user.name",
        "actor.user.name",
        "src_endpoint.location.lat",
        "eventName",
        "eventType",
        "action",
        "verb",
        "objectRef.resource",
        "user.groups",
        "target.displayName",
        "target[1].displayName",
        "resources.name",
        "sshd.event",
        "unmapped.org",
        "payload.actor",
        "nowhere",
    ];
    let extracted = Extractor::new(&names).extract(&batch).unwrap();
    assert_eq!(extracted.malformed, 1);
    assert_eq!(extracted.columns.len(), names.len());
    let mut shown = String::new();
    for name in names {
        let column = &extracted.columns[name];
        assert_eq!(column.len(), batch.num_rows());
        let cells: Vec<String> = (0..column.len()).map(|i| cell(column, i).unwrap_or("-".to_owned())).collect();
        shown.push_str(&format!("{name} ({}): {}\n", column.data_type(), cells.join(" | ")));
    }
    insta::assert_snapshot!("columns", shown);
}

#[test]
fn lineage_is_its_own_place_and_a_broken_one_hides_nothing() {
    for (lineage, found) in [(r#"{"file":"f"}"#, Some("f")), ("{broken", None)] {
        let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
        let batch = RecordBatch::try_from_iter([
            ("source", text("okta")),
            ("payload", text(r#"{"eventType":"x.y","file":"p"}"#)),
            ("evidence", text(r#"{"file":"e","only":1}"#)),
            ("lineage", text(lineage)),
        ])
        .unwrap();
        let names = ["eventType", "lineage.file", "file", "evidence.file", "only"];
        let extracted = Extractor::new(&names).extract(&batch).unwrap();
        let cells: Vec<Option<String>> = names.iter().map(|name| cell(&extracted.columns[*name], 0)).collect();
        let expected = [Some("x.y"), found, Some("p"), Some("e"), Some("1")].map(|v| v.map(str::to_owned));
        assert_eq!((cells, extracted.malformed), (expected.to_vec(), u64::from(found.is_none())));
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e6f64..1e6).prop_map(Value::from),
        "[a-z0-9. ]{0,8}".prop_map(Value::from),
        Just(Value::from("203.0.113.5")),
    ];
    const KEYS: &[&str] = &[
        "eventName",
        "errorCode",
        "userIdentity",
        "userName",
        "arn",
        "sourceIPAddress",
        "actor",
        "user",
        "name",
        "id",
        "alternateId",
        "target",
        "client",
        "ipAddress",
        "outcome",
        "result",
        "action",
        "repo",
        "verb",
        "objectRef",
        "responseStatus",
        "code",
        "annotations",
        "authorization.k8s.io/decision",
        "message",
        "_unknown",
        "_companyos",
        "_evidence",
        "lat",
        "location",
        "username",
        "sourceIPs",
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(prop::sample::select(KEYS), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

proptest! {
    /// Whatever a record holds, its event is valid and nothing of it is lost.
    #[test]
    fn any_record_maps_without_loss(payload in any_json(), evidence in any_json()) {
        let (payload, evidence) = (payload.to_string(), evidence.to_string());
        for source in ["cloudtrail", "okta", "github", "kubernetes", "openssh", "mine"] {
            check(&SignalRow { evidence: Some(&evidence), ..vendor(source, &payload) });
        }
    }
}

#[test]
fn an_empty_batch_and_missing_columns_are_fine() {
    let batch = batch(&[], &[], true);
    let extracted = Extractor::new(&["actor", "src_endpoint.ip", "lineage"]).extract(&batch).unwrap();
    assert!(extracted.columns.values().all(|c| c.is_empty()));
    let wrong = RecordBatch::try_from_iter([("actor", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    assert!(Extractor::new(&["actor"]).extract(&wrong).unwrap_err().to_string().contains("\"actor\""));
}

fn batch(sources: &[String], records: &[String], as_payload: bool) -> RecordBatch {
    let rows = records.len();
    let text = |value: &str| Arc::new(StringArray::from(vec![value; rows])) as ArrayRef;
    let record = Arc::new(StringArray::from(records.to_vec())) as ArrayRef;
    RecordBatch::try_from_iter([
        ("event_id", text("id-1")),
        ("occurred_at", Arc::new(TimestampMicrosecondArray::from(vec![TIME; rows]).with_timezone("UTC")) as ArrayRef),
        ("tenant", text("acme")),
        ("actor", text("the-actor")),
        ("signal_type", text("vendor_event")),
        ("severity", text("medium")),
        ("source", Arc::new(StringArray::from(sources.to_vec())) as ArrayRef),
        (if as_payload { "payload" } else { "evidence" }, record),
    ])
    .unwrap()
}

fn cell(column: &ArrayRef, index: usize) -> Option<String> {
    if column.is_null(index) {
        return None;
    }
    Some(if let Some(numbers) = column.as_primitive_opt::<Int64Type>() {
        numbers.value(index).to_string()
    } else if let Some(list) = column.as_list_opt::<i32>() {
        let values = list.value(index);
        let texts: Vec<&str> = values.as_string::<i32>().iter().flatten().collect();
        format!("[{}]", texts.join(", "))
    } else {
        column.as_string::<i32>().value(index).to_owned()
    })
}
