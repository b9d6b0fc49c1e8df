//! Signatures, rotation, replays and clocks, from outside.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use companyos_ocsf::{
    Authenticator, Secret, SignalRow, SourceMemory, SourceTrust, TrustConfig, TrustStats, Verdict, canonical_string,
};
use ed25519_dalek::{Signer, SigningKey};
use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use sha2::Sha256;

const NOW: i64 = 1_700_000_000_000_000;
const SECOND: i64 = 1_000_000;
const HMAC_KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

fn signing(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn trust(change: impl FnOnce(&mut SourceTrust)) -> Authenticator {
    let mut trust = SourceTrust { required: true, ..SourceTrust::default() };
    for (id, seed) in [("old", 1), ("new", 2)] {
        trust.ed25519.insert(id.to_owned(), hex::encode(signing(seed).verifying_key().to_bytes()));
    }
    trust.hmac.insert("shared".to_owned(), Secret::new(hex::encode(HMAC_KEY)));
    change(&mut trust);
    Authenticator::new(&TrustConfig { sources: [("okta".to_owned(), trust)].into() }).unwrap()
}

fn event() -> SignalRow<'static> {
    SignalRow {
        event_id: "e1",
        tenant: "acme",
        occurred_at: NOW,
        ingested_at: Some(NOW),
        source: Some("okta"),
        nonce: Some("n1"),
        payload: Some(r#"{"eventType":"user.session.start"}"#),
        evidence: Some("{}"),
        ..SignalRow::default()
    }
}

fn ed25519(row: &SignalRow<'_>, id: &str, seed: u8) -> String {
    format!("ed25519:{id}:{}", hex::encode(signing(seed).sign(canonical_string(row).as_bytes()).to_bytes()))
}

fn hmac(row: &SignalRow<'_>, id: &str, key: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(canonical_string(row).as_bytes());
    format!("hmac-sha256:{id}:{}", hex::encode(mac.finalize().into_bytes()))
}

fn verdict(authenticator: &Authenticator, row: &SignalRow<'_>) -> Verdict {
    authenticator.check(row, None, NOW, &mut SourceMemory::default(), &mut TrustStats::default()).verdict
}

#[test]
fn the_canonical_string_is_as_documented() {
    insta::assert_snapshot!(canonical_string(&event()), @r"
    companyos-signal-v1
    tenant:4:acme
    source:4:okta
    event_id:2:e1
    occurred_at:16:1700000000000000
    nonce:2:n1
    content:72:payload fb67805e7de4ceb21c77ac7a4631bd0c04c362b7ed7db39f4106a33147e2bf59
    ");
}

#[test]
fn both_kinds_of_signature_and_mtls_are_trusted() {
    let authenticator = trust(|t| t.mtls.push("spiffe://acme/okta".to_owned()));
    for signature in [ed25519(&event(), "old", 1), ed25519(&event(), "new", 2), hmac(&event(), "shared", HMAC_KEY)] {
        assert_eq!(verdict(&authenticator, &SignalRow { signature: Some(&signature), ..event() }), Verdict::Trusted);
    }
    let mut stats = TrustStats::default();
    let mut check = |peer| authenticator.check(&event(), peer, NOW, &mut SourceMemory::default(), &mut stats).verdict;
    assert_eq!(check(Some("spiffe://acme/okta")), Verdict::Trusted);
    assert_eq!(check(Some("spiffe://acme/other")), Verdict::Unsigned);
    assert_eq!(check(None), Verdict::Unsigned);
    assert_eq!((stats.trusted, stats.unsigned, stats.refused), (1, 2, 2));
}

#[test]
fn tampering_with_any_signed_field_is_seen() {
    let authenticator = trust(|_| {});
    for signature in [ed25519(&event(), "old", 1), hmac(&event(), "shared", HMAC_KEY)] {
        let signed = SignalRow { signature: Some(&signature), ..event() };
        let tampered = [
            SignalRow { tenant: "acmf", ..signed },
            SignalRow { event_id: "e2", ..signed },
            SignalRow { occurred_at: NOW + 1, ..signed },
            SignalRow { nonce: Some("n2"), ..signed },
            SignalRow { nonce: None, ..signed },
            SignalRow { payload: Some(r#"{"eventType":"user.session.end"}"#), ..signed },
            SignalRow { payload: None, ..signed },
            // What DLP did not change is never believed by its claimed hash.
            SignalRow { payload: Some("{}"), payload_hash: Some("f00"), ..signed },
        ];
        for row in tampered {
            assert_eq!(verdict(&authenticator, &row), Verdict::BadSignature, "{row:?}");
        }
    }
    // The source too, where another one has the same key.
    let trust = SourceTrust {
        hmac: [("shared".to_owned(), Secret::new(hex::encode(HMAC_KEY)))].into(),
        ..SourceTrust::default()
    };
    let both = TrustConfig { sources: [("okta".to_owned(), trust.clone()), ("github".to_owned(), trust)].into() };
    let signature = hmac(&event(), "shared", HMAC_KEY);
    let row = SignalRow { signature: Some(&signature), source: Some("github"), ..event() };
    assert_eq!(verdict(&Authenticator::new(&both).unwrap(), &row), Verdict::BadSignature);
}

#[test]
fn a_row_that_dlp_masked_is_checked_by_its_payload_hash() {
    let authenticator = trust(|_| {});
    let signature = ed25519(&event(), "old", 1);
    let hash = companyos_schemas::payload_hash::compute(event().payload.unwrap());
    let masked = SignalRow {
        payload: Some(r#"{"eventType":"***"}"#),
        payload_hash: Some(&hash),
        dlp_rules: Some("email"),
        signature: Some(&signature),
        ..event()
    };
    assert_eq!(verdict(&authenticator, &masked), Verdict::Trusted);
    assert_eq!(verdict(&authenticator, &SignalRow { payload_hash: None, ..masked }), Verdict::BadSignature);
}

#[test]
fn keys_rotate_and_algorithms_cannot_be_swapped() {
    let signature = ed25519(&event(), "old", 1);
    let row = SignalRow { signature: Some(&signature), ..event() };
    assert_eq!(verdict(&trust(|_| {}), &row), Verdict::Trusted);
    let rotated = trust(|t| {
        t.ed25519.remove("old");
    });
    assert_eq!(verdict(&rotated, &row), Verdict::UnknownKey);
    // A public key must never pass as an HMAC key, and one key's signature not as another's.
    let public = signing(1).verifying_key().to_bytes();
    for wrong in [
        hmac(&event(), "old", &public),
        ed25519(&event(), "new", 1),
        ed25519(&event(), "shared", 1),
        "ed25519:old:zz".to_owned(),
        "ed25519:old:".to_owned(),
        "none".to_owned(),
    ] {
        let row = SignalRow { signature: Some(&wrong), ..event() };
        assert_eq!(verdict(&trust(|_| {}), &row), Verdict::BadSignature, "{wrong}");
    }
}

#[test]
fn replays_at_the_edges_of_the_window() {
    let authenticator = trust(|_| {});
    let signature = ed25519(&event(), "old", 1);
    let at = |seconds: i64, micros: i64| SignalRow {
        signature: Some(&signature),
        ingested_at: Some(NOW + seconds * SECOND + micros),
        ..event()
    };
    let mut memory = SourceMemory::default();
    let mut stats = TrustStats::default();
    let mut check = |row: SignalRow<'_>| authenticator.check(&row, None, NOW, &mut memory, &mut stats);
    assert_eq!(check(at(0, 0)).verdict, Verdict::Trusted);
    assert_eq!(check(at(0, 0)).verdict, Verdict::Replayed);
    assert_eq!(check(at(600, 0)).verdict, Verdict::Replayed);
    let late = check(at(600, 1));
    assert_eq!((late.verdict, late.accepted), (Verdict::Skewed { micros: -600 * SECOND - 1 }, false));
    assert_eq!((stats.trusted, stats.replayed, stats.skewed, stats.refused), (1, 2, 1, 3));
    assert_eq!(memory.nonces(), 0);
}

#[test]
fn forged_events_burn_no_nonce_and_memory_survives_postcard() {
    let authenticator = trust(|_| {});
    let mut memory = SourceMemory::default();
    let mut stats = TrustStats::default();
    let forged = hmac(&event(), "shared", &[7; 32]);
    let row = SignalRow { signature: Some(&forged), ..event() };
    assert_eq!(authenticator.check(&row, None, NOW, &mut memory, &mut stats).verdict, Verdict::BadSignature);
    let good = hmac(&event(), "shared", HMAC_KEY);
    let row = SignalRow { signature: Some(&good), ..event() };
    assert_eq!(authenticator.check(&row, None, NOW, &mut memory, &mut stats).verdict, Verdict::Trusted);
    let mut back: SourceMemory = postcard::from_bytes(&postcard::to_stdvec(&memory).unwrap()).unwrap();
    assert_eq!(back, memory);
    assert_eq!(authenticator.check(&row, None, NOW, &mut back, &mut stats).verdict, Verdict::Replayed);
}

#[test]
fn a_clock_that_is_ahead_is_corrected_once_it_is_known() {
    let authenticator = trust(|_| {});
    let mut memory = SourceMemory::default();
    let mut stats = TrustStats::default();
    let mut last = None;
    for n in 0..40 {
        let id = format!("e{n}");
        let at = NOW + n * SECOND;
        let row = SignalRow {
            event_id: &id,
            nonce: Some(&id),
            occurred_at: at + 3600 * SECOND,
            ingested_at: Some(at),
            ..event()
        };
        let signature = ed25519(&row, "new", 2);
        let checked =
            authenticator.check(&SignalRow { signature: Some(&signature), ..row }, None, NOW, &mut memory, &mut stats);
        last = Some((checked, at));
    }
    let (checked, at) = last.unwrap();
    assert_eq!((checked.verdict, checked.corrected_at), (Verdict::Trusted, at));
    assert_eq!(memory.clock_offset(), Some(3600 * SECOND));
    assert_eq!((stats.skewed, stats.trusted, stats.corrected), (14, 26, 26));
}

#[test]
fn no_secret_is_shown_or_written_and_bad_keys_are_named() {
    let secret = hex::encode(HMAC_KEY);
    let config: TrustConfig = serde_json::from_value(serde_json::json!({
        "sources": {"okta": {"hmac": {"k": secret}, "required": true}}
    }))
    .unwrap();
    let authenticator = Authenticator::new(&config).unwrap();
    let shown = format!("{config:?}{authenticator:?}{}", serde_json::to_string(&config).unwrap());
    assert!(!shown.contains(&secret) && !shown.contains("0123456789abcdef"), "{shown}");
    for (bad, problem) in [
        (serde_json::json!({"ed25519": {"k": "00"}}), "sources.okta: key \"k\" is not of 32 bytes"),
        (serde_json::json!({"hmac": {"k": "abcd"}}), "sources.okta: key \"k\" is shorter than 16 bytes"),
        (serde_json::json!({"hmac": {"k": "?"}}), "sources.okta: key \"k\" is neither hex nor base64"),
        (
            serde_json::json!({"required": true}),
            "sources.okta: required is set, but there is no key and no mtls identity",
        ),
    ] {
        let config: TrustConfig = serde_json::from_value(serde_json::json!({"sources": {"okta": bad}})).unwrap();
        assert_eq!(Authenticator::new(&config).unwrap_err().to_string(), problem);
    }
}

proptest! {
    /// Two events that differ in any signed field have different canonical strings, whatever the
    /// fields hold; in particular nothing can be moved from one field to the next.
    #[test]
    fn canonical_strings_are_injective(
        a in prop::array::uniform5("[a:0-9\n]{0,4}"), b in prop::array::uniform5("[a:0-9\n]{0,4}"),
    ) {
        fn row(f: &[String; 5]) -> SignalRow<'_> {
            SignalRow { tenant: &f[0], source: Some(&f[1]), event_id: &f[2], nonce: Some(&f[3]), payload: Some(&f[4]), ..SignalRow::default() }
        }
        prop_assert_eq!(a == b, canonical_string(&row(&a)) == canonical_string(&row(&b)));
    }

    /// No signature text crashes the check or passes by chance.
    #[test]
    fn any_signature_text_is_refused(signature in "(ed25519|hmac-sha256|x)?:?(old|shared)?:?[0-9a-fA-F=+/]{0,140}") {
        let row = SignalRow { signature: Some(&signature), ..event() };
        prop_assert_ne!(verdict(&trust(|_| {}), &row), Verdict::Trusted);
    }
}
