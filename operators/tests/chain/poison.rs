//! Ten thousand records that somebody has tampered with: every one ends as rows or in quarantine and
//! the chain goes on. The seed is printed; `COMPANYOS_SEED` repeats a run.

use companyos_operators::{CloudEventHeaders, DecodeConfig, DedupConfig, Record, RecordHeaders};
use companyos_schemas::Stream;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::fuzz::{NOW_MS, assert_conserved, chain};

const RECORDS: usize = 10_000;
const PER_FLUSH: usize = 500;
const MEBIBYTE: usize = 1 << 20;

#[test]
fn ten_thousand_poisoned_records_are_all_accounted_for() {
    let seed = std::env::var("COMPANYOS_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("COMPANYOS_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut rows, mut refused) = (0, 0);
    for flush in 0..RECORDS / PER_FLUSH {
        let stream = Stream::ALL[flush % Stream::ALL.len()];
        // Every other chain reads even the 10 MiB values.
        let max_event_bytes = if flush % 2 == 0 { MEBIBYTE } else { 16 * MEBIBYTE };
        let config = DecodeConfig { max_event_bytes, max_events_per_record: 1_000, ..DecodeConfig::default() };
        let mut chain = chain(stream, config.clone(), DedupConfig { max_entries: 50, ..DedupConfig::default() });
        let mut records: Vec<Poison> = (0..PER_FLUSH).map(|_| poison(stream, &mut rng)).collect();
        // Large ones are few, for the sake of the suite's time.
        records[0].value = Some(huge_value(stream));
        records[1].value = Some(huge_array(stream, 900 + 200 * (flush % 2)));
        records[2].value = Some(b"[".repeat(2 * MEBIBYTE));
        let records: Vec<Record<'_>> =
            records.iter().enumerate().map(|(offset, poison)| poison.record(offset)).collect();
        let output = assert_conserved(&mut chain, &config, &records);
        rows += output.stats.routed;
        refused += output.stats.quarantined.values().sum::<u64>();
        // And the chain still takes in a good event.
        let good = event(stream, "after");
        let good = Record {
            offset: 1_000_000,
            timestamp_ms: Some(NOW_MS),
            payload: Some(good.as_bytes()),
            ..Record::default()
        };
        assert_eq!(assert_conserved(&mut chain, &config, &[good]).stats.routed, 1);
    }
    assert!(
        rows > 1_000 && refused > 5_000,
        "{rows} rows and {refused} refusals: the poison is too strong or too weak"
    );
}

struct Poison {
    value: Option<Vec<u8>>,
    content_type: Option<&'static str>,
    attributes: Option<Vec<(String, String)>>,
    timestamp_ms: Option<i64>,
}

impl Poison {
    fn record(&self, offset: usize) -> Record<'_> {
        Record {
            offset: offset as i64,
            timestamp_ms: self.timestamp_ms,
            key: None,
            payload: self.value.as_deref(),
            headers: RecordHeaders {
                content_type: self.content_type,
                traceparent: Some("00-garbage"),
                cloud_event: self.attributes.as_ref().map(|list| CloudEventHeaders {
                    attributes: list.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
                }),
                ..RecordHeaders::default()
            },
        }
    }
}

/// A good event of the stream.
fn event(stream: Stream, id: &str) -> String {
    let own = match stream {
        Stream::ProductEvents => {
            r#""role":"viewer","feature":"x","client":"web","pii_classification":"none","payload_hash":"74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b","payload":null"#
        }
        Stream::OpsEvents => r#""kind":"deployment","service":"api""#,
        Stream::SliMetrics => r#""service":"api","sli_type":"latency","window":"1m","value":0.25,"objective":0.3"#,
        Stream::SecuritySignals => r#""actor":"a","signal_type":"login","severity":"low","evidence":{"ip":[1]}"#,
        Stream::AuditEvents => r#""actor":"a","action":"read","resource":"r","outcome":"denied""#,
    };
    format!(
        r#"{{"event_id":"{id}","occurred_at":"2026-01-02T00:00:00Z","tenant":"alpha","env":"prod","region":"eu-west-1",{own}}}"#
    )
}

fn poison(stream: Stream, rng: &mut StdRng) -> Poison {
    let id: u16 = rng.random();
    let mut event = event(stream, &id.to_string());
    let mut poison = Poison { value: None, content_type: None, attributes: None, timestamp_ms: Some(NOW_MS) };
    let bytes = match rng.random_range(0..24) {
        0..3 => event.into_bytes(),
        3 => return poison,
        4 => Vec::new(),
        5 => b" \n\t".to_vec(),
        6 => cut(event.into_bytes(), rng),
        7 => flip(event.into_bytes(), rng),
        8 => splice(event.into_bytes(), &[0xff, 0xc0, 0x80], rng),
        9 => splice(event.into_bytes(), b"\0", rng),
        10 => [b"\xef\xbb\xbf", event.as_bytes()].concat(),
        11 => with(event, &format!(r#""x":{}1{}"#, "[".repeat(rng.random_range(1..3_000)), "]".repeat(2_999))),
        12 => {
            let depth = rng.random_range(1..200);
            with(event, &format!(r#""payload":{}1{}"#, r#"{"a":"#.repeat(depth), "}".repeat(depth)))
        }
        13 => {
            let value = ["true", "12", "[]", "{}", "\"\"", "null"].choose(rng).copied().unwrap_or_default();
            for known in [r#""alpha""#, r#""prod""#, r#""eu-west-1""#, r#""2026-01-02T00:00:00Z""#] {
                if rng.random_bool(0.3) {
                    event = event.replace(known, value);
                }
            }
            event.into_bytes()
        }
        14 => with(event, r#""tenant":"beta""#),
        15 => {
            let number = ["NaN", "Infinity", "-", "1e999", "-0", "0x10", "01", "1.", "123456789012345678901234567890"];
            with(event, &format!(r#""payload":{{"n":{}}}"#, number.choose(rng).copied().unwrap_or_default()))
        }
        16 => {
            let times = ["9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "99999-01-01T00:00:00Z", "1e17", "NaN", "-1"];
            event.replace("2026-01-02T00:00:00Z", times.choose(rng).copied().unwrap_or_default()).into_bytes()
        }
        17 => {
            let escape = ["\\ud800", "\\udc00\\ud800", "\\u12", "\\x", "\\ud83d\\ude00"].choose(rng).copied();
            with(event, &format!(r#""{}":1"#, escape.unwrap_or_default()))
        }
        18 => array(stream, rng),
        19 => {
            poison.timestamp_ms =
                [None, Some(-1), Some(0), Some(i64::MAX), Some(i64::MIN)].choose(rng).copied().flatten();
            event.into_bytes()
        }
        20 => {
            poison.content_type = Some("application/cloudevents+json");
            let versions = [r#""1.0""#, r#""0.3""#, "1", "null"].choose(rng).copied().unwrap_or_default();
            format!(r#"{{"specversion":{versions},"id":"{id}","source":"/s","type":"t","data":{event}}}"#).into_bytes()
        }
        21 | 22 => {
            poison.content_type =
                ["application/json", "text/plain", "", "application/x+json; q", "\u{0}"].choose(rng).copied();
            poison.attributes = Some(attributes(rng));
            if rng.random_bool(0.5) { event.into_bytes() } else { flip(event.into_bytes(), rng) }
        }
        _ => {
            let mut noise = vec![0; rng.random_range(1..400)];
            rng.fill_bytes(&mut noise);
            noise
        }
    };
    poison.value = Some(bytes);
    poison
}

fn attributes(rng: &mut StdRng) -> Vec<(String, String)> {
    let names =
        ["specversion", "id", "source", "type", "time", "tenant", "region", "data", "data_base64", "\"", "\u{0}é", ""];
    let values = ["1.0", "x", "", "2026-01-02T00:00:00Z", "\",\"tenant\":\"beta", "\u{7f}\n", "us-east-1", "\\ud800"];
    let mut list: Vec<(String, String)> = Vec::new();
    if rng.random_bool(0.6) {
        list.extend(["specversion", "id", "source", "type"].map(|name| (name.to_owned(), "1.0".to_owned())));
    }
    for _ in 0..rng.random_range(0..4) {
        let [name, value] =
            [names.choose(rng), values.choose(rng)].map(|text| text.copied().unwrap_or_default().to_owned());
        list.push((name, value));
    }
    list
}

/// Adds a member to an object's text.
fn with(event: String, member: &str) -> Vec<u8> {
    format!("{},{member}}}", &event[..event.len() - 1]).into_bytes()
}

fn cut(mut bytes: Vec<u8>, rng: &mut StdRng) -> Vec<u8> {
    bytes.truncate(rng.random_range(1..bytes.len()));
    bytes
}

fn flip(mut bytes: Vec<u8>, rng: &mut StdRng) -> Vec<u8> {
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..bytes.len());
        bytes[at] ^= 1 << rng.random_range(0..8);
    }
    bytes
}

fn splice(mut bytes: Vec<u8>, garbage: &[u8], rng: &mut StdRng) -> Vec<u8> {
    let at = rng.random_range(0..=bytes.len());
    bytes.splice(at..at, garbage.iter().copied());
    bytes
}

fn array(stream: Stream, rng: &mut StdRng) -> Vec<u8> {
    let elements: Vec<String> = (0..rng.random_range(0..6))
        .map(|_| match rng.random_range(0..5) {
            0 => ["1", "null", "[]", "\"x\"", "{}"].choose(rng).copied().unwrap_or_default().to_owned(),
            _ => event(stream, &rng.random::<u16>().to_string()),
        })
        .collect();
    format!("[{}]", elements.join(",")).into_bytes()
}

fn huge_value(stream: Stream) -> Vec<u8> {
    with(event(stream, "huge"), &format!(r#""x":"{}""#, "a b c d ".repeat(10 * MEBIBYTE / 8)))
}

fn huge_array(stream: Stream, length: usize) -> Vec<u8> {
    let bad = event(stream, "1").replace("eu-west-1", "moon");
    format!("[{}{{}}]", format!("{bad},1,").repeat(length / 2)).into_bytes()
}
