//! Product events, made fast and always the same: event `i` depends on the seed, the base time and
//! `i` alone, so a topic can be filled in any order and filled again byte for byte.

use chrono::DateTime;
use fastrand::Rng;
use sha2::{Digest, Sha256};

/// Length of the window before the base time over which events are spread, in milliseconds.
const WINDOW_MS: u64 = 3_600_000;

const FEATURES: [&str; 12] = [
    "search",
    "checkout",
    "dashboard",
    "export",
    "invite",
    "billing",
    "reports",
    "alerts",
    "upload",
    "comments",
    "sso",
    "api-keys",
];
const ROLES: [&str; 5] = ["admin", "analyst", "member", "viewer", "owner"];
const CLIENTS: [&str; 6] = ["web/4.12", "web/4.13", "ios/7.2", "android/7.1", "cli/1.9", "sdk-js/3.0"];
const SCREENS: [&str; 6] = ["home", "list", "detail", "settings", "editor", "overview"];
const WORDS: [&str; 32] = [
    "report", "opened", "from", "sidebar", "after", "filter", "changed", "column", "sorted", "by", "date", "saved",
    "view", "shared", "with", "team", "draft", "copied", "chart", "resized", "panel", "pinned", "row", "selected",
    "menu", "closed", "quick", "action", "retry", "page", "loaded", "cached",
];
const FIRST: [&str; 8] = ["jane", "omar", "li", "marta", "ivan", "aisha", "tom", "noor"];
const LAST: [&str; 8] = ["doe", "haddad", "wei", "silva", "petrov", "khan", "berg", "visser"];

/// One event in this many carries an e-mail address or an IP address in its payload.
const PERSONAL_ONE_IN: u32 = 33;

/// Shape of the generated events.
#[derive(Debug, Clone)]
pub struct GeneratorConfig {
    /// Chooses the events.
    pub seed: u64,
    /// Events happen within the hour before this time (ms since the epoch).
    pub base_ms: u64,
    /// Length the payload object is filled up to, in bytes; the rest of an event takes about 340.
    pub payload_bytes: usize,
    /// Name of the only tenant; none spreads events over `alpha` (80 %) and `beta`.
    pub only_tenant: Option<&'static str>,
}

impl GeneratorConfig {
    /// Events around `base_ms` of about 400 bytes.
    pub fn new(seed: u64, base_ms: u64) -> Self {
        Self { seed, base_ms, payload_bytes: 72, only_tenant: None }
    }
}

/// Writes events as JSON text; keeps only a payload buffer between them.
#[derive(Debug)]
pub struct Generator {
    config: GeneratorConfig,
    payload: Vec<u8>,
    times: Timestamps,
}

impl Generator {
    /// A generator of the events that `config` chooses.
    pub fn new(config: GeneratorConfig) -> Self {
        Self { config, payload: Vec::with_capacity(512), times: Timestamps::default() }
    }

    /// Appends event `index` to `out`, without a line end.
    pub fn write_event(&mut self, index: u64, out: &mut Vec<u8>) {
        let mut rng = Rng::with_seed(self.config.seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let occurred_ms = self.config.base_ms.saturating_sub(rng.u64(0..WINDOW_MS));

        out.extend_from_slice(b"{\"event_id\":\"");
        push_event_id(out, occurred_ms, rng.u16(..), index);
        out.extend_from_slice(b"\",\"occurred_at\":\"");
        self.times.push(out, occurred_ms);
        out.extend_from_slice(b"\",\"tenant\":\"");
        let tenant = self.config.only_tenant.unwrap_or(if rng.u32(0..10) < 8 { "alpha" } else { "beta" });
        out.extend_from_slice(tenant.as_bytes());
        out.push(b'"');
        if rng.u32(0..20) != 0 {
            out.extend_from_slice(b",\"user_id\":\"u");
            push_decimal(out, rng.u64(0..50_000), 5);
            out.push(b'"');
        }
        push_member(out, "role", pick(&mut rng, &ROLES));
        // The smaller of two draws: early features are used far more often than late ones.
        let feature = rng.usize(0..FEATURES.len()).min(rng.usize(0..FEATURES.len()));
        push_member(out, "feature", FEATURES[feature]);
        push_member(out, "region", "eu-west-1");
        push_member(out, "env", if rng.u32(0..10) == 0 { "staging" } else { "prod" });
        push_member(out, "client", pick(&mut rng, &CLIENTS));
        let personal = rng.u32(0..PERSONAL_ONE_IN) == 0;
        push_member(out, "pii_classification", classification(&mut rng, personal));
        self.write_payload(&mut rng, personal);
        out.extend_from_slice(b",\"payload_hash\":\"sha256:");
        push_hex(out, &Sha256::digest(&self.payload));
        out.extend_from_slice(b"\",\"payload\":");
        out.extend_from_slice(&self.payload);
        out.push(b'}');
    }

    fn write_payload(&mut self, rng: &mut Rng, personal: bool) {
        let out = &mut self.payload;
        out.clear();
        out.extend_from_slice(b"{\"items\":");
        push_decimal(out, rng.u64(0..40), 1);
        out.extend_from_slice(b",\"ms\":");
        push_decimal(out, rng.u64(1..2_500), 1);
        out.extend_from_slice(b",\"note\":\"");
        if personal {
            push_personal(rng, out);
            out.push(b' ');
        }
        out.extend_from_slice(pick(rng, &WORDS).as_bytes());
        // What follows the note takes about 32 bytes.
        while out.len() + 32 < self.config.payload_bytes {
            out.push(b' ');
            out.extend_from_slice(pick(rng, &WORDS).as_bytes());
        }
        out.extend_from_slice(if rng.bool() { b"\",\"ok\":true" } else { b"\",\"ok\":false" });
        push_member(out, "screen", pick(rng, &SCREENS));
        out.push(b'}');
    }
}

/// Writes times as RFC 3339 in UTC with milliseconds; keeps the text of the day last written.
#[derive(Debug, Default)]
pub(crate) struct Timestamps {
    /// Days since the epoch, and their text.
    day: Option<(u64, String)>,
}

impl Timestamps {
    pub(crate) fn push(&mut self, out: &mut Vec<u8>, ms: u64) {
        let day = ms / 86_400_000;
        if self.day.as_ref().is_none_or(|(written, _)| *written != day) {
            let date =
                i64::try_from(day * 86_400).ok().and_then(|s| DateTime::from_timestamp(s, 0)).unwrap_or_default();
            self.day = Some((day, date.format("%Y-%m-%d").to_string()));
        }
        out.extend_from_slice(self.day.as_ref().map_or("", |(_, text)| text).as_bytes());
        let ms = ms % 86_400_000;
        out.push(b'T');
        push_decimal(out, ms / 3_600_000, 2);
        out.push(b':');
        push_decimal(out, ms / 60_000 % 60, 2);
        out.push(b':');
        push_decimal(out, ms / 1_000 % 60, 2);
        out.push(b'.');
        push_decimal(out, ms % 1_000, 3);
        out.push(b'Z');
    }
}

/// A UUIDv7: the time, twelve random bits and the index behind a bijection, so that ids of one seed
/// never collide and still compress as badly as real ones.
pub(crate) fn push_event_id(out: &mut Vec<u8>, ms: u64, random: u16, index: u64) {
    let mixed = index.wrapping_mul(0xd134_2543_de82_ef95) & (u64::MAX >> 2);
    let high = (ms << 16) | 0x7000 | u64::from(random & 0x0fff);
    let low = (1 << 63) | mixed;
    let bytes = ((u128::from(high) << 64) | u128::from(low)).to_be_bytes();
    for (start, end) in [(0, 4), (4, 6), (6, 8), (8, 10), (10, 16)] {
        if start > 0 {
            out.push(b'-');
        }
        push_hex(out, &bytes[start..end]);
    }
}

fn classification(rng: &mut Rng, personal: bool) -> &'static str {
    match (personal, rng.u32(0..100)) {
        (true, 0..70) => "personal",
        (true, _) => "none",
        (false, 0..55) => "none",
        (false, 55..80) => "internal",
        (false, 80..95) => "pseudonymous",
        (false, 95..99) => "personal",
        (false, _) => "sensitive",
    }
}

fn push_personal(rng: &mut Rng, out: &mut Vec<u8>) {
    if rng.bool() {
        out.extend_from_slice(pick(rng, &FIRST).as_bytes());
        out.push(b'.');
        out.extend_from_slice(pick(rng, &LAST).as_bytes());
        push_decimal(out, rng.u64(0..100), 1);
        out.extend_from_slice(b"@example.com");
    } else {
        for part in 0..4 {
            if part > 0 {
                out.push(b'.');
            }
            push_decimal(out, rng.u64(1..255), 1);
        }
    }
}

pub(crate) fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(0..from.len())]
}

/// Appends `,"name":"value"`; neither needs escaping.
pub(crate) fn push_member(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

pub(crate) fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 0xf)]);
    }
}

/// Appends `value`, with leading zeros up to `width` digits.
pub(crate) fn push_decimal(out: &mut Vec<u8>, mut value: u64, width: usize) {
    let start = out.len();
    loop {
        out.push(b'0' + u8::try_from(value % 10).unwrap_or_default());
        value /= 10;
        if value == 0 && out.len() - start >= width {
            break;
        }
    }
    out[start..].reverse();
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use companyos_schemas::{Stream, payload_hash};
    use serde_json::value::RawValue;

    use super::*;

    const BASE_MS: u64 = 1_767_225_600_123;

    fn events(count: u64) -> Vec<String> {
        let mut generator = Generator::new(GeneratorConfig::new(7, BASE_MS));
        (0..count)
            .map(|i| {
                let mut out = Vec::new();
                generator.write_event(i, &mut out);
                String::from_utf8(out).unwrap()
            })
            .collect()
    }

    #[test]
    fn events_keep_the_contract_and_their_hashes_verify() {
        let mut ids = HashSet::new();
        for text in events(20_000) {
            let event: std::collections::HashMap<&str, &RawValue> = serde_json::from_str(&text).unwrap();
            for field in Stream::ProductEvents.fields().iter().filter(|f| f.required) {
                assert!(event.contains_key(field.name), "{} is missing from {text}", field.name);
            }
            let string = |name: &str| serde_json::from_str::<String>(event[name].get()).unwrap();
            assert!(payload_hash::verify(&string("payload_hash"), Some(event["payload"].get())), "{text}");
            let occurred = DateTime::parse_from_rfc3339(&string("occurred_at")).unwrap().timestamp_millis();
            assert!((0..3_600_000).contains(&(BASE_MS as i64 - occurred)), "{text}");
            let id = string("event_id");
            assert_eq!((id.len(), &id[14..15]), (36, "7"), "{id}");
            assert_eq!(i64::from_str_radix(&id.replace('-', "")[..12], 16).unwrap(), occurred);
            assert!(ids.insert(id), "an id came twice");
        }
    }

    #[test]
    fn sizes_tenants_and_personal_data_are_as_stated() {
        let events = events(20_000);
        let average = events.iter().map(String::len).sum::<usize>() / events.len();
        assert!((390..=420).contains(&average), "events average {average} bytes");
        let share =
            |needle: &dyn Fn(&str) -> bool| events.iter().filter(|e| needle(e)).count() as f64 / events.len() as f64;
        assert!((0.78..0.82).contains(&share(&|e| e.contains("\"tenant\":\"alpha\""))));
        assert!((0.01..0.02).contains(&share(&|e| e.contains("@example.com"))));
        assert!((0.01..0.02).contains(&share(&|e| {
            e.split_once("\"note\":\"").unwrap().1.split(' ').next().unwrap().matches('.').count() == 3
        })));
    }

    #[test]
    fn an_event_depends_on_seed_and_index_alone() {
        let all = events(100);
        let mut generator = Generator::new(GeneratorConfig::new(7, BASE_MS));
        let mut alone = Vec::new();
        generator.write_event(99, &mut alone);
        assert_eq!(alone, all[99].as_bytes());
        let mut other = Vec::new();
        Generator::new(GeneratorConfig::new(8, BASE_MS)).write_event(99, &mut other);
        assert_ne!(alone, other);
    }

    #[test]
    fn payloads_reach_the_length_asked_for() {
        let mut generator = Generator::new(GeneratorConfig { payload_bytes: 150, ..GeneratorConfig::new(1, BASE_MS) });
        let mut total = 0;
        for index in 0..1_000 {
            generator.write_event(index, &mut Vec::new());
            total += generator.payload.len();
        }
        assert!((140..=165).contains(&(total / 1_000)), "payloads average {} bytes", total / 1_000);
    }
}
