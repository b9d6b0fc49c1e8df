//! The evaluator against a naive one written from the specification: one event and one rule at a time, on JSON.

// Clippy allows these in test functions; what those call is test code too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::Ipv4Addr;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, ListBuilder, StringArray, StringBuilder};
use base64::Engine;
use companyos_sigma::{EventBatch, FieldMapping, KEYWORDS, Loaded, RuleSet};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const TEXT_FIELDS: [&str; 2] = ["f", "g"];

// ---- the reference

fn texts(event: &Value, field: &str) -> Option<Vec<String>> {
    match event.get(field)? {
        Value::Null => None,
        Value::Array(list) => Some(list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()),
        Value::String(s) => Some(vec![s.clone()]),
        other => Some(vec![other.to_string()]),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum T {
    Char(char),
    Any,
    One,
}

fn pattern(text: &str) -> Vec<T> {
    let chars: Vec<char> = text.chars().collect();
    let mut out = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let next = chars.get(at + 1).copied();
        match chars[at] {
            '\\' if matches!(next, Some('*' | '?' | '\\')) => {
                out.push(T::Char(next.unwrap()));
                at += 1;
            }
            '*' => out.push(T::Any),
            '?' => out.push(T::One),
            c => out.push(T::Char(c)),
        }
        at += 1;
    }
    out
}

fn fits(pattern: &[T], text: &[char]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(T::Any), _) => fits(&pattern[1..], text) || (!text.is_empty() && fits(pattern, &text[1..])),
        (Some(T::One), Some(_)) => fits(&pattern[1..], &text[1..]),
        (Some(T::Char(a)), Some(b)) => a == b && fits(&pattern[1..], &text[1..]),
        _ => false,
    }
}

fn literal(text: &str) -> Vec<T> {
    text.chars().map(T::Char).collect()
}

fn spellings(pattern: Vec<T>) -> Vec<Vec<T>> {
    let dashes = ['-', '/', '–', '—', '―'];
    let word = |t: Option<&T>| matches!(t, Some(T::Char(c)) if c.is_alphanumeric() || *c == '_');
    let at = (0..pattern.len()).filter(|n| {
        let dash = matches!(pattern[*n], T::Char(c) if dashes.contains(&c));
        dash && !(*n > 0 && word(pattern.get(n - 1))) && word(pattern.get(n + 1))
    });
    at.fold(vec![pattern.clone()], |all, n| {
        let with = |p: &Vec<T>, d: char| {
            let mut p = p.clone();
            p[n] = T::Char(d);
            p
        };
        all.iter().flat_map(|p| dashes.iter().map(move |d| with(p, *d))).collect()
    })
}

fn encode(text: &str, modifiers: &[&str]) -> Vec<Vec<T>> {
    let b64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let mut bytes: Vec<u8> = text.as_bytes().to_vec();
    for (n, modifier) in modifiers.iter().enumerate() {
        let units: Vec<u16> = text.encode_utf16().collect();
        match *modifier {
            "wide" | "utf16le" => bytes = units.iter().flat_map(|u| u.to_le_bytes()).collect(),
            "utf16be" => bytes = units.iter().flat_map(|u| u.to_be_bytes()).collect(),
            "utf16" => bytes = [0xff, 0xfe].into_iter().chain(units.iter().flat_map(|u| u.to_le_bytes())).collect(),
            "base64" => return vec![literal(&b64(&bytes))],
            "base64offset" => {
                // What stays the same whatever stands before and after, found by trying.
                return (0..3)
                    .map(|shift| {
                        let variants: Vec<String> = [0u8, 0xff]
                            .iter()
                            .flat_map(|x| {
                                [0u8, 0xff].map(|y| {
                                    let mut padded = vec![*x; shift];
                                    padded.extend(&bytes);
                                    padded.extend([y; 3]);
                                    b64(&padded)
                                })
                            })
                            .collect();
                        let first: Vec<char> = variants[0].chars().collect();
                        let used = (shift + bytes.len()) * 8 / 6 + 1;
                        let same: Vec<bool> = (0..used.min(first.len()))
                            .map(|n| variants.iter().all(|v| v.chars().nth(n) == Some(first[n])))
                            .collect();
                        let start = same.iter().position(|s| *s).unwrap_or(0);
                        let count = same[start..].iter().take_while(|s| **s).count();
                        first[start..start + count].iter().map(|c| T::Char(*c)).collect()
                    })
                    .collect();
            }
            _ => {
                let _ = n;
            }
        }
    }
    vec![literal(std::str::from_utf8(&bytes).unwrap())]
}

fn one_value(event: &Value, field: &str, modifiers: &[&str], value: &Value) -> bool {
    let has = |m: &str| modifiers.contains(&m);
    let found = texts(event, field);
    if has("exists") {
        return found.is_some() == value.as_bool().unwrap();
    }
    if value.is_null() {
        return found.is_none();
    }
    let Some(found) = found else { return false };
    let written = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let Some(op) = ["lt", "lte", "gt", "gte"].into_iter().find(|m| has(m)) {
        let limit: f64 = written.parse().unwrap();
        return found.iter().filter_map(|t| t.parse::<f64>().ok()).any(|n| match op {
            "lt" => n < limit,
            "lte" => n <= limit,
            "gt" => n > limit,
            _ => n >= limit,
        });
    }
    if has("re") {
        let flags: String = ["i", "m", "s"].into_iter().filter(|m| has(m)).collect();
        let flags = if flags.is_empty() { flags } else { format!("(?{flags})") };
        let regex = regex::Regex::new(&format!("{flags}{written}")).unwrap();
        return found.iter().any(|t| regex.is_match(t));
    }
    if has("cidr") {
        let (net, len) = written.split_once('/').unwrap();
        let (net, len): (Ipv4Addr, u32) = (net.parse().unwrap(), len.parse().unwrap());
        let mask = if len == 0 { 0 } else { u32::MAX << (32 - len) };
        return found
            .iter()
            .filter_map(|t| t.parse::<Ipv4Addr>().ok())
            .any(|a| u32::from(a) & mask == u32::from(net) & mask);
    }
    let low = |s: &str| if has("cased") { s.to_owned() } else { s.to_lowercase() };
    if has("fieldref") {
        let others = texts(event, &written).unwrap_or_default();
        return found.iter().any(|a| {
            others.iter().any(|b| {
                let (a, b) = (low(a), low(b));
                if has("contains") {
                    a.contains(&b)
                } else if has("startswith") {
                    a.starts_with(&b)
                } else if has("endswith") {
                    a.ends_with(&b)
                } else {
                    a == b
                }
            })
        });
    }
    let written = if has("expand") { written.replace("%who%", "b*") } else { written };
    let encodings = ["wide", "utf16le", "utf16be", "utf16", "base64", "base64offset"];
    let mut patterns = if modifiers.iter().any(|m| encodings.contains(m)) {
        encode(&written, modifiers)
    } else {
        vec![pattern(&written)]
    };
    if has("windash") {
        patterns = patterns.into_iter().flat_map(spellings).collect();
    }
    patterns.into_iter().any(|mut p| {
        if has("contains") || has("endswith") || field == KEYWORDS && !has("startswith") {
            p.insert(0, T::Any);
        }
        if has("contains") || has("startswith") || field == KEYWORDS && !has("endswith") {
            p.push(T::Any);
        }
        if !has("cased") {
            let lower = |t: T| match t {
                T::Char(c) => c.to_lowercase().map(T::Char).collect(),
                other => vec![other],
            };
            p = p.into_iter().flat_map(lower).collect();
        }
        found.iter().any(|t| fits(&p, &low(t).chars().collect::<Vec<_>>()))
    })
}

fn detection(event: &Value, detection: &Value) -> bool {
    match detection {
        Value::Object(map) => map.iter().all(|(key, value)| {
            let mut parts = key.split('|');
            let field = parts.next().unwrap();
            let field = if field.is_empty() { KEYWORDS } else { field };
            let modifiers: Vec<&str> = parts.collect();
            let values = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
            let mut each = values.iter().map(|v| one_value(event, field, &modifiers, v));
            let linked = if modifiers.contains(&"all") { each.all(|b| b) } else { each.any(|b| b) };
            if modifiers.contains(&"neq") { texts(event, field).is_some() && !linked } else { linked }
        }),
        Value::Array(list) if list.iter().all(Value::is_object) => list.iter().any(|d| detection_of(event, d)),
        Value::Array(list) => list.iter().any(|v| one_value(event, KEYWORDS, &[], v)),
        other => one_value(event, KEYWORDS, &[], other),
    }
}

fn detection_of(event: &Value, d: &Value) -> bool {
    detection(event, d)
}

/// The conditions that are generated, by their text.
fn condition(text: &str, a: bool, b: bool, c: bool) -> bool {
    match text {
        "sel_a" => a,
        "not sel_a" => !a,
        "sel_a and not sel_b" => a && !b,
        "sel_a or sel_b and other" => a || (b && c),
        "(sel_a or sel_b) and other" => (a || b) && c,
        "1 of sel_*" => a || b,
        "all of sel_*" => a && b,
        "1 of them" => a || b || c,
        "all of them" => a && b && c,
        "not 1 of sel_* and other" => !(a || b) && c,
        "2 of them" => [a, b, c].iter().filter(|x| **x).count() >= 2,
        "not (sel_a and (sel_b or not other))" => !(a && (b || !c)),
        _ => unreachable!(),
    }
}

const CONDITIONS: [&str; 12] = [
    "sel_a",
    "not sel_a",
    "sel_a and not sel_b",
    "sel_a or sel_b and other",
    "(sel_a or sel_b) and other",
    "1 of sel_*",
    "all of sel_*",
    "1 of them",
    "all of them",
    "not 1 of sel_* and other",
    "2 of them",
    "not (sel_a and (sel_b or not other))",
];

// ---- generators

fn words() -> impl Strategy<Value = String> {
    prop_oneof![
        "[abAB]{0,4}",
        "[ab*?\\\\]{0,5}",
        "( [-/]a){1,2}b?",
        Just("é".to_owned()),
        Just("ÉA".to_owned()),
        Just("10.0.0.5".to_owned()),
        Just("10.1.2.3".to_owned()),
        Just("7".to_owned()),
        Just("true".to_owned()),
    ]
}

/// Text of events also holds encoded words, so that the encodings have something to find.
fn event_text() -> impl Strategy<Value = String> {
    let b64 = |bytes: Vec<u8>| base64::engine::general_purpose::STANDARD.encode(bytes);
    let wide = |s: &str| s.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    prop_oneof![
        6 => words(),
        1 => "[xyz]{0,3}(aba|bab)[xyz]{0,3}".prop_map(move |s| b64(s.into_bytes())),
        1 => "(aba|bab)".prop_map(move |s| b64(wide(&s))),
        1 => "(aba|bab)".prop_map(move |s| String::from_utf8(wide(&s)).unwrap()),
        1 => Just("a\nb".to_owned()),
    ]
}

fn item() -> impl Strategy<Value = (String, Value)> {
    let field = prop_oneof![Just("f"), Just("g"), Just("l")];
    let many = |s: BoxedStrategy<String>| proptest::collection::vec(s, 1..4).prop_map(|v| json!(v));
    let affix = || prop_oneof![Just(""), Just("|contains"), Just("|startswith"), Just("|endswith")];
    let link = || prop_oneof![4 => Just(""), 1 => Just("|all"), 1 => Just("|neq"), 1 => Just("|cased")];
    let secret = || "(aba|bab)".boxed();
    prop_oneof![
        4 => (field.clone(), affix(), link(), many(words().boxed())).prop_map(|(f, a, l, v)| (format!("{f}{a}{l}"), v)),
        1 => (field.clone(), affix(), many(words().boxed()))
            .prop_map(|(f, a, v)| (format!("{f}|windash{a}"), v)),
        1 => (field.clone(), prop_oneof![Just("base64"), Just("wide|base64"), Just("utf16be|base64"), Just("utf16|base64"),
            Just("base64offset|contains"), Just("wide|base64offset|contains"), Just("utf16le"), Just("utf16be")], many(secret()))
            .prop_map(|(f, m, v)| (format!("{f}|{m}"), v)),
        1 => (field.clone(), prop_oneof![Just("re"), Just("re|i"), Just("re|m"), Just("re|s"), Just("re|i|m|s")],
            prop_oneof![Just("^a.?b$"), Just("aba"), Just("(ab|ba)a"), Just("^b$"), Just("a.b"), Just("[AB]{3}")])
            .prop_map(|(f, m, v)| (format!("{f}|{m}"), json!(v))),
        1 => (field.clone(), prop_oneof![Just("10.0.0.0/8"), Just("10.0.0.0/24"), Just("10.1.2.3/32"), Just("0.0.0.0/0")])
            .prop_map(|(f, v)| (format!("{f}|cidr"), json!(v))),
        1 => (prop_oneof![Just("n"), Just("f")], prop_oneof![Just("lt"), Just("lte"), Just("gt"), Just("gte")], -3i64..9)
            .prop_map(|(f, m, v)| (format!("{f}|{m}"), json!(v))),
        1 => (prop_oneof![Just("n"), Just("f"), Just("l")], prop_oneof![Just(json!(7)), Just(json!(true)), Just(json!("7")),
            Just(Value::Null), Just(json!([1, 7])), Just(json!("")), Just(json!("*"))]).prop_map(|(f, v)| (f.to_owned(), v)),
        1 => (prop_oneof![Just("f"), Just("n"), Just("missing")], any::<bool>())
            .prop_map(|(f, v)| (format!("{f}|exists"), json!(v))),
        1 => (field.clone(), affix(), prop_oneof![Just(""), Just("|cased"), Just("|neq")], prop_oneof![Just("f"), Just("g"), Just("l")])
            .prop_map(|(f, a, l, v)| (format!("{f}|fieldref{a}{l}"), json!(v))),
        1 => (field, affix()).prop_map(|(f, a)| (format!("{f}|expand{a}"), json!("a%who%"))),
        1 => (prop_oneof![Just("|all"), Just("|contains")], proptest::collection::vec("[ab]{1,2}", 1..3))
            .prop_map(|(m, v)| (m.to_owned(), json!(v))),
    ]
}

fn map() -> impl Strategy<Value = Value> {
    proptest::collection::vec(item(), 1..3).prop_map(|items| Value::Object(items.into_iter().collect::<Map<_, _>>()))
}

fn any_detection() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => map(),
        1 => proptest::collection::vec(map(), 1..3).prop_map(|v| json!(v)),
        1 => proptest::collection::vec("[ab*]{1,3}", 1..3).prop_map(|v| json!(v)),
    ]
}

fn rule() -> impl Strategy<Value = Value> {
    (any_detection(), any_detection(), any_detection(), proptest::sample::select(CONDITIONS.to_vec()))
        .prop_map(|(a, b, c, condition)| json!({"sel_a": a, "sel_b": b, "other": c, "condition": condition}))
}

fn event() -> impl Strategy<Value = Value> {
    let text = || proptest::option::of(event_text());
    (
        text(),
        text(),
        proptest::option::of(-3i64..9),
        proptest::option::of(proptest::collection::vec(event_text(), 0..3)),
    )
        .prop_map(|(f, g, n, l)| {
            let mut all = String::new();
            [&f, &g].into_iter().flatten().for_each(|t| all.push_str(&format!("{t} ")));
            json!({"f": f, "g": g, "n": n, "l": l, KEYWORDS: all})
        })
}

fn batch(events: &[Value]) -> EventBatch {
    let mut batch = EventBatch::new(events.len());
    for name in TEXT_FIELDS.into_iter().chain([KEYWORDS]) {
        let array: StringArray = events.iter().map(|e| e[name].as_str()).collect();
        batch = batch.with(name, Arc::new(array));
    }
    let numbers: Int64Array = events.iter().map(|e| e["n"].as_i64()).collect();
    let mut lists = ListBuilder::new(StringBuilder::new());
    for event in events {
        match &event["l"] {
            Value::Array(list) => {
                list.iter().for_each(|v| lists.values().append_value(v.as_str().unwrap()));
                lists.append(true);
            }
            _ => lists.append(false),
        }
    }
    let lists: ArrayRef = Arc::new(lists.finish());
    batch.with("n", Arc::new(numbers)).with("l", lists)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn columns_say_what_events_say(
        rules in proptest::collection::vec(rule(), 1..8),
        events in proptest::collection::vec(event(), 1..12),
    ) {
        let docs: Vec<String> = rules
            .iter()
            .enumerate()
            .map(|(n, detection)| json!({"title": format!("r{n}"), "logsource": {}, "detection": detection}).to_string())
            .collect();
        let loaded = Loaded::from_text("x.yml", &docs.join("\n---\n"));
        prop_assert!(loaded.refused.is_empty(), "{:?}", loaded.refused);
        let mapping = FieldMapping::default().placeholder("who", vec!["b*".into()]);
        let (set, refused) = RuleSet::compile(&loaded, &mapping);
        prop_assert!(refused.is_empty(), "{refused:?}");
        let mut got = vec![vec![]; rules.len()];
        for hits in set.evaluate(&batch(&events)).hits {
            got[hits.rule as usize] = hits.rows;
        }
        for (n, rule) in rules.iter().enumerate() {
            let want: Vec<u32> = (0..events.len())
                .filter(|e| {
                    let holds = |name: &str| detection(&events[*e], &rule[name]);
                    condition(rule["condition"].as_str().unwrap(), holds("sel_a"), holds("sel_b"), holds("other"))
                })
                .map(|e| e as u32)
                .collect();
            prop_assert_eq!(&got[n], &want, "rule {} on {:?}", rule, events);
        }
    }
}
