//! Cost per event as the number of rules grows: `cargo run --release --example scaling -- [EVENTS] [RULES...]`.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Int64Array, StringArray};
use companyos_sigma::{EventBatch, FieldMapping, Loaded, RuleSet};

/// A rule of one of six common forms; `n` makes its texts its own.
fn rule(n: usize) -> String {
    let selection = match n % 6 {
        0 => format!("CommandLine|contains|all: [' -tool{n}', 'payload{n}']"),
        1 => format!("Image|endswith: ['\\\\evil{n}.exe', '\\\\bad{n}.exe']\n    EventID: 1"),
        2 => format!("CommandLine|re: '(?i)invoke-[a-z]+{n}\\s'"),
        3 => format!("User: 'svc_{n}'\n    CommandLine|startswith: 'cmd{n}'"),
        4 => format!("CommandLine|windash|contains: ' -enc{n} '"),
        _ => format!("Ip|cidr: '10.{}.{}.0/24'\n    User|contains: 'adm{n}'", n / 250 % 250, n % 250),
    };
    format!(
        "title: r{n}\nlogsource: {{}}\ndetection:\n  sel:\n    {selection}\n  filter:\n    User: 'SYSTEM'\n  condition: sel and not filter\n"
    )
}

fn batch(events: usize) -> EventBatch {
    let text = |f: &dyn Fn(usize) -> String| Arc::new(StringArray::from_iter_values((0..events).map(f)));
    EventBatch::new(events)
        .with(
            "CommandLine",
            text(&|n| format!("C:\\run\\app{}.exe -x -tool{} payload{} --id {n}", n % 97, n % 3001, n % 3001)),
        )
        .with("Image", text(&|n| format!("C:\\Windows\\System32\\app{}.exe", n % 500)))
        .with("User", text(&|n| format!("user{}", n % 2000)))
        .with("Ip", text(&|n| format!("10.{}.{}.{}", n % 13, n % 250, n % 254)))
        .with("EventID", Arc::new(Int64Array::from_iter_values((0..events).map(|n| (n % 40) as i64))))
}

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let events = numbers.first().copied().unwrap_or(50_000);
    let sizes = if numbers.len() > 1 { numbers[1..].to_vec() } else { vec![1, 10, 100, 1000, 3000] };
    let batch = batch(events);
    println!("{:>7} {:>12} {:>10} {:>10}", "rules", "compile ms", "ns/event", "matches");
    for size in sizes {
        let text: Vec<String> = (0..size).map(rule).collect();
        let loaded = Loaded::from_text("generated", &text.join("---\n"));
        let start = Instant::now();
        let (set, refused) = RuleSet::compile(&loaded, &FieldMapping::default());
        let compile = start.elapsed().as_millis();
        for refusal in loaded.refused.iter().chain(&refused) {
            eprintln!("{refusal}");
        }
        let best = (0..3).map(|_| {
            let start = Instant::now();
            let matches = set.evaluate(&batch);
            (start.elapsed().as_nanos(), matches.hits.iter().map(|h| h.rows.len()).sum::<usize>())
        });
        let (nanos, matches) = best.min().unwrap_or_default();
        println!("{size:>7} {compile:>12} {:>10} {matches:>10}", nanos / events.max(1) as u128);
    }
}
