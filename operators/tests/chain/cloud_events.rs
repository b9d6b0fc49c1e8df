//! An event becomes the same row whether it comes as our envelope or as a CloudEvent, in either mode.

use arrow::array::{AsArray, RecordBatch};
use companyos_operators::{ChainOutput, CloudEventHeaders, DecodeConfig, DedupConfig, Record, RecordHeaders};
use companyos_schemas::{Stream, quarantine::Reason};

use crate::fuzz::{NOW_MS, assert_conserved, chain};

const PLAIN: &str = r#"{"event_id":"e-1","occurred_at":"2026-01-02T00:00:00.5Z","tenant":"alpha","env":"prod","region":"eu-west-1","kind":"deployment","service":"api","deploy_id":"d-7","payload":{"n": 1}}"#;
const ATTRIBUTES: [(&str, &str); 11] = [
    ("specversion", "1.0"),
    ("id", "e-1"),
    ("source", "/ci"),
    ("type", "com.example.deploy"),
    ("time", "2026-01-02T00:00:00.5Z"),
    ("tenant", "Alpha"),
    ("env", "prod"),
    ("region", "eu-west-1"),
    ("kind", "deployment"),
    ("service", "api"),
    ("deployid", "d-7"),
];

fn decode(value: &str, headers: RecordHeaders<'_>) -> ChainOutput {
    let config = DecodeConfig::default();
    let mut chain = chain(Stream::OpsEvents, config.clone(), DedupConfig::default());
    let record = Record { timestamp_ms: Some(NOW_MS), payload: Some(value.as_bytes()), headers, ..Record::default() };
    assert_conserved(&mut chain, &config, &[record])
}

fn row(value: &str, headers: RecordHeaders<'_>) -> RecordBatch {
    let output = decode(value, headers);
    assert_eq!(output.stats.routed, 1, "{output:?}");
    output.rows.unwrap()
}

fn binary<'a>(content_type: Option<&'a str>, attributes: &[(&'a str, &'a str)]) -> RecordHeaders<'a> {
    let cloud_event = Some(CloudEventHeaders { attributes: attributes.to_vec() });
    RecordHeaders { content_type, cloud_event, ..RecordHeaders::default() }
}

fn structured(data: &str, without: &[&str]) -> String {
    let attributes = ATTRIBUTES.iter().filter(|(name, _)| !without.contains(name));
    let members: Vec<String> = attributes.map(|(name, value)| format!("{name:?}:{value:?}")).collect();
    format!("{{{},\"datacontenttype\":\"application/json\",\"data\":{data}}}", members.join(","))
}

#[test]
fn every_way_in_makes_the_same_row() {
    let plain = row(PLAIN, RecordHeaders::default());
    let scope = ["tenant", "env", "region", "kind", "service", "deployid"];
    let by_type =
        RecordHeaders { content_type: Some("Application/CloudEvents+JSON; charset=utf-8"), ..RecordHeaders::default() };
    let enveloped = PLAIN.replace(r#""event_id":"e-1","#, "").replace(r#""2026-01-02T00:00:00.5Z""#, "null");
    for (way, got) in [
        ("structured, told by its attributes", row(&structured(r#"{"n": 1}"#, &[]), RecordHeaders::default())),
        ("structured, told by its content type", row(&structured(r#"{"n": 1}"#, &[]), by_type)),
        ("structured around our envelope", row(&structured(PLAIN, &scope), RecordHeaders::default())),
        (
            "structured around an envelope without id and time",
            row(&structured(&enveloped, &scope), RecordHeaders::default()),
        ),
        ("binary", row(r#"{"n": 1}"#, binary(Some("application/json"), &ATTRIBUTES))),
        ("binary without a content type", row(r#" {"n": 1} "#, binary(None, &ATTRIBUTES))),
        ("binary around our envelope", row(PLAIN, binary(Some("application/vnd.x+json; v=1"), &ATTRIBUTES[..5]))),
    ] {
        assert_eq!(got, plain, "{way}");
    }
}

#[test]
fn without_a_time_the_records_own_counts() {
    let batch = row(&structured("null", &["time"]), RecordHeaders::default());
    let time = batch["occurred_at"].as_primitive::<arrow::datatypes::TimestampMicrosecondType>().value(0);
    assert_eq!(time, NOW_MS * 1_000);
}

#[test]
fn what_is_no_cloud_event_of_ours_is_refused() {
    let without = |name: &str| ATTRIBUTES.into_iter().filter(|(n, _)| *n != name).collect::<Vec<_>>();
    let mut old = ATTRIBUTES;
    old[0].1 = "0.3";
    for (value, headers, reason) in [
        ("{}", binary(None, &old), Reason::InvalidCloudEvent),
        ("{}", binary(None, &without("id")), Reason::InvalidCloudEvent),
        ("{}", binary(None, &without("specversion")), Reason::InvalidCloudEvent),
        ("{}", binary(Some("application/xml"), &ATTRIBUTES), Reason::InvalidCloudEvent),
        ("{} {}", binary(None, &ATTRIBUTES), Reason::InvalidJson),
        // Data that would smuggle members in beside itself.
        (r#"1,"tenant":"beta""#, binary(None, &without("tenant")), Reason::InvalidJson),
        (
            &*structured("1", &["source"]),
            RecordHeaders { content_type: Some("application/cloudevents+json"), ..RecordHeaders::default() },
            Reason::InvalidCloudEvent,
        ),
        (
            &*structured("1", &[]).replace("\"data\"", "\"data_base64\""),
            RecordHeaders::default(),
            Reason::InvalidCloudEvent,
        ),
        (&*structured("1,\"data\":2", &[]), RecordHeaders::default(), Reason::DuplicateField),
    ] {
        let stats = decode(value, headers).stats;
        assert_eq!(stats.quarantined.keys().collect::<Vec<_>>(), [&reason], "{value}");
    }
}
