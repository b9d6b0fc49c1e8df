//! Generated events through the chain and through [`crate::reference`]: the same rows, the same
//! refusals.

use std::collections::BTreeMap;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType},
};
use companyos_operators::{DecodeConfig, DedupConfig, Record};
use companyos_schemas::{Field, FieldType, Stream, payload_hash};
use proptest::prelude::*;

use crate::{
    fuzz::{NOW_MS, assert_conserved, chain},
    reference::{Cell, Outcome, outcome},
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn agrees_with_the_reference(
        stream in prop::sample::select(&Stream::ALL[..]),
        tapes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..12),
        as_array in any::<bool>(),
    ) {
        let events: Vec<String> = tapes.iter().map(|tape| event(stream, &mut Tape(tape.iter()))).collect();
        let outcomes = outcomes(stream, &events, as_array);
        prop_assert_eq!(outcomes.len(), events.len());
        for (event, got) in events.iter().zip(outcomes) {
            prop_assert_eq!(got, outcome(stream, event, NOW_MS), "{}", event);
        }
    }
}

#[test]
fn the_generator_reaches_rows_and_many_reasons() {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut state = 1_u32;
    for number in 0..4_000 {
        let tape: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(80)
        .collect();
        let stream = Stream::ALL[number % Stream::ALL.len()];
        let name = match outcome(stream, &event(stream, &mut Tape(tape.iter())), NOW_MS) {
            Outcome::Row(_) => "row",
            Outcome::Refused(reason, _) => reason,
        };
        *seen.entry(name.to_owned()).or_default() += 1;
    }
    assert!(seen["row"] > 200, "{seen:?}");
    assert!(seen.len() > 10, "{seen:?}");
}

/// What the chain makes of the events, in order.
fn outcomes(stream: Stream, events: &[String], as_array: bool) -> Vec<Outcome> {
    let config = DecodeConfig::default();
    let mut chain = chain(stream, config.clone(), DedupConfig { horizon_seconds: 0, ..DedupConfig::default() });
    let array = format!(" [ {} ] ", events.join(" , "));
    let texts: Vec<&str> = if as_array { vec![&array] } else { events.iter().map(String::as_str).collect() };
    let records: Vec<Record<'_>> = texts
        .iter()
        .zip(0..)
        .map(|(text, offset)| Record {
            offset,
            timestamp_ms: Some(NOW_MS),
            payload: Some(text.as_bytes()),
            ..Record::default()
        })
        .collect();
    let output = assert_conserved(&mut chain, &config, &records);
    let mut found = BTreeMap::new();
    if let Some(batch) = &output.rows {
        for row in output.routes.iter().flat_map(|(_, rows)| rows).map(|row| *row as usize) {
            let cells = stream.fields().iter().filter_map(|field| Some((field.name, cell(batch, field, row)?)));
            found.insert(position(batch, row), Outcome::Row(cells.collect()));
        }
    }
    for (_, batch) in &output.quarantine {
        for row in 0..batch.num_rows() {
            let text = |column: &str| batch[column].as_string::<i32>();
            let field = text("field").is_valid(row).then(|| name(stream, text("field").value(row)));
            let reason = text("reason").value(row).to_owned().leak();
            found.insert(position(batch, row), Outcome::Refused(reason, field));
        }
    }
    found.into_values().collect()
}

fn name(stream: Stream, name: &str) -> &'static str {
    stream.fields().iter().find(|field| field.name == name).expect("a field of the stream").name
}

fn position(batch: &RecordBatch, row: usize) -> (i64, i32) {
    let offset = batch["_offset"].as_primitive::<Int64Type>().value(row);
    (offset, batch["_index"].as_primitive::<Int32Type>().value(row))
}

fn cell(batch: &RecordBatch, field: &Field, row: usize) -> Option<Cell> {
    let column = &batch[field.name];
    column.is_valid(row).then(|| match field.ty {
        FieldType::Timestamp => Cell::Time(column.as_primitive::<TimestampMicrosecondType>().value(row)),
        FieldType::Float => Cell::Float(column.as_primitive::<Float64Type>().value(row)),
        FieldType::Integer => Cell::Integer(column.as_primitive::<Int64Type>().value(row)),
        FieldType::Json => Cell::Json(serde_json::from_str(column.as_string::<i32>().value(row)).unwrap()),
        _ => Cell::Text(column.as_string::<i32>().value(row).to_owned()),
    })
}

/// Choices that a test case consists of. It shrinks towards zeros, and 0 is always the plain choice.
struct Tape<'a>(std::slice::Iter<'a, u8>);

impl Tape<'_> {
    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.0.next().copied().unwrap_or(0)) % of.len()]
    }

    fn below(&mut self, limit: u8) -> u8 {
        self.0.next().copied().unwrap_or(0) % limit
    }
}

/// An event of the stream: mostly good, with something odd about a field now and then.
fn event(stream: Stream, tape: &mut Tape<'_>) -> String {
    let payload = tape.pick(&[
        r#"{"a":1,"b":"x"}"#,
        r#"{ "b": [1, 2, {"c": null}], "a": "caf\u00e9 é" }"#,
        r#"{}"#,
        r#"[1,{"z":"]}"}]"#,
        r#""text \"quoted\"""#,
        "5",
    ]);
    let mut members: Vec<(String, String)> = Vec::new();
    for field in stream.fields() {
        let good = match field.name {
            "payload" => payload.to_owned(),
            "payload_hash" => quoted(&hash(payload, tape)),
            _ => good_value(field, tape),
        };
        let key = quoted(field.name);
        match tape.below(255) {
            0..225 => members.push((key, good)),
            225..229 => {}
            229..231 => members.push((key, "null".to_owned())),
            231 => members.push((key, quoted(" \t"))),
            232..236 => members.push((key, tape.pick(&["true", "12", "[1]", r#"{"a":1}"#, r#""text""#]).to_owned())),
            236 => members.push((key, quoted(&"É".repeat(150)))),
            237 => members.push((key, quoted("a/b"))),
            238 => members.push((key, r#""a\u0007b""#.to_owned())),
            239 => members.extend([(key.clone(), good.clone()), (key, good)]),
            240 => members.push((key.replacen('e', "\\u0065", 1), good)),
            241..248 if good.starts_with('"') && !good.contains('\\') => {
                members.push((key, format!("\" \\t{} \"", good.trim_matches('"').to_uppercase())));
            }
            _ => members.push((key, good)),
        }
    }
    for _ in 0..tape.pick(&[0, 0, 0, 1, 2]) {
        let unknown = tape.pick(&[("x", "1"), ("Tenant", r#""beta""#), ("extra field", r#"{"y":[true,"\n"]}"#)]);
        let at = usize::from(tape.below(255)) % (members.len() + 1);
        members.insert(at, (quoted(unknown.0), unknown.1.to_owned()));
    }
    if !members.is_empty() {
        let by = usize::from(tape.below(255)) % members.len();
        members.rotate_left(by);
    }
    let (colon, comma) = tape.pick(&[(":", ","), (" : ", ",\n ")]);
    let members: Vec<String> = members.into_iter().map(|(key, value)| format!("{key}{colon}{value}")).collect();
    format!("{{{}}}", members.join(comma))
}

fn good_value(field: &Field, tape: &mut Tape<'_>) -> String {
    match (field.name, field.ty) {
        ("tenant", _) => quoted(tape.pick(&["alpha", "alpha", "alpha", "alpha", " ALPHA", "beta", "gamma"])),
        ("env", _) => quoted(tape.pick(&["prod", "prod", "prod", "staging", "Prod ", "dev"])),
        ("region", _) => quoted(tape.pick(&["eu-west-1", "eu-west-1", "eu-west-1", "EU-west-1", "us-east-1"])),
        ("occurred_at", _) => tape.pick(TIMES).to_owned(),
        (_, FieldType::Enum(words)) => quoted(words[usize::from(tape.below(255)) % words.len()]),
        (_, FieldType::Float) => {
            tape.pick(&["0.5", "1", "\"1.25\"", "-0.0", "1e3", "\" 7 \"", "1e400", "\"NaN\"", "\"0x1\""]).to_owned()
        }
        (_, FieldType::Integer) => {
            tape.pick(&["3002", "\"3002\"", "7.0", "-1", "1.5", "1e3", "9223372036854775808"]).to_owned()
        }
        (_, FieldType::Json) => r#"{"k":[1,"v"]}"#.to_owned(),
        _ => quoted(tape.pick(&["viewer", "Web/4.2", "two words", "é-1"])),
    }
}

/// The record is written at 2026-01-02T00:00:00Z; the bounds lie at +600 s and -400 d.
const TIMES: &[&str] = &[
    r#""2026-01-02T00:00:00Z""#,
    r#""2026-01-02T05:29:59.123456789+05:30""#,
    r#""2026-01-01 12:14:59.9-11:45""#,
    r#"" 2026-01-01t23:59:59z ""#,
    "1767311999",
    "1767311999.25",
    "1767311999250",
    "1767311999250001",
    r#""1767311999""#,
    "1.767312e9",
    r#""2026-01-02T00:10:00Z""#,
    r#""2026-01-02T00:10:00.000001Z""#,
    r#""2024-11-28T00:00:00Z""#,
    r#""2024-11-27T23:59:59.999999Z""#,
    r#""9999-12-31T23:59:59Z""#,
    r#""2026-02-30T00:00:00Z""#,
    r#""2026-01-02T00:00:00""#,
    r#""yesterday""#,
    "1e20",
    "-1",
];

fn hash(payload: &str, tape: &mut Tape<'_>) -> String {
    let sent = payload_hash::compute(payload);
    let canonical = match payload {
        r#"{ "b": [1, 2, {"c": null}], "a": "caf\u00e9 é" }"# => {
            payload_hash::compute(r#"{"a":"café é","b":[1,2,{"c":null}]}"#)
        }
        _ => sent.clone(),
    };
    match tape.below(12) {
        0..6 => sent,
        6..8 => canonical,
        8 => sent.trim_start_matches("sha256:").to_uppercase(),
        9 => format!(" {sent} "),
        10 => payload_hash::compute("other"),
        _ => "sha256:12".to_owned(),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
