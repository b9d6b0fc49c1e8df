//! A waiver: an operator's permission for one event to pass a rule that refused it.
//!
//! It travels in a Kafka header beside the released event. Anyone can write headers, so it is sealed
//! with the quarantine key, and bound to the event's bytes so that it is of no use to another event.

use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

use crate::seal::{SealError, Sealer};

/// Name of the header.
pub const WAIVER_HEADER: &str = "companyos-waiver";

/// A header value that lets `event` pass `rules`, comma-separated.
pub fn issue_waiver(sealer: &Sealer, event: &[u8], rules: &str) -> Result<String, SealError> {
    Ok(BASE64_STANDARD.encode(sealer.seal(&[digest(event).as_slice(), rules.as_bytes()].concat())?))
}

/// The rules that the header lets `event` pass; none if it was not issued with this key for this event.
pub fn open_waiver(sealer: &Sealer, event: &[u8], header: &str) -> Option<String> {
    let opened = sealer.open(&BASE64_STANDARD.decode(header).ok()?).ok()?;
    let rules = opened.strip_prefix(digest(event).as_slice())?;
    String::from_utf8(rules.to_vec()).ok()
}

fn digest(event: &[u8]) -> [u8; 32] {
    Sha256::digest(event).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiver_is_for_one_event_and_one_key() {
        let sealer = Sealer::new("k", [3; 32]);
        let header = issue_waiver(&sealer, b"event", "clock_skew_past").unwrap();
        assert_eq!(open_waiver(&sealer, b"event", &header).as_deref(), Some("clock_skew_past"));
        assert_eq!(open_waiver(&sealer, b"other", &header), None);
        assert_eq!(open_waiver(&Sealer::new("k", [4; 32]), b"event", &header), None);
        assert_eq!(open_waiver(&sealer, b"event", "clock_skew_past"), None);
    }
}
