//! The payload hash: SHA-256, over the payload's bytes as sent or over its canonical form.

use sha2::{Digest, Sha256};

/// Whether `claimed` is the hash of `payload` (JSON text).
///
/// `claimed` is 64 hex digits, any case, with or without a `sha256:` prefix. It may have been made
/// over the payload exactly as it stands in the event or over its RFC 8785 (JCS) form, so that
/// producers in any language can compute it. An absent payload is hashed as `null`.
pub fn verify(claimed: &str, payload: Option<&str>) -> bool {
    let digits = claimed.strip_prefix("sha256:").unwrap_or(claimed);
    let mut expected = [0u8; 32];
    if const_hex::decode_to_slice(digits, &mut expected).is_err() {
        return false;
    }
    let text = payload.unwrap_or("null");
    if Sha256::digest(text.as_bytes()).as_slice() == expected {
        return true;
    }
    canonical(text).is_some_and(|c| Sha256::digest(&c).as_slice() == expected)
}

/// The hash this platform writes where it computes one itself: `sha256:` and lower-case hex over
/// the payload's text as given.
pub fn compute(payload: &str) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(payload.as_bytes())))
}

fn canonical(text: &str) -> Option<Vec<u8>> {
    let value: serde_json::Value = serde_json::from_str(text).ok()?;
    serde_json_canonicalizer::to_vec(&value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_raw_and_canonical_and_refuses_others() {
        let sent = r#"{"b": 1, "a": "x"}"#;
        let canonical = r#"{"a":"x","b":1}"#;
        assert!(verify(&compute(sent), Some(sent)));
        assert!(verify(&compute(canonical), Some(sent)));
        assert!(verify(&compute(sent).to_uppercase().replace("SHA256:", ""), Some(sent)));
        assert!(!verify(&compute("{}"), Some(sent)));
        assert!(!verify("sha256:zz", Some(sent)));
        assert!(!verify("", Some(sent)));
        assert!(verify(&compute("null"), None));
    }
}
