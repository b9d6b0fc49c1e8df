//! Ten thousand records nobody should send: each ends in the table or in quarantine, none stops
//! the pipeline.

use std::collections::HashSet;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::world::{Sent, World, event};

crate::on_both_brokers!(nothing_is_lost_and_nothing_stops);

const RECORDS: usize = 10_000;
/// The largest record the brokers of these tests take is 16 MB.
const HUGE: usize = 10 << 20;

async fn nothing_is_lost_and_nothing_stops(world: World) {
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let worker = world.worker_with(|setup| setup.config.epoch_max_bytes = 16 << 20).await;
    let mut sent = HashSet::new();
    for chunk in 0..RECORDS / 500 {
        let records: Vec<Sent> = (0..500).map(|n| poison(chunk * 500 + n, &mut random)).collect();
        sent.extend(world.send(records).await);
    }
    let marker = world.send([event("the-end", "alpha", "eu", "x")]).await;
    sent.extend(marker);
    let found = async || -> Vec<(i32, i64, i32)> {
        let sql = "SELECT _partition, _offset, _index FROM product_events UNION ALL SELECT _partition, _offset, _index FROM quarantine";
        let rows = world.sql(sql).await;
        rows.iter().map(|r| (r[0].parse().unwrap(), r[1].parse().unwrap(), r[2].parse().unwrap())).collect()
    };
    crate::world::until("every record is accounted for", async || {
        found().await.iter().map(|(partition, offset, _)| (*partition, *offset)).collect::<HashSet<_>>() == sent
    })
    .await;
    let places = found().await;
    assert_eq!(places.iter().collect::<HashSet<_>>().len(), places.len(), "an event is stored twice");
    worker.stop().await;
}

fn poison(number: usize, random: &mut StdRng) -> Sent {
    let id = uuid::Uuid::from_u128(random.random());
    let text = event(&id.to_string(), "alpha", "eu", "x");
    let payload: Vec<u8> = match random.random_range(0..16) {
        0 => text.into_bytes(),
        1 => flip(text.into_bytes(), random),
        2 => text.as_bytes()[..random.random_range(0..text.len())].to_vec(),
        3 => (0..random.random_range(1..300)).map(|_| random.random()).collect(),
        4 => format!("{}{}", "[".repeat(random.random_range(1..5000)), "1").into_bytes(),
        5 => format!("{}{}{}", r#"{"a":"#.repeat(2000), "1", "}".repeat(2000)).into_bytes(),
        6 => text.replace("\"role\":\"admin\"", "\"role\":NaN").into_bytes(),
        7 => text.replace("\"occurred_at\":\"20", "\"occurred_at\":\"99").into_bytes(),
        8 => text.replace("\"role\":", "\"role\":\"a\",\"role\":").into_bytes(),
        9 => text
            .replace("\"admin\"", ["1e400", "{}", "[]", "null", "true", "\"\""][random.random_range(0..6)])
            .into_bytes(),
        10 => format!("\u{feff}{text}").into_bytes(),
        11 => text.replace("web/1", "\\ud800 \\u0000 \\x").into_bytes(),
        12 => array(random),
        13 => text.replace("\"prod\"", "\"\\u0070rod \"").into_bytes(),
        14 => Vec::new(),
        _ => format!("{text}{text}").into_bytes(),
    };
    let payload = match number {
        // A few that are as large as the broker lets through.
        1000 => vec![b'x'; HUGE],
        2000 => format!("{{\"a\":\"{}\"}}", "y".repeat(HUGE)).into_bytes(),
        3000 => [b"[".as_slice(), &b"1,".repeat(HUGE / 4), b"1]"].concat(),
        4000 => vec![0xff; HUGE],
        _ => payload,
    };
    let headers = match random.random_range(0..20) {
        0 => vec![("ce_specversion", "1.0".to_owned())],
        1 => vec![("content-type", "application/cloudevents+json".to_owned())],
        2 => vec![("traceparent", "00-zz".to_owned()), ("companyos-origin", "\u{1f4a3}/////".to_owned())],
        _ => Vec::new(),
    };
    Sent { key: number.to_string(), payload: Some(payload), headers, partition: None }
}

fn flip(mut bytes: Vec<u8>, random: &mut StdRng) -> Vec<u8> {
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..bytes.len());
        bytes[at] = random.random();
    }
    bytes
}

fn array(random: &mut StdRng) -> Vec<u8> {
    let elements: Vec<String> = (0..random.random_range(1..20))
        .map(|_| match random.random_range(0..3) {
            0 => "7".to_owned(),
            1 => r#"{"event_id":1}"#.to_owned(),
            _ => event(&uuid::Uuid::from_u128(random.random()).to_string(), "beta", "us", "x"),
        })
        .collect();
    format!("[{}]", elements.join(",")).into_bytes()
}
