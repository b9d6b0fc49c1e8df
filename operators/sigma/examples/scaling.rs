//! What a rule costs as the number of rules grows, beside the same rules evaluated one at a time.
//!
//! `cargo run --release -p companyos-sigma --example scaling -- [EVENTS] [RULES...]`. Rules and events are generated
//! from fixed seeds: rules ask for a common program and something of their own, as published rules for process
//! creation do; events are mostly unlike one another, and one in two thousand is made for some rule to find. Every
//! rule applies to every event. Both ways have to find the same, or the run fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, StringArray};
use companyos_sigma::{EventBatch, FieldMapping, Loaded, RuleSet};

/// Rows of a batch, as many as the operator is given at once.
const BATCH: usize = 8192;
/// One event in so many is one that a rule is for.
const PLANTED: usize = 2000;
/// Rule-events that are tried one rule at a time; more take too long.
const SINGLE: usize = 60_000_000;

const PROGRAMS: [&str; 24] = [
    "powershell.exe",
    "cmd.exe",
    "rundll32.exe",
    "svchost.exe",
    "reg.exe",
    "wscript.exe",
    "regsvr32.exe",
    "mshta.exe",
    "schtasks.exe",
    "net.exe",
    "certutil.exe",
    "wmic.exe",
    "msiexec.exe",
    "explorer.exe",
    "curl.exe",
    "python.exe",
    "chrome.exe",
    "winword.exe",
    "excel.exe",
    "taskhostw.exe",
    "conhost.exe",
    "bitsadmin.exe",
    "git.exe",
    "node.exe",
];
const FLAGS: [&str; 16] = [
    "-nop",
    "/c",
    "-File",
    "--type=renderer",
    "/s",
    "-w hidden",
    "--lang=en",
    "/query",
    "-k netsvcs",
    "-p",
    "/tn",
    "--field-trial-handle",
    "-Command",
    "start",
    "-o",
    "-u",
];
const FOLDERS: [&str; 8] = [
    "C:\\Windows\\System32\\",
    "C:\\Program Files\\",
    "C:\\Users\\ann\\AppData\\Local\\Temp\\",
    "C:\\ProgramData\\",
    "C:\\Windows\\SysWOW64\\",
    "C:\\Program Files (x86)\\",
    "C:\\Users\\Public\\",
    "C:\\Windows\\",
];

/// Of the rules; with this one the first rule is of the commonest form.
const SEED: u64 = 1;

/// Splitmix64: numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.roll() % n as u64) as usize
    }

    /// Few are met often and many seldom, as programs are.
    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        let limit = self.below(all.len()) + 1;
        all[self.below(limit)]
    }

    fn word(&mut self) -> String {
        let syllables = ["ka", "ro", "mi", "ten", "su", "vel", "dor", "pix", "ala", "qu", "ber", "net"];
        (0..3 + self.below(2)).map(|_| syllables[self.below(12)]).collect()
    }
}

/// What only rule `n` asks for.
fn own(n: usize, part: usize) -> String {
    let mut dice = Dice((n * 7 + part) as u64 ^ 0x5165);
    format!("{}{}", dice.word(), dice.below(1000))
}

fn rule(n: usize) -> String {
    let mut dice = Dice(n as u64 ^ SEED);
    let (a, b, c) = (own(n, 0), own(n, 1), own(n, 2));
    let program = dice.one_of(&PROGRAMS);
    let parent = dice.one_of(&PROGRAMS);
    let flag = dice.one_of(&FLAGS);
    let selection = match dice.below(20) {
        0..=5 => format!(
            "Image|endswith: '\\{program}'\n    CommandLine|contains:\n      - '{a}'\n      - ' /{b}'\n      - '{c}.dll'"
        ),
        6..=8 => {
            format!("Image|endswith: '\\{program}'\n    CommandLine|contains|all:\n      - ' {flag}'\n      - '{a}'")
        }
        9..=10 => format!("CommandLine|contains|all:\n      - ' {flag} '\n      - '{a}'\n      - '{b}'"),
        11 => format!("CommandLine|re: '(?i){a}\\s+[a-z]{{2,5}}=.*{b}'"),
        12 => format!("Image|endswith: '\\{program}'\n    CommandLine|re: '\\b{a}[0-9]{{1,4}}\\b'"),
        13..=14 => format!("TargetObject|contains: '\\{a}\\'\n    TargetObject|endswith: '\\{b}'"),
        15 => format!(
            "ParentImage|endswith: '\\{parent}'\n    Image|endswith: '\\{program}'\n    CommandLine|startswith: '{a}'"
        ),
        16 => format!("TargetFilename|startswith: 'C:\\Users\\'\n    TargetFilename|endswith: '\\{a}.ps1'"),
        17 => format!("OriginalFileName: '{a}.exe'"),
        18 => format!(
            "DestinationHostname|endswith: '.{a}.com'\n    DestinationIp|cidr: '{}.{}.0.0/16'",
            n % 200,
            n % 250
        ),
        _ => format!("CommandLine|windash|contains: ' -{a} '\n    EventID: 1"),
    };
    let filter = if n.is_multiple_of(3) {
        "\n  filter_main_system:\n    User|contains: 'SYSTEM'\n    ParentImage|endswith: '\\svchost.exe'\n  condition: selection and not 1 of filter_main_*"
    } else {
        "\n  condition: selection"
    };
    format!("title: rule {n}\nlogsource: {{}}\ndetection:\n  selection:\n    {selection}{filter}\n")
}

/// A batch of events; `first` numbers them across batches.
fn batch(first: usize, rows: usize, rules: usize) -> EventBatch {
    let mut columns: Vec<Vec<Option<String>>> = (0..8).map(|_| Vec::with_capacity(rows)).collect();
    let mut ids = Vec::with_capacity(rows);
    for at in first..first + rows {
        let mut dice = Dice(at as u64 ^ 0xe7e7_0000);
        let (mut program, parent) = (dice.one_of(&PROGRAMS), dice.one_of(&PROGRAMS));
        let planted = at.is_multiple_of(PLANTED).then(|| dice.below(rules));
        if let Some(n) = planted {
            program = Dice(n as u64 ^ SEED).one_of(&PROGRAMS);
        }
        let folder = dice.one_of(&FOLDERS);
        let mut line = format!("\"{folder}{program}\"");
        for _ in 0..3 + dice.below(9) {
            match dice.below(3) {
                0 => line += &format!(" {}", dice.one_of(&FLAGS)),
                1 => line += &format!(" {}={}", dice.word(), dice.below(100_000)),
                _ => line += &format!(" {}\\{}.{}", dice.one_of(&FOLDERS), dice.word(), dice.word()),
            }
        }
        if let Some(n) = planted {
            // For those rules that want nothing but this program and words in the command line.
            line += &format!(" {} {} {}.dll", own(n, 0), own(n, 1), own(n, 2));
        }
        let kind = dice.below(10);
        let some = |wanted: bool, text: String| wanted.then_some(text);
        let row = [
            Some(format!("{folder}{program}")),
            Some(format!("C:\\Windows\\System32\\{parent}")),
            Some(line),
            Some(if kind < 4 { "NT AUTHORITY\\SYSTEM".to_owned() } else { format!("CORP\\user{}", dice.below(500)) }),
            Some(program.to_owned()),
            some(kind == 1, format!("HKLM\\SOFTWARE\\{}\\{}\\{}", dice.word(), dice.word(), dice.below(1000))),
            some(kind == 2, format!("{}{}.{}", dice.one_of(&FOLDERS), dice.word(), "tmp")),
            some(kind == 3, format!("www.{}.net", dice.word())),
        ];
        columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        ids.push([1, 11, 12, 3, 1, 1, 1, 7, 1, 1][kind]);
    }
    let names = [
        "Image",
        "ParentImage",
        "CommandLine",
        "User",
        "OriginalFileName",
        "TargetObject",
        "TargetFilename",
        "DestinationHostname",
    ];
    let mut events = EventBatch::new(rows).with("EventID", Arc::new(Int64Array::from(ids)));
    for (name, column) in names.into_iter().zip(columns) {
        events = events.with(name, Arc::new(StringArray::from(column)) as ArrayRef);
    }
    events
}

/// Time on a processor of this thread, or by the clock where the system does not say.
fn cpu(since: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = told.and_then(|text| text.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| since.elapsed(), Duration::from_nanos)
}

fn compile(rules: impl Iterator<Item = usize>) -> RuleSet {
    let text: Vec<String> = rules.map(rule).collect();
    let loaded = Loaded::from_text("generated", &text.join("---\n"));
    let (set, refused) = RuleSet::compile(&loaded, &FieldMapping::default());
    let broken: Vec<String> = loaded.refused.iter().chain(&refused).map(ToString::to_string).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    set
}

/// Seconds on a processor, and how many rows were matched.
fn run(sets: &[RuleSet], batches: &[EventBatch], started: Instant) -> (f64, usize) {
    let before = cpu(started);
    let hits = batches.iter().flat_map(|batch| sets.iter().flat_map(|set| set.evaluate(batch).hits));
    let matches = hits.map(|hit| hit.rows.len()).sum();
    ((cpu(started) - before).as_secs_f64(), matches)
}

fn main() {
    let started = Instant::now();
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    let events = numbers.first().copied().unwrap_or(400_000).max(1);
    let sizes = if numbers.len() > 1 { numbers[1..].to_vec() } else { vec![1, 10, 100, 1000, 3000] };
    let most = sizes.iter().copied().max().unwrap_or(1);
    let batches: Vec<EventBatch> =
        (0..events).step_by(BATCH).map(|first| batch(first, BATCH.min(events - first), most)).collect();
    println!("{events} events in batches of {BATCH}; the best of three runs; one at a time on fewer events");
    println!(
        "{:>6} {:>10} {:>9} {:>10} {:>12} {:>8} | {:>12} {:>10} {:>8}",
        "rules", "compile ms", "matches", "events/s", "CPU s/1M", "x 1 rule", "one by one/s", "CPU s/1M", "x slower"
    );
    let mut first = None;
    for size in sizes {
        let compiling = Instant::now();
        let set = [compile(0..size)];
        let compile_ms = compiling.elapsed().as_millis();
        let best = (0..3).map(|_| run(&set, &batches, started)).min_by(|a, b| a.0.total_cmp(&b.0));
        let (seconds, matches) = best.unwrap_or_default();
        let per_million = seconds / events as f64 * 1e6;
        let ratio = per_million / *first.get_or_insert(per_million);
        let fewer = &batches[..(SINGLE / size / BATCH).clamp(1, batches.len())];
        let rows: usize = fewer.iter().map(|b| b.rows).sum();
        let alone: Vec<RuleSet> = (0..size).map(|n| compile(n..n + 1)).collect();
        let (single, found) = run(&alone, fewer, started);
        assert_eq!(found, run(&set, fewer, started).1, "both ways find the same");
        let single = single / rows as f64 * 1e6;
        println!(
            "{size:>6} {compile_ms:>10} {matches:>9} {:>10.0} {per_million:>12.2} {ratio:>8.2} | {:>12.0} {single:>10.1} {:>8.1}",
            1e6 / per_million,
            1e6 / single,
            single / per_million
        );
    }
}
