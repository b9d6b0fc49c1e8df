//! The results of one run, as JSON for machines and Markdown for people.

use std::fmt::Write as _;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{bare::BareResult, e2e::E2eResult, fill::FillResult, freshness::FreshnessResult, spark::SparkResult};

/// Everything one run measured; what was skipped is absent.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Results {
    /// When the run began, RFC 3339.
    pub at: String,
    /// The machine.
    pub host: Host,
    /// Whether this binary was built with optimisation; figures of one that was not mean nothing.
    pub optimised: bool,
    /// The topic everything was measured on.
    pub fill: Option<FillResult>,
    /// Bare limits, by decoder.
    pub bare: Vec<BareResult>,
    /// The engine without and with DLP.
    pub e2e: Vec<E2eResult>,
    /// Spark on the same topic.
    pub spark: Option<SparkResult>,
    /// Produce to visible.
    pub freshness: Option<FreshnessResult>,
    /// What the above says, filled in by [`Results::compare`].
    pub ratios: Vec<Ratio>,
}

/// The machine a run was made on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Host {
    /// CPU model, as the kernel names it.
    pub cpu: String,
    /// Cores.
    pub cores: usize,
    /// Memory, in bytes.
    pub memory_bytes: u64,
}

/// A figure with the value it should reach.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ratio {
    /// What it is.
    pub name: String,
    /// What it came to.
    pub value: f64,
    /// What it should be, if a goal was set.
    pub reach: Option<Reach>,
}

/// A goal.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Ratio {
    /// Whether the goal was reached; none without a goal.
    pub fn reached(&self) -> Option<bool> {
        self.reach.map(|reach| match reach {
            Reach::AtLeast(goal) => self.value >= goal,
            Reach::AtMost(goal) => self.value <= goal,
        })
    }
}

impl Host {
    /// This machine.
    pub fn read() -> Self {
        let file = |path| std::fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            line.trim_start_matches([' ', '\t', ':']).to_owned()
        };
        let memory = after(&file("/proc/meminfo"), "MemTotal");
        Self {
            cpu: after(&file("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: memory.trim_end_matches(" kB").parse::<u64>().unwrap_or_default() * 1024,
        }
    }
}

impl Results {
    /// The cheapest decoder with its writer.
    pub fn bare_limit(&self) -> Option<&BareResult> {
        self.bare.iter().min_by(|a, b| a.cpu_s_per_million().total_cmp(&b.cpu_s_per_million()))
    }

    /// Sets the ratios from what was measured.
    pub fn compare(&mut self) {
        let mut ratios = Vec::new();
        let mut add = |name: String, value: f64, reach| ratios.push(Ratio { name, value, reach });
        for ours in &self.e2e {
            let (dlp, goal) = if ours.dlp { ("DLP on", 0.4) } else { ("DLP off", 0.6) };
            if let Some(bare) = self.bare_limit() {
                let value = bare.cpu_s_per_million() / ours.cpu_s_per_million;
                add(format!("bare limit ÷ ours, CPU, {dlp}"), value, Some(Reach::AtLeast(goal)));
            }
            if let Some(spark) = &self.spark {
                let name = |what: &str| format!("{what}, {dlp}");
                add(
                    name("ours ÷ Spark, events/s, both from process start"),
                    ours.events_per_s / spark.events_per_s,
                    Some(Reach::AtLeast(5.0)),
                );
                add(
                    name("ours ÷ Spark, events/s, both warmed up"),
                    ours.steady_events_per_s / spark.steady_events_per_s,
                    Some(Reach::AtLeast(5.0)),
                );
                add(name("Spark ÷ ours, CPU"), spark.cpu_s_per_million / ours.cpu_s_per_million, None);
                if let Some(steady) = spark.steady_cpu_s_per_million {
                    add(name("Spark warmed up ÷ ours, CPU"), steady / ours.cpu_s_per_million, None);
                }
                let rss = spark.peak_rss_bytes as f64 / ours.peak_rss_bytes as f64;
                add(name("Spark ÷ ours, peak RSS"), rss, None);
            }
            let name = format!("ours, peak RSS in MiB, {dlp}");
            add(name, mib(ours.peak_rss_bytes), Some(Reach::AtMost(512.0)));
        }
        let decode = |name: &str| self.bare.iter().find(|b| b.decoder == name).map(BareResult::decode_mb_per_s);
        if let Some(arrow_json) = decode("arrow-json") {
            for other in self.bare.iter().filter(|b| b.decoder != "arrow-json") {
                add(format!("{} ÷ arrow-json, decode MB/s", other.decoder), other.decode_mb_per_s() / arrow_json, None);
            }
        }
        if let Some(freshness) = &self.freshness {
            let name = "produce to visible in SQL, p99 in seconds".to_owned();
            add(name, freshness.p99_ms / 1e3, Some(Reach::AtMost(2.0)));
        }
        self.ratios = ratios;
    }

    /// The run as Markdown.
    pub fn to_markdown(&self) -> Result<String> {
        let mut md = String::new();
        let host = &self.host;
        let memory = host.memory_bytes as f64 / f64::from(1 << 30);
        writeln!(md, "# Benchmark of {}\n", self.at)?;
        writeln!(md, "{} cores ({}), {memory:.0} GiB of memory.", host.cores, host.cpu)?;
        if !self.optimised {
            writeln!(md, "\n**Built without optimisation: these figures say nothing about speed.**")?;
        }
        if let Some(fill) = &self.fill {
            let average = fill.bytes as f64 / fill.events as f64;
            writeln!(md, "\n{} events of {average:.0} bytes on average.", fill.events)?;
        }
        self.write_ratios(&mut md)?;
        self.write_end_to_end(&mut md)?;
        self.write_bare(&mut md)?;
        self.write_freshness(&mut md)?;
        Ok(md)
    }

    fn write_ratios(&self, md: &mut String) -> Result<()> {
        if self.ratios.is_empty() {
            return Ok(());
        }
        writeln!(md, "\n## Ratios\n\n| Figure | Value | Goal | Reached |\n| --- | ---: | ---: | --- |")?;
        for ratio in &self.ratios {
            let goal = match ratio.reach {
                Some(Reach::AtLeast(goal)) => format!("≥ {goal}"),
                Some(Reach::AtMost(goal)) => format!("≤ {goal}"),
                None => String::new(),
            };
            let reached = ratio.reached().map_or("", |reached| if reached { "yes" } else { "no" });
            writeln!(md, "| {} | {:.2} | {goal} | {reached} |", ratio.name, ratio.value)?;
        }
        Ok(())
    }

    fn write_end_to_end(&self, md: &mut String) -> Result<()> {
        if self.e2e.is_empty() && self.spark.is_none() {
            return Ok(());
        }
        writeln!(md, "\n## Kafka to Delta\n")?;
        writeln!(md, "| | events/s | warmed up | MB/s | CPU s per million | warmed up | peak RSS, MiB |")?;
        writeln!(md, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for run in &self.e2e {
            writeln!(
                md,
                "| CompanyOS, DLP {} | {:.0} | {:.0} | {:.1} | {:.2} | | {:.0} |",
                if run.dlp { "on" } else { "off" },
                run.events_per_s,
                run.steady_events_per_s,
                run.mb_per_s,
                run.cpu_s_per_million,
                mib(run.peak_rss_bytes),
            )?;
        }
        if let Some(run) = &self.spark {
            writeln!(
                md,
                "| Spark {} | {:.0} | {:.0} | {:.1} | {:.2} | {} | {:.0} |",
                run.version,
                run.events_per_s,
                run.steady_events_per_s,
                run.mb_per_s,
                run.cpu_s_per_million,
                run.steady_cpu_s_per_million.map_or_else(String::new, |s| format!("{s:.2}")),
                mib(run.peak_rss_bytes),
            )?;
        }
        if let Some(bare) = self.bare_limit() {
            let name = format!("Bare limit ({} and the Parquet writer)", bare.decoder);
            writeln!(md, "| {name} | | | | {:.2} | | |", bare.cpu_s_per_million())?;
        }
        Ok(())
    }

    fn write_bare(&self, md: &mut String) -> Result<()> {
        if self.bare.is_empty() {
            return Ok(());
        }
        writeln!(md, "\n## Decode and write, one core\n")?;
        writeln!(md, "| Decoder | decode MB/s | decode CPU s/M | write CPU s/M | both | Parquet bytes per event |")?;
        writeln!(md, "| --- | ---: | ---: | ---: | ---: | ---: |")?;
        for bare in &self.bare {
            writeln!(
                md,
                "| {} | {:.0} | {:.2} | {:.2} | {:.2} | {:.0} |",
                bare.decoder,
                bare.decode_mb_per_s(),
                bare.decode_cpu_s_per_million(),
                bare.write_cpu_s_per_million(),
                bare.cpu_s_per_million(),
                bare.output_bytes as f64 / bare.events as f64,
            )?;
        }
        Ok(())
    }

    fn write_freshness(&self, md: &mut String) -> Result<()> {
        let Some(f) = &self.freshness else { return Ok(()) };
        writeln!(md, "\n## Freshness\n")?;
        writeln!(
            md,
            "{} events at {:.0} a second, produce to visible in SQL: p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, \
             max {:.0} ms. Asked every {:.0} ms (p99 {:.0} ms), which is by how much these may be too high.",
            f.events, f.events_per_s, f.p50_ms, f.p90_ms, f.p99_ms, f.max_ms, f.poll_p50_ms, f.poll_p99_ms,
        )?;
        Ok(())
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results() -> Results {
        let bare = |decoder: &str, decode_cpu_s| BareResult {
            decoder: decoder.into(),
            events: 1_000_000,
            input_bytes: 400_000_000,
            output_bytes: 100_000_000,
            decode_cpu_s,
            write_cpu_s: 0.5,
        };
        let e2e = E2eResult {
            dlp: true,
            rows: 1_000_000,
            quarantined: 0,
            seconds: 4.0,
            first_commit_s: 1.0,
            events_per_s: 250_000.0,
            steady_events_per_s: 300_000.0,
            mb_per_s: 100.0,
            cpu_s: 3.0,
            cpu_s_per_million: 3.0,
            peak_rss_bytes: 600 << 20,
            commits: 4,
            files: 8,
        };
        Results { bare: vec![bare("arrow-json", 1.0), bare("sonic-rs", 0.75)], e2e: vec![e2e], ..Results::default() }
    }

    #[test]
    fn ratios_take_the_cheapest_bare_limit_and_judge_goals() {
        let mut results = results();
        results.compare();
        let find = |name: &str| results.ratios.iter().find(|r| r.name.contains(name)).unwrap();
        assert!((find("bare limit").value - 1.25 / 3.0).abs() < 1e-9);
        assert_eq!(find("bare limit").reached(), Some(true));
        assert_eq!(find("peak RSS in MiB").reached(), Some(false));
        assert!((find("sonic-rs ÷ arrow-json").value - 1.0 / 0.75).abs() < 1e-9);
        assert!(!results.ratios.iter().any(|r| r.name.contains("Spark")), "nothing is made up for what did not run");
    }

    #[test]
    fn results_survive_json_and_markdown_shows_them() {
        let mut results = results();
        results.compare();
        let text = serde_json::to_string(&results).unwrap();
        let back: Results = serde_json::from_str(&text).unwrap();
        let md = back.to_markdown().unwrap();
        assert!(md.contains("| CompanyOS, DLP on | 250000 | 300000 | 100.0 | 3.00 |"), "{md}");
        assert!(md.contains("without optimisation"), "{md}");
        assert!(md.contains("| bare limit ÷ ours, CPU, DLP on | 0.42 | ≥ 0.4 | yes |"), "{md}");
    }
}
