//! How fast clean and dirty payloads are scanned and masked, on one core.
//!
//! `cargo run --release -p companyos-dlp --example throughput`

use std::{hint::black_box, time::Instant};

use companyos_dlp::{Shape, is_clean, redact_masked};

const SMALL: &str = r#"{"page":"/reports/weekly","ms":182,"variant":"b","items":[3,14,15],"ok":true}"#;
const LARGE: &str = r#"{"page":"/reports/weekly","ms":182,"variant":"b","session":"7f3c9a12-44be-4d0a-9a77-0c5e1f2ab310","steps":[{"name":"open","at":"2026-11-20T08:15:30.123Z"},{"name":"filter","at":"2026-11-20T08:15:42.881Z"},{"name":"export","at":"2026-11-20T08:16:01.004Z"}],"sha":"9b74c9897bac770ffc029102a200c5de3f1c2a4b","rows":18234,"amount":129.95,"note":"exported the weekly report for the board, took longer than usual"}"#;
const DIRTY: &str =
    r#"{"page":"/signup","email":"ann.lee@example.com","phone":"+1 415 555 2671","note":"card 4111 1111 1111 1111"}"#;

/// The fastest of many short runs: what else the machine does must not count.
fn measure(name: &str, text: &str, each: impl Fn(&str)) {
    let rounds = 400_000 / text.len();
    let run = || {
        let start = Instant::now();
        (0..rounds).for_each(|_| each(black_box(text)));
        start.elapsed().as_secs_f64()
    };
    let seconds = (0..400).map(|_| run()).fold(f64::INFINITY, f64::min);
    let (ns, rate) = (seconds / rounds as f64 * 1e9, (text.len() * rounds) as f64 / seconds / 1e6);
    println!("{name:<28} {:>4} bytes {ns:>9.1} ns {rate:>9.0} MB/s", text.len());
}

fn main() {
    for (name, text) in
        [("clean, small", SMALL), ("clean, large", LARGE), ("user id", "u-48213"), ("client", "web/4.2.1 (linux)")]
    {
        let mut findings = Vec::new();
        assert!(is_clean(Shape::Json, text, &mut findings), "{name}: {findings:?}");
        measure(name, text, |text| {
            black_box(is_clean(Shape::Json, text, &mut Vec::new()));
        });
    }
    measure("three findings, masked", DIRTY, |text| {
        black_box(redact_masked(text));
    });
}
