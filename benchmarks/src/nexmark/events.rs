//! The events of Nexmark (persons, auctions and bids, 1 : 3 : 46) as product events.
//!
//! `feature` says which of the three an event is and `payload` is its record. Event `i` depends on the seed, the base
//! time and `i` alone; times rise with `i`. Ids, hot keys and prices follow Nexmark's own generator with its defaults.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use anyhow::{Context, Result};
use fastrand::Rng;
use sha2::{Digest, Sha256};

use crate::generator::{Timestamps, pick, push_decimal, push_event_id, push_hex, push_member};

/// The tenant of every event.
pub const TENANT: &str = "nexmark";

/// Events of event time a millisecond: Nexmark's 10,000 a second.
pub const EVENTS_PER_MS: u64 = 10;

const PROPORTION: u64 = 50;
const PERSONS: u64 = 1;
const AUCTIONS: u64 = 3;

const FIRST_ID: u64 = 1_000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// Ids of things that do not exist yet may be named, as Nexmark has it.
const ID_LEAD: u64 = 10;
const ACTIVE_PERSONS: u64 = 1_000;
const AUCTIONS_IN_FLIGHT: u64 = 100;
/// A hot seller or auction is the first of so many.
const HOT_GROUP: u64 = 100;

const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

/// Writes events as JSON text.
#[derive(Debug)]
pub struct NexmarkEvents {
    seed: u64,
    base_ms: u64,
    payload: Vec<u8>,
    times: Timestamps,
}

impl NexmarkEvents {
    /// Event 0 happens at `base_ms` (since the epoch).
    pub fn new(seed: u64, base_ms: u64) -> Self {
        Self { seed, base_ms, payload: Vec::with_capacity(512), times: Timestamps::default() }
    }

    /// Appends event `index` to `out`, without a line end.
    pub fn write_event(&mut self, index: u64, out: &mut Vec<u8>) {
        let mut rng = Rng::with_seed(self.seed ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let ms = self.base_ms + index / EVENTS_PER_MS;
        out.extend_from_slice(b"{\"event_id\":\"");
        push_event_id(out, ms, rng.u16(..), index);
        out.extend_from_slice(b"\",\"occurred_at\":\"");
        self.times.push(out, ms);
        out.push(b'"');
        push_member(out, "tenant", TENANT);
        push_member(out, "role", "trader");
        self.payload.clear();
        let feature = match index % PROPORTION {
            offset if offset < PERSONS => {
                write_person(&mut rng, index, &mut self.payload);
                "person"
            }
            offset if offset < PERSONS + AUCTIONS => {
                write_auction(&mut rng, index, ms, &mut self.payload);
                "auction"
            }
            _ => {
                write_bid(&mut rng, index, &mut self.payload);
                "bid"
            }
        };
        push_number(&mut self.payload, "dateTime", ms);
        self.payload.push(b'}');
        push_member(out, "feature", feature);
        push_member(out, "region", "eu-west-1");
        push_member(out, "env", "prod");
        push_member(out, "client", "nexmark/1");
        push_member(out, "pii_classification", "none");
        out.extend_from_slice(b",\"payload_hash\":\"sha256:");
        push_hex(out, &Sha256::digest(&self.payload));
        out.extend_from_slice(b"\",\"payload\":");
        out.extend_from_slice(&self.payload);
        out.push(b'}');
    }
}

/// Writes `count` events to a file, one a line.
pub fn write_ndjson(seed: u64, base_ms: u64, count: u64, to: &Path) -> Result<()> {
    let mut source = NexmarkEvents::new(seed, base_ms);
    let mut out = BufWriter::new(File::create(to).with_context(|| to.display().to_string())?);
    let mut line = Vec::with_capacity(1024);
    for index in 0..count {
        line.clear();
        source.write_event(index, &mut line);
        line.push(b'\n');
        out.write_all(&line)?;
    }
    Ok(out.flush()?)
}

fn write_person(rng: &mut Rng, index: u64, out: &mut Vec<u8>) {
    push_first(out, "id", FIRST_ID + last_person(index));
    out.extend_from_slice(b",\"name\":\"");
    out.extend_from_slice(pick(rng, &FIRST_NAMES).as_bytes());
    out.push(b' ');
    out.extend_from_slice(pick(rng, &LAST_NAMES).as_bytes());
    out.push(b'"');
    push_member(out, "city", pick(rng, &CITIES));
    push_member(out, "state", pick(rng, &STATES));
}

fn write_auction(rng: &mut Rng, index: u64, ms: u64, out: &mut Vec<u8>) {
    push_first(out, "id", FIRST_ID + last_auction(index));
    push_text(rng, out, "itemName", 20);
    push_text(rng, out, "description", 100);
    let initial = price(rng);
    push_number(out, "initialBid", initial);
    push_number(out, "reserve", initial + price(rng));
    push_number(out, "expires", ms + 1 + rng.u64(0..20_000));
    let seller = match rng.u32(0..4) {
        0 => next_person(rng, index),
        _ => last_person(index) / HOT_GROUP * HOT_GROUP,
    };
    push_number(out, "seller", FIRST_ID + seller);
    push_number(out, "category", FIRST_CATEGORY + rng.u64(0..CATEGORIES));
}

fn write_bid(rng: &mut Rng, index: u64, out: &mut Vec<u8>) {
    let last = last_auction(index);
    let auction = match rng.bool() {
        true => last / HOT_GROUP * HOT_GROUP,
        false => {
            let oldest = last.saturating_sub(AUCTIONS_IN_FLIGHT);
            oldest + rng.u64(0..last - oldest + 1 + ID_LEAD)
        }
    };
    let bidder = match rng.u32(0..4) {
        0 => next_person(rng, index),
        _ => last_person(index) / HOT_GROUP * HOT_GROUP + 1,
    };
    push_first(out, "auction", FIRST_ID + auction);
    push_number(out, "bidder", FIRST_ID + bidder);
    push_number(out, "price", price(rng));
    let query = match rng.bool() {
        true => {
            push_member(out, "channel", pick(rng, &CHANNELS));
            rng.u64(0..4)
        }
        false => {
            let number = rng.u64(0..10_000);
            out.extend_from_slice(b",\"channel\":\"channel-");
            push_decimal(out, number, 1);
            out.push(b'"');
            number
        }
    };
    out.extend_from_slice(b",\"url\":\"https://www.nexmark.com/item/item.htm?query=");
    push_decimal(out, query, 1);
    out.push(b'"');
}

/// The newest person's number when event `index` happens, from 0.
fn last_person(index: u64) -> u64 {
    index / PROPORTION
}

/// The newest auction's number; the first person comes before any.
fn last_auction(index: u64) -> u64 {
    let (epoch, offset) = (index / PROPORTION, index % PROPORTION);
    match offset {
        0 => (epoch * AUCTIONS).saturating_sub(1),
        offset => epoch * AUCTIONS + (offset - PERSONS).min(AUCTIONS - 1),
    }
}

fn next_person(rng: &mut Rng, index: u64) -> u64 {
    let persons = last_person(index) + 1;
    let active = persons.min(ACTIVE_PERSONS);
    persons - active + rng.u64(0..active + ID_LEAD)
}

/// In cents, log-uniform over six decades.
fn price(rng: &mut Rng) -> u64 {
    (10_f64.powf(rng.f64() * 6.0) * 100.0).round() as u64
}

fn push_text(rng: &mut Rng, out: &mut Vec<u8>, name: &str, length: usize) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    for _ in 0..rng.usize(length / 2..=length) {
        out.push(if rng.u8(0..13) == 0 { b' ' } else { rng.u8(b'a'..=b'z') });
    }
    out.push(b'"');
}

fn push_first(out: &mut Vec<u8>, name: &str, value: u64) {
    push_number(out, name, value);
    if let Some(comma) = out.first_mut() {
        *comma = b'{';
    }
}

fn push_number(out: &mut Vec<u8>, name: &str, value: u64) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    push_decimal(out, value, 1);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use companyos_schemas::{Stream, payload_hash};
    use serde_json::{Value, value::RawValue};

    use super::*;

    const BASE_MS: u64 = 1_767_225_600_000;

    fn event(index: u64) -> String {
        let mut out = Vec::new();
        NexmarkEvents::new(7, BASE_MS).write_event(index, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn events_keep_the_contract_and_their_hashes_verify() {
        let mut ids = HashSet::new();
        for index in 0..5_000 {
            let text = event(index);
            let event: std::collections::HashMap<&str, &RawValue> = serde_json::from_str(&text).unwrap();
            for field in Stream::ProductEvents.fields().iter().filter(|f| f.required) {
                assert!(event.contains_key(field.name), "{} is missing from {text}", field.name);
            }
            let hash: String = serde_json::from_str(event["payload_hash"].get()).unwrap();
            assert!(payload_hash::verify(&hash, Some(event["payload"].get())), "{text}");
            assert!(ids.insert(event["event_id"].get().to_owned()), "an id came twice");
        }
    }

    /// What the queries lean on: proportions, ids that refer to each other, and times that rise.
    #[test]
    fn persons_auctions_and_bids_refer_to_each_other() {
        let mut counts = [0_u32; 3];
        let (mut persons, mut auctions) = (HashSet::new(), HashSet::new());
        let (mut known_sellers, mut known_auctions, mut last_ms) = (0, 0, 0);
        for index in 0..20_000 {
            let event: Value = serde_json::from_str(&event(index)).unwrap();
            let number = |name: &str| event["payload"][name].as_u64().unwrap();
            assert!(number("dateTime") >= last_ms);
            last_ms = number("dateTime");
            match event["feature"].as_str().unwrap() {
                "person" => {
                    counts[0] += 1;
                    assert!(persons.insert(number("id")));
                }
                "auction" => {
                    counts[1] += 1;
                    assert!(auctions.insert(number("id")));
                    assert!(number("expires") > last_ms && (10..15).contains(&number("category")));
                    known_sellers += u32::from(persons.contains(&number("seller")));
                }
                _ => {
                    counts[2] += 1;
                    assert!((100..=100_000_000).contains(&number("price")));
                    known_auctions += u32::from(auctions.contains(&number("auction")));
                }
            }
        }
        assert_eq!(counts, [400, 1_200, 18_400]);
        assert_eq!(last_ms - BASE_MS, 1_999);
        assert!(known_sellers > 1_100 && known_auctions > 17_000, "{known_sellers} {known_auctions}");
    }
}
