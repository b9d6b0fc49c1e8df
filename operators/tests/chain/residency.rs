//! No region holds what its tenants may not keep there, quarantine included.

use arrow::array::{Array, AsArray};
use companyos_operators::{CloudEventHeaders, DecodeConfig, DedupConfig, Record, RecordHeaders};
use companyos_schemas::Stream;

use crate::fuzz::{NOW_MS, assert_conserved, chain};

/// Region, reason and whether the event itself was kept, of a record's quarantine row.
fn quarantined(value: &[u8], headers: RecordHeaders<'_>) -> (String, String, bool) {
    let config = DecodeConfig::default();
    let mut chain = chain(Stream::OpsEvents, config.clone(), DedupConfig::default());
    let record = Record { timestamp_ms: Some(NOW_MS), payload: Some(value), headers, ..Record::default() };
    let output = assert_conserved(&mut chain, &config, &[record]);
    let [(region, batch)] = &output.quarantine[..] else { panic!("one batch expected: {output:?}") };
    let kept = batch["payload"].is_valid(0);
    assert_eq!(kept, batch["sealed"].is_valid(0));
    (region.to_string(), batch["reason"].as_string::<i32>().value(0).to_owned(), kept)
}

fn event(scope: &str, rest: &str) -> String {
    format!(r#"{{"event_id":"1","occurred_at":"2026-01-02T00:00:00Z","kind":"k","service":"s",{scope}{rest}}}"#)
}

#[test]
fn a_refused_event_is_kept_only_where_its_tenant_may_be() {
    let (eu, us) = (
        r#""tenant":"alpha","env":"prod","region":"eu-west-1""#,
        r#""tenant":"beta","env":"prod","region":"us-east-1""#,
    );
    for (scope, rest, region, reason, kept) in [
        // Allowed places keep what is wrong for other reasons.
        (eu, r#","severity":"awful""#, "eu-west-1", "invalid_value", true),
        (us, r#","severity":"awful""#, "us-east-1", "invalid_value", true),
        (us, r#","x":"#, "us-east-1", "invalid_json", true),
        // A place that is not allowed keeps nothing, and neither does the home region.
        (r#""tenant":"alpha","env":"prod","region":"us-east-1""#, "", "eu-west-1", "region_not_allowed", false),
        (r#""tenant":"beta","env":"prod","region":"eu-west-1""#, "", "eu-west-1", "region_not_allowed", false),
        (r#""tenant":"beta","env":"dev","region":"us-east-1""#, "", "eu-west-1", "env_not_allowed", false),
        (r#""tenant":"nobody","env":"prod","region":"eu-west-1""#, "", "eu-west-1", "unknown_tenant", false),
        (r#""tenant":"alpha","env":"prod","region":"mars""#, "", "eu-west-1", "region_not_allowed", false),
        // Regions that cannot be told.
        (r#""tenant":"beta","env":"prod","region":["us-east-1"]"#, "", "eu-west-1", "wrong_type", false),
        (r#""tenant":"beta","env":"prod","region":"us/east""#, "", "eu-west-1", "invalid_value", false),
        (
            r#""tenant":"beta","env":"prod","region":"us-east-1","region":"eu-west-1""#,
            "",
            "eu-west-1",
            "duplicate_field",
            false,
        ),
        (r#""tenant":"beta","env":"prod","re\u0067ion":"us-east-1""#, r#","x":"#, "eu-west-1", "invalid_json", false),
        // No region at all: where the record already is, if the tenant may be there.
        (r#""tenant":"alpha","env":"prod""#, "", "eu-west-1", "missing_field", true),
        (r#""tenant":"beta","env":"prod""#, "", "eu-west-1", "missing_field", false),
        (r#""tenant":"nobody","env":"prod""#, "", "eu-west-1", "missing_field", false),
    ] {
        let event = event(scope, rest);
        let got = quarantined(event.as_bytes(), RecordHeaders::default());
        assert_eq!(got, (region.to_owned(), reason.to_owned(), kept), "{event}");
    }
    let got = quarantined(b"\x00\x01 not even text \xff", RecordHeaders::default());
    assert_eq!(got, ("eu-west-1".to_owned(), "invalid_utf8".to_owned(), true));
}

#[test]
fn data_of_a_cloud_event_that_cannot_be_read_still_names_its_region() {
    let value = b"{\"tenant\":\"beta\",\"env\":\"prod\",\"region\":\"us-east-1\",\"x\":\"\xff\"}";
    let attributes = vec![("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "t")];
    let headers = RecordHeaders { cloud_event: Some(CloudEventHeaders { attributes }), ..RecordHeaders::default() };
    assert_eq!(quarantined(value, headers), ("us-east-1".to_owned(), "invalid_utf8".to_owned(), true));
}
