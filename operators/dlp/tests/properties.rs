//! What must hold for any input: nothing panics, JSON stays JSON, what is not found is not changed,
//! and nothing is left to find.

#![allow(clippy::unwrap_used, reason = "what builds a test's policy is a part of the test")]

use companyos_dlp::{DlpConfig, Fired, Redactor, Scanner, Shape, Verdict, redact_masked};
use proptest::prelude::*;
use serde_json::{Value, json};

const SECRETS: [&str; 12] = [
    "ann.lee@example.com",
    "+49 30 12345678",
    "(415) 555-2671",
    "4111 1111 1111 1111",
    "DE89370400440532013000",
    "536-90-4399",
    "203.0.113.9",
    "2001:db8::1",
    "AKIAIOSFODNN7EXAMPLE",
    "password=Tr0ub4dor&3x",
    "the token is q8Zk2LmX0pWv7RtY9s",
    "tel 030 1234567",
];

/// Text that is likely to come near the recognizers' limits.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(&SECRETS[..]).prop_map(str::to_owned),
        2 => "[ -~]{0,12}",
        2 => r#"[0-9 .:@+()/-]{0,24}"#,
        1 => "\\PC{0,6}",
        1 => prop::sample::select(&["\\", "\"", "\n", "@", "-----BEGIN PRIVATE KEY-----", "eyJ", "secret: ", "[masked:", "tok_", "://"][..]).prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        3 => text().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => Just(json!(4111111111111111u64)),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
    ];
    let key = prop_oneof![
        text(),
        prop::sample::select(&["email", "ssn", "password", "a", "phone"][..]).prop_map(str::to_owned)
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..4).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// Same bracket structure, and every leaf that holds nothing to find unchanged.
fn assert_kept(before: &Value, after: &Value) {
    match (before, after) {
        (Value::Array(before), Value::Array(after)) => {
            assert_eq!(before.len(), after.len());
            before.iter().zip(after).for_each(|(b, a)| assert_kept(b, a));
        }
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                // Without its key's context and with nothing in the key itself.
                if key == "a"
                    && let Some(after) = after.get(key)
                {
                    assert_kept(value, after);
                }
            }
        }
        (Value::String(before), Value::String(after)) if before != after => {
            assert!(after.contains("[masked:"), "{before:?} became {after:?}");
        }
        (Value::Number(_), Value::String(after)) => assert!(after.starts_with("[masked:"), "{after}"),
        (before, after) => assert_eq!(before, after),
    }
}

fn any_secret() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&SECRETS[..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn masked_text_holds_nothing_more(text in text()) {
        let masked = redact_masked(&text);
        prop_assert_eq!(Scanner::new().scan(&masked), [], "{:?} became {:?}", text, masked);
    }

    #[test]
    fn findings_are_apart_and_on_character_bounds(text in "\\PC{0,80}|[0-9a-fA-F:.@ +-]{0,80}") {
        let mut end = 0;
        for finding in Scanner::new().scan(&text) {
            prop_assert!(finding.start >= end && finding.end > finding.start);
            prop_assert!(text.get(finding.start..finding.end).is_some());
            end = finding.end;
        }
    }

    #[test]
    fn json_stays_json(value in value()) {
        let value = json!({ "a": value });
        let text = value.to_string();
        let masked = redact_masked(&text);
        let after: Value = serde_json::from_str(&masked).map_err(|e| TestCaseError::fail(format!("{e}: {text} became {masked}")))?;
        assert_kept(&value, &after);
        let again = redact_masked(&masked).into_owned();
        prop_assert_eq!(again, masked.into_owned());
    }

    #[test]
    fn escapes_hide_nothing(plain in any_secret()) {
        let escaped: String = plain.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        let text = format!(r#"{{"a":["x {escaped} y"]}}"#);
        let masked = redact_masked(&text);
        let after: Value = serde_json::from_str(&masked).unwrap();
        prop_assert!(after["a"][0].as_str().unwrap().contains("[masked:"), "{}", masked);
    }
}

fn redactor(toml: &str) -> Redactor {
    Redactor::new(&toml::from_str::<DlpConfig>(toml).unwrap()).unwrap()
}

fn field(redactor: &Redactor, tenant: &str, class: Option<&str>, text: &str) -> (String, Vec<String>) {
    let mut fired: Vec<Fired<'_>> = Vec::new();
    let verdict = redactor.row(tenant, class, None).field("payload", Shape::Json, text, &mut fired);
    let rules = fired.iter().map(|f| format!("{}:{}", f.rule, f.action.name())).collect();
    let text = match verdict {
        Verdict::Keep => text.to_owned(),
        Verdict::Replace(text) => text,
        Verdict::Drop => "dropped".to_owned(),
        Verdict::Quarantine { rule } => format!("quarantined by {rule}"),
    };
    (text, rules)
}

#[test]
fn the_tenant_and_the_classification_decide() {
    let redactor = redactor(
        r#"
        [actions]
        iban = "drop"
        [classifications.sensitive]
        email = "quarantine"
        [tenants.beta.actions]
        email = "allow"
        ipv4 = "mask"
        [keys]
        active = 1
        ring = [{ version = 1, secret = "a-key-for-tests-that-is-long-enough-0001" }]
        "#,
    );
    let text = r#"{"to":"Ann@example.com","ip":"203.0.113.9"}"#;
    let (alpha, rules) = field(&redactor, "alpha", Some("none"), text);
    assert!(alpha.starts_with(r#"{"to":"tok_email_1_"#) && alpha.ends_with(r#","ip":"203.0.113.9"}"#), "{alpha}");
    assert_eq!(rules, ["email.address:tokenize", "ip.v4:allow"]);
    assert_eq!(
        field(&redactor, "alpha", Some("none"), &text.replace("Ann", "ann")).0,
        alpha,
        "case makes no difference"
    );
    assert!(field(&redactor, "alpha", Some("personal"), text).0.ends_with(r#""ip":"[masked:ipv4]"}"#));
    assert_eq!(field(&redactor, "alpha", Some("sensitive"), text).0, "quarantined by email.address");
    assert_eq!(field(&redactor, "beta", None, text).0, r#"{"to":"Ann@example.com","ip":"[masked:ipv4]"}"#);
    for (before, after) in [
        (r#"{"a":1,"b":"DE89370400440532013000","c":2}"#, r#"{"a":1,"c":2}"#),
        (r#"{"b":"DE89370400440532013000", "c":2}"#, r#"{ "c":2}"#),
        (r#"{"c":2,"b":"DE89370400440532013000"}"#, r#"{"c":2}"#),
        (r#"["DE89370400440532013000",1]"#, "[null,1]"),
        (r#""DE89370400440532013000""#, "dropped"),
    ] {
        assert_eq!(field(&redactor, "alpha", None, before).0, after);
    }
    let mut fired = Vec::new();
    let waived = redactor.row("alpha", Some("sensitive"), Some("x, email.address"));
    assert_eq!(
        waived.field("payload", Shape::Json, text, &mut fired),
        Verdict::Replace(text.replace("203.0.113.9", "[masked:ipv4]"))
    );
}

#[test]
fn fields_are_treated_by_name_at_any_depth() {
    let redactor = redactor(
        r#"
        fields = [
            { path = "payload.customer.name", action = "mask" },
            { path = "*.ssn", action = "drop", kind = "us_ssn" },
            { path = "payload.internal", action = "drop" },
        ]
        [tenants.gamma]
        fields = [{ path = "payload.internal", action = "quarantine" }]
        "#,
    );
    let text = r#"{"customer":{"name":"Ann","\u0073sn":5},"internal":{"x":"a@b.co","y":[1]},"list":[{"SSN":"x"},{"name":"Bob"}]}"#;
    let (after, rules) = field(&redactor, "alpha", None, text);
    assert_eq!(after, r#"{"customer":{"name":"[masked:value]"},"list":[{},{"name":"Bob"}]}"#);
    assert_eq!(
        rules,
        ["field:payload.customer.name:mask", "field:*.ssn:drop", "field:payload.internal:drop", "field:*.ssn:drop"]
    );
    assert_eq!(field(&redactor, "gamma", None, text).0, "quarantined by field:payload.internal");
}

#[test]
fn mistakes_in_a_policy_are_named() {
    let wrong = |toml: &str| match toml::from_str::<DlpConfig>(toml) {
        Ok(config) => Redactor::new(&config).unwrap_err().to_string(),
        Err(error) => error.message().to_owned(),
    };
    assert!(wrong("[actions]\nemail = 'tokenize'").contains("needs [dlp.keys]"));
    assert!(wrong("[actions]\nemails = 'mask'").contains("emails"));
    assert!(wrong("[tenants.a.classifications.secret]\nemail = 'mask'").contains("\"secret\""));
    assert!(wrong("fields = [{ path = 'a..b', action = 'mask' }]").contains("a..b"));
    assert!(wrong("enable = true").contains("enable"));
}

#[test]
fn numbers_and_json_in_strings_are_redacted() {
    for (before, after) in [
        (r#"{"card":4111111111111111,"n":1}"#, r#"{"card":"[masked:credit_card]","n":1}"#),
        (r#"{"ssn":536904399}"#, r#"{"ssn":"[masked:us_ssn]"}"#),
        (r#"{"body":"{\"mail\":\"a\\u0040b.co\",\"n\":1}"}"#, r#"{"body":"{\"mail\":\"[masked:email]\",\"n\":1}"}"#),
        (r#"{"password":"line\nbreak"}"#, r#"{"password":"[masked:secret]"}"#),
        (r#"{"ann@example.com":{"k":1}}"#, r#"{"[masked:email]":{"k":1}}"#),
    ] {
        assert_eq!(redact_masked(before), after);
    }
}
