//! What a run measured against Flink, as JSON for machines and Markdown for people.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{
    answers::Comparison,
    flink::FlinkResult,
    ours::{OursResult, ReadResult},
    question::Question,
};
use crate::{fill::FillResult, report::Host};

/// Everything one run measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct NexmarkResults {
    /// When the run began, RFC 3339.
    pub at: String,
    /// The machine.
    pub host: Host,
    /// Whether this binary was built with optimisation.
    pub optimised: bool,
    /// Nexmark's topic.
    pub nexmark: Option<FillResult>,
    /// The mix's topics together.
    pub mix: Option<FillResult>,
    /// Answers compared, by question (or part of the mix).
    pub checks: BTreeMap<String, Comparison>,
    /// By question.
    pub measured: Vec<Measured>,
}

/// One question put to both.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// Its name.
    pub question: String,
    /// Events it was asked of.
    pub events: u64,
    /// The worker.
    pub ours: OursResult,
    /// Queries of the answer, once at the end.
    pub reads: Vec<ReadResult>,
    /// Flink.
    pub flink: FlinkResult,
}

impl Measured {
    /// Wall time of worker and queries.
    pub fn our_seconds(&self) -> f64 {
        self.ours.seconds + self.reads.iter().fold(0.0, |sum, read| sum + read.seconds)
    }

    /// CPU seconds of worker and queries, their starts included, per million events.
    pub fn our_cpu_s_per_million(&self) -> f64 {
        (self.ours.cpu_s + self.reads.iter().fold(0.0, |sum, read| sum + read.cpu_s)) / self.millions()
    }

    /// CPU seconds of Flink's warm run per million events.
    pub fn flink_cpu_s_per_million(&self) -> f64 {
        self.flink.cpu_s / self.millions()
    }

    /// The larger of the worker's and the queries' peaks, in bytes: they did not run at the same time.
    pub fn our_peak_rss_bytes(&self) -> u64 {
        self.reads.iter().map(|read| read.peak_rss_bytes).fold(self.ours.peak_rss_bytes, u64::max)
    }

    fn millions(&self) -> f64 {
        self.events as f64 / 1e6
    }
}

const CPU_GOAL: f64 = 3.0;
const MEMORY_GOAL: f64 = 0.25;

impl NexmarkResults {
    /// Whether a question's answers were compared and are the same; none if they were not compared.
    pub fn agrees(&self, question: &str) -> Option<bool> {
        let part_of =
            |name: &String| *name == question || name.strip_prefix(question).is_some_and(|r| r.starts_with(':'));
        let mut parts =
            self.checks.iter().filter(|(name, _)| part_of(name)).map(|(_, check)| check.agrees()).peekable();
        parts.peek()?;
        Some(parts.all(|agrees| agrees))
    }

    /// The run as Markdown.
    pub fn to_markdown(&self) -> Result<String> {
        let mut md = String::new();
        let memory = self.host.memory_bytes as f64 / f64::from(1 << 30);
        writeln!(md, "# Streaming queries against Flink, {}\n", self.at)?;
        writeln!(md, "{} cores ({}), {memory:.0} GiB of memory.", self.host.cores, self.host.cpu)?;
        if !self.optimised {
            writeln!(md, "\n**Built without optimisation: these figures say nothing about speed.**")?;
        }
        for (what, fill) in [("Nexmark", &self.nexmark), ("mix", &self.mix)] {
            if let Some(fill) = fill {
                let average = fill.bytes as f64 / fill.events as f64;
                writeln!(md, "\n{what}: {} events of {average:.0} bytes on average.", fill.events)?;
            }
        }
        self.write_ratios(&mut md)?;
        self.write_figures(&mut md)?;
        self.write_checks(&mut md)?;
        Ok(md)
    }

    fn write_ratios(&self, md: &mut String) -> Result<()> {
        if self.measured.is_empty() {
            return Ok(());
        }
        writeln!(md, "\n## Ratios\n")?;
        writeln!(md, "Goals: CPU at least {CPU_GOAL}, memory at most {MEMORY_GOAL}.\n")?;
        writeln!(
            md,
            "| | Flink ÷ ours, CPU s per event | reached | ours ÷ Flink, events/s | ours ÷ Flink, peak RSS | reached |"
        )?;
        writeln!(md, "| --- | ---: | --- | ---: | ---: | --- |")?;
        let word = |reached: bool| if reached { "yes" } else { "no" };
        for m in &self.measured {
            if self.agrees(&m.question) == Some(false) {
                writeln!(md, "| {} | answers differ | | | | |", m.question)?;
                continue;
            }
            let cpu = m.flink_cpu_s_per_million() / m.our_cpu_s_per_million();
            let memory = m.our_peak_rss_bytes() as f64 / m.flink.peak_rss_bytes as f64;
            let speed = m.flink.seconds / m.our_seconds();
            writeln!(
                md,
                "| {} | {cpu:.2} | {} | {speed:.2} | {memory:.2} | {} |",
                m.question,
                word(cpu >= CPU_GOAL),
                word(memory <= MEMORY_GOAL),
            )?;
        }
        Ok(())
    }

    fn write_figures(&self, md: &mut String) -> Result<()> {
        let Some(first) = self.measured.first() else { return Ok(()) };
        writeln!(md, "\n## Figures\n")?;
        writeln!(
            md,
            "Ours: worker from its start, and one query of the answer. Flink {} ({} heap): the second of two runs in one \
             JVM, neither start nor warm-up counted.\n",
            first.flink.version, first.flink.heap,
        )?;
        writeln!(
            md,
            "| | events/s, ours | Flink | CPU s per million, ours | of that reading | Flink | peak RSS MiB, ours | Flink |"
        )?;
        writeln!(md, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for m in &self.measured {
            let events = m.events as f64;
            let reading = m.reads.iter().fold(0.0, |sum, read| sum + read.cpu_s) / m.millions();
            writeln!(
                md,
                "| {} | {:.0} | {:.0} | {:.2} | {reading:.2} | {:.2} | {:.0} | {:.0} |",
                m.question,
                events / m.our_seconds(),
                events / m.flink.seconds,
                m.our_cpu_s_per_million(),
                m.flink_cpu_s_per_million(),
                mib(m.our_peak_rss_bytes()),
                mib(m.flink.peak_rss_bytes),
            )?;
        }
        writeln!(md)?;
        for m in &self.measured {
            let rules = if m.flink.rules > 0 { format!(" ({} rules)", m.flink.rules) } else { String::new() };
            writeln!(md, "- {}: {}{rules}.", m.question, Question::about(&m.question))?;
        }
        Ok(())
    }

    fn write_checks(&self, md: &mut String) -> Result<()> {
        if self.checks.is_empty() {
            return Ok(());
        }
        writeln!(md, "\n## Answers compared\n\n| | rows, ours | Flink | different |\n| --- | ---: | ---: | ---: |")?;
        for (name, check) in &self.checks {
            writeln!(md, "| {name} | {} | {} | {} |", check.ours, check.flink, check.different)?;
        }
        for (name, check) in self.checks.iter().filter(|(_, check)| !check.agrees()) {
            writeln!(md, "\n{name}: {}", check.examples.join("; "))?;
        }
        Ok(())
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(different: usize) -> NexmarkResults {
        let check = Comparison { ours: 5, flink: 5, different, examples: Vec::new() };
        let ours = OursResult { seconds: 9.0, stored_s: 8.0, cpu_s: 11.0, peak_rss_bytes: 200 << 20 };
        let read = ReadResult { seconds: 1.0, cpu_s: 1.0, peak_rss_bytes: 300 << 20 };
        let flink = FlinkResult {
            version: "2".into(),
            seconds: 20.0,
            cpu_s: 48.0,
            before_cpu_s: 20.0,
            whole_cpu_s: 70.0,
            peak_rss_bytes: 1000 << 20,
            heap: "4g".into(),
            rules: 0,
        };
        let measured = Measured { question: "q5".into(), events: 2_000_000, ours, reads: vec![read], flink };
        NexmarkResults { checks: [("q5".to_owned(), check)].into(), measured: vec![measured], ..Default::default() }
    }

    #[test]
    fn reading_is_charged_to_us_and_goals_are_judged() {
        let md = results(0).to_markdown().unwrap();
        assert!(md.contains("| q5 | 4.00 | yes | 2.00 | 0.30 | no |"), "{md}");
        assert!(md.contains("| q5 | 200000 | 100000 | 6.00 | 0.50 | 24.00 | 300 | 1000 |"), "{md}");
    }

    #[test]
    fn a_question_answered_differently_gets_no_ratio() {
        let md = results(2).to_markdown().unwrap();
        assert!(md.contains("| q5 | answers differ |") && !md.contains("| 4.00 | yes |"), "{md}");
    }
}
