use serde_json::{Value as Json, json};

use super::*;

fn tenancy() -> Tenancy {
    toml::from_str(
        r#"
        home_region = "eu"
        [regions.eu]
        storage = "memory:///eu"
        [regions.us]
        storage = "memory:///us"
        [tenants.alpha]
        environments = ["prod", "dev"]
        regions = ["eu"]
        "#,
    )
    .unwrap()
}

fn scope() -> Scope {
    Scope { tenant: "alpha".into(), envs: Some(["prod".into(), "test".into()].into()), regions: None }
}

/// Runs `check` under the rules of a token for alpha's prod and test.
pub(crate) fn with_rules<T>(stream: Stream, check: impl FnOnce(&Rules<'_>) -> T) -> T {
    let now = DateTime::parse_from_rfc3339("2026-06-01T12:00:00Z").unwrap().with_timezone(&Utc);
    let rules = Rules {
        stream,
        tenancy: &tenancy(),
        scope: &scope(),
        max_future_skew: Duration::from_secs(600),
        max_age: Duration::from_secs(400 * 86_400),
        max_depth: 16,
        now,
    };
    check(&rules)
}

fn judge_as(stream: Stream, text: &[u8]) -> Result<ValidEvent, Refusal> {
    with_rules(stream, |rules| validate(&Bytes::copy_from_slice(text), rules))
}

fn event() -> Json {
    json!({
        "event_id": "e-1", "occurred_at": "2026-06-01T11:59:00Z", "tenant": "alpha", "role": "admin",
        "feature": "export", "region": "eu", "env": "prod", "client": "web/1", "pii_classification": "none",
    })
}

fn with(name: &str, value: Json) -> String {
    let mut event = event();
    event[name] = value;
    event.to_string()
}

fn without(name: &str) -> String {
    let mut event = event();
    event.as_object_mut().unwrap().remove(name);
    event.to_string()
}

#[test]
fn bad_events_are_refused_by_field_and_reason() {
    let deep = format!("{}{}", "[".repeat(16), "]".repeat(16));
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("empty", b"".to_vec()),
        ("not utf-8", b"{\"event_id\":\"\xff\"}".to_vec()),
        ("not json", b"{\"event_id\": nope}".to_vec()),
        ("cut off", event().to_string().as_bytes()[..40].to_vec()),
        ("NaN", with("payload", json!("@")).replace("\"@\"", "NaN").into()),
        ("half a surrogate pair", with("payload", json!("@")).replace('@', r"\ud800").into()),
        ("an array", b"[1]".to_vec()),
        ("too deep", with("payload", json!("@")).replace("\"@\"", &deep).into()),
        ("field twice", event().to_string().replacen('{', r#"{"tenant":"beta","#, 1).into()),
        ("no event_id", without("event_id").into()),
        ("null event_id", with("event_id", Json::Null).into()),
        ("numeric event_id", with("event_id", json!(1)).into()),
        ("no occurred_at", without("occurred_at").into()),
        ("blank tenant", with("tenant", json!("  ")).into()),
        ("no role", without("role").into()),
        ("role too long", with("role", json!("r".repeat(257))).into()),
        ("unknown pii tag", with("pii_classification", json!("secret")).into()),
        ("user_id is an object", with("user_id", json!({})).into()),
        ("time in words", with("occurred_at", json!("noon")).into()),
        ("time too early", with("occurred_at", json!("2025-01-01T00:00:00Z")).into()),
        ("time too late", with("occurred_at", json!("2026-06-01T12:10:01Z")).into()),
        ("year 9999", with("occurred_at", json!("9999-01-01T00:00:00Z")).into()),
        ("epoch overflow", with("occurred_at", json!(1e30)).into()),
        ("other tenant", with("tenant", json!("beta")).into()),
        ("env outside the token", with("env", json!("dev")).into()),
        ("env the tenant has not", with("env", json!("test")).into()),
        ("region not allowed", with("region", json!("us")).into()),
        ("wrong hash", with("payload_hash", json!("sha256:00")).into()),
        ("hash of another payload", with("payload_hash", json!(payload_hash::compute("{}"))).into()),
    ];
    let verdicts: Vec<String> = table
        .iter()
        .map(|(name, text)| match judge_as(Stream::ProductEvents, text) {
            Ok(_) => format!("{name}: accepted"),
            Err(r) => {
                format!("{name}: {} {} | {} | {:?}", r.cause.as_str(), r.field.unwrap_or("-"), r.detail, r.event_id)
            }
        })
        .collect();
    insta::assert_snapshot!(verdicts.join("\n"));
}

#[test]
fn a_pii_tag_is_read_as_the_worker_reads_it() {
    let text = with("pii_classification", json!(" NONE "));
    assert!(judge_as(Stream::ProductEvents, text.as_bytes()).is_ok());
}

#[test]
fn an_event_in_cloud_event_clothes_is_judged_by_what_the_worker_will_find_in_it() {
    let mut inner = event();
    inner["tenant"] = json!("beta");
    let mut outer = event();
    for (name, value) in [("specversion", "1.0"), ("id", "x"), ("source", "/x"), ("type", "x")] {
        outer[name] = json!(value);
    }
    outer["data"] = inner;
    let refusal = judge_as(Stream::ProductEvents, outer.to_string().as_bytes()).unwrap_err();
    assert_eq!(refusal.cause, Cause::Scope);
    // Nor does a second layer hide it.
    let mut nested = outer.clone();
    nested["data"] = outer;
    let refusal = judge_as(Stream::ProductEvents, nested.to_string().as_bytes()).unwrap_err();
    assert_eq!((refusal.cause, refusal.field), (Cause::Event(Reason::InvalidCloudEvent), Some("data")));
    // Without the clothes the same event passes, and data is kept as an unknown field.
    nested.as_object_mut().unwrap().remove("specversion");
    let valid = judge_as(Stream::ProductEvents, nested.to_string().as_bytes()).unwrap();
    assert_eq!((valid.event_id.as_str(), valid.tenant.as_str()), ("e-1", "alpha"));
}

#[test]
fn scope_is_judged_on_normalized_names() {
    let mut shouting = event();
    shouting["tenant"] = json!(" ALPHA ");
    shouting["env"] = json!("Prod");
    let valid = judge_as(Stream::ProductEvents, shouting.to_string().as_bytes()).unwrap();
    assert_eq!((valid.tenant.as_str(), valid.region.as_str()), ("alpha", "eu"));
    // The text itself is not normalized: that is the worker's part.
    assert!(std::str::from_utf8(&valid.value).unwrap().contains(" ALPHA "));
}

#[test]
fn a_missing_hash_is_added_over_the_payload_as_sent_and_nothing_else_changes() {
    let payload = r#"{ "b" : 1.0,
  "a":"é" }"#;
    let text = event().to_string().replacen('}', &format!(r#","payload": {payload}, "x":1}}"#), 1);
    let valid = judge_as(Stream::ProductEvents, text.as_bytes()).unwrap();
    let value = std::str::from_utf8(&valid.value).unwrap();
    let member = format!(r#""payload_hash":"{}","#, payload_hash::compute(payload));
    assert_eq!(value.replacen(&member, "", 1), text);
    // What the gateway made is accepted unchanged when it comes back.
    assert_eq!(judge_as(Stream::ProductEvents, value.as_bytes()).unwrap().value, valid.value);
}

#[test]
fn a_null_hash_is_replaced_in_place_and_a_right_one_kept() {
    let valid = judge_as(Stream::ProductEvents, with("payload_hash", Json::Null).as_bytes()).unwrap();
    let sent: Json = serde_json::from_slice(&valid.value).unwrap();
    assert_eq!(sent["payload_hash"], json!(payload_hash::compute("null")));
    let own = with("payload_hash", json!(payload_hash::compute("null")));
    assert_eq!(judge_as(Stream::ProductEvents, own.as_bytes()).unwrap().value, own.as_bytes());
}

#[test]
fn a_stream_without_a_hash_is_forwarded_verbatim() {
    let text = json!({
        "event_id": "m-1", "occurred_at": 1780315140, "tenant": "alpha", "service": "api", "env": "prod", "region": "eu",
        "sli_type": "latency", "window": "1m", "value": "0.25", "objective": 0.5,
    })
    .to_string();
    assert_eq!(judge_as(Stream::SliMetrics, text.as_bytes()).unwrap().value, text.as_bytes());
    let refused = judge_as(Stream::SliMetrics, text.replace("\"0.25\"", "\"fast\"").as_bytes()).unwrap_err();
    assert_eq!((refused.cause, refused.field), (Cause::Event(Reason::WrongType), Some("value")));
}
