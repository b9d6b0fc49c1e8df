//! The maps in pipelines/maps on rows of the files they are made for: every event keeps the
//! contract the worker reads it by.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use companyos_schemas::{
    Stream,
    envelope::{ProductEvent, SecuritySignal},
    json_schema::json_schema,
    payload_hash,
};
use companyos_source_replay::{Counts, Outcome};
use rdkafka::{Message, message::OwnedMessage};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::harness::{World, body, run};

fn map(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/maps").join(name)
}

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Replays a file and gives its events, in file order, once each of them keeps its contract.
async fn replayed(stream: Stream, file: &Path, map: &Path, rows: usize) -> Vec<Value> {
    let world = World::start().await;
    let summary = run(world.options_by(file, map)).await.unwrap();
    assert_eq!(summary.outcome, Outcome::Complete);
    assert_eq!(summary.counts, Counts { mapped: rows as u64, ..Counts::default() }, "{summary}");
    let records = world.records(stream.name()).await;
    let schema = jsonschema::validator_for(&json_schema(stream)).unwrap();
    let mut ids = BTreeSet::new();
    for record in &records {
        keeps_the_contract(stream, &schema, record);
        ids.insert(body(record)["event_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), rows, "each row has an id of its own");
    let mut events: Vec<Value> = records.iter().map(body).collect();
    let line = |event: &Value| event["lineage"].as_str().and_then(|l| l.rsplit(':').next()?.parse::<u64>().ok());
    events.sort_by_key(|event| (line(event), event["occurred_at"].to_string()));
    events
}

fn keeps_the_contract(stream: Stream, schema: &jsonschema::Validator, record: &OwnedMessage) {
    #[derive(Deserialize)]
    struct Hashed<'a> {
        payload_hash: Option<&'a str>,
        #[serde(borrow)]
        payload: Option<&'a RawValue>,
    }
    let text = std::str::from_utf8(record.payload().unwrap()).unwrap();
    let event: Value = serde_json::from_str(text).unwrap();
    let errors: Vec<String> = schema.iter_errors(&event).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?} in {text}");
    match stream {
        Stream::SecuritySignals => drop(serde_json::from_str::<SecuritySignal>(text).unwrap()),
        _ => drop(serde_json::from_str::<ProductEvent>(text).unwrap()),
    }
    let hashed: Hashed<'_> = serde_json::from_str(text).unwrap();
    if let Some(hash) = hashed.payload_hash {
        let payload = hashed.payload.unwrap().get();
        assert_eq!(hash, payload_hash::compute(payload), "the hash is over the payload's own bytes");
    }
    let key = format!("{}/{}", event["tenant"].as_str().unwrap(), event["event_id"].as_str().unwrap());
    assert_eq!(record.key().unwrap(), key.as_bytes());
}

fn pick(event: &Value, fields: &[&str]) -> Value {
    fields.iter().map(|f| event[*f].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn wikipedia_edits_become_product_events() {
    let events = replayed(Stream::ProductEvents, &sample("wikiticker.ndjson"), &map("wikiticker.yaml"), 7).await;
    let by_user = |user: &str| events.iter().find(|e| e["user_id"] == user).unwrap();
    let fields = ["tenant", "role", "feature", "region", "pii_classification", "occurred_at"];
    let expected = json!(["en-wikipedia", "editor", "Talk", "us-east-1", "internal", "2015-09-11T00:46:58.771Z"]);
    assert_eq!(pick(by_user("GELongstreet"), &fields), expected);
    let expected = json!(["ca-wikipedia", "bot", "Main", "us-east-1", "internal", "2015-09-10T00:47:00.496Z"]);
    assert_eq!(pick(by_user("PereBot"), &fields), expected);
    let anonymous = by_user("122.15.11.155");
    let expected = json!(["en-wikipedia", "anonymous", "Main", "ap-south-1", "personal", "2015-10-27T00:48:59.548Z"]);
    assert_eq!(pick(anonymous, &fields), expected);
    assert_eq!(pick(&anonymous["payload"], &["page", "countryIsoCode", "added"]), json!(["Punjabis", "IN", 1]));
    assert!(anonymous["payload"].get("user").is_none(), "the editor stands in user_id and nowhere else");
    let german = events.iter().find(|e| e["tenant"] == "de-wikipedia").unwrap();
    assert_eq!(pick(german, &["region", "feature"]), json!(["eu-west-1", "Diskussion"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn access_log_lines_become_product_events() {
    let events = replayed(Stream::ProductEvents, &sample("apache_access.log"), &map("apache_access.yaml"), 8).await;
    let by_path = |path: &str| events.iter().find(|e| e["payload"]["path"] == path).unwrap();
    let home = by_path("/");
    let fields = ["tenant", "user_id", "feature", "occurred_at", "pii_classification"];
    assert_eq!(pick(home, &fields), json!(["webshop", "66.249.73.185", "home", "2015-05-17T10:05:37Z", "personal"]));
    assert_eq!(pick(&home["payload"], &["method", "status", "bytes"]), json!(["GET", 200, 37932]));
    assert!(home["payload"].get("referrer").is_none(), "a dash is no referrer");
    let failed = by_path("/misc/Title.php.txt");
    assert_eq!(pick(failed, &["feature", "user_id"]), json!(["misc", "66.249.73.135"]));
    assert_eq!(pick(&failed["payload"], &["status", "bytes"]), json!([500, null]));
    let cut_off = by_path("/scripts/grok-py-test/configlib.py");
    assert!(cut_off["payload"]["agent"].as_str().unwrap().ends_with("google.com/bot.html"));
    let escaped = by_path("/files/logstash/");
    assert!(escaped["payload"]["referrer"].as_str().unwrap().starts_with(r"http://\xe4\xe5"));
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudtrail_records_become_security_signals() {
    let events = replayed(Stream::SecuritySignals, &sample("cloudtrail.ndjson"), &map("cloudtrail.yaml"), 3).await;
    let fields = ["signal_type", "actor", "source", "lineage", "class_uid", "severity"];
    let pedro = "arn:aws:iam::123456789123:user/pedro";
    let source = "ec2.amazonaws.com";
    let expected = json!(["DescribeInstanceTypes", pedro, source, "cloudtrail.ndjson:1", 6003, "medium"]);
    assert_eq!(pick(&events[0], &fields), expected);
    let expected = json!(["AssumeRole", source, "sts.amazonaws.com", "cloudtrail.ndjson:2", 6003, "medium"]);
    assert_eq!(pick(&events[1], &fields), expected);
    assert_eq!(events[2]["evidence"]["eventName"], "GetObject");
    assert_eq!(events[2]["evidence"]["eventID"], events[2]["event_id"]);
}

/// `COMPANYOS_REAL_DATA=<folder of the three files> cargo test -p companyos-source-replay -- --ignored`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the whole files, which are not part of the repository"]
async fn whole_files_are_mapped_without_a_remainder() {
    let folder = PathBuf::from(std::env::var("COMPANYOS_REAL_DATA").unwrap());
    let files = [
        (Stream::ProductEvents, "wikiticker-2015-09-12-sampled.json.gz", "wikiticker.yaml", 39_244),
        (Stream::ProductEvents, "apache_access_2015-05.log.gz", "apache_access.yaml", 10_000),
        (Stream::SecuritySignals, "cloudtrail_ec2_s3_exfiltration.ndjson.gz", "cloudtrail.yaml", 103),
    ];
    for (stream, file, name, rows) in files {
        replayed(stream, &folder.join(file), &map(name), rows).await;
    }
}
