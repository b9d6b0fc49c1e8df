//! Streaming queries against Flink SQL: Nexmark's, and our own mix, on the same topics in the same run.
//!
//! Every question is first put to both engines over fewer events and the answers are compared; one that is answered
//! differently gets no ratio.

pub mod answers;
pub mod events;
pub mod flink;
pub mod mix;
pub mod ours;
pub mod question;
pub mod report;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use self::{
    answers::Comparison,
    events::NexmarkEvents,
    flink::FlinkConfig,
    ours::{OursConfig, Stored},
    question::Question,
    report::{Measured, NexmarkResults},
};
use crate::{
    fill::{self, FillResult, Topic},
    generator::{Generator, GeneratorConfig},
    report::Host,
    suite::{self, XTASK_BROKERS, XtaskKafka, progress},
};

/// What to run.
#[derive(Debug, Clone)]
pub struct NexmarkConfig {
    /// Kafka's bootstrap servers; none starts one through `cargo xtask` and stops it afterwards.
    pub brokers: Option<String>,
    /// Events of Nexmark.
    pub events: u64,
    /// Events of the mix.
    pub mix_events: u64,
    /// Events that answers are compared on; none compares nothing.
    pub check_events: Option<u64>,
    /// Whether to compare answers and measure nothing.
    pub check_only: bool,
    /// Chooses the events.
    pub seed: u64,
    /// What to ask.
    pub questions: Vec<Question>,
    /// Partitions of the topics.
    pub partitions: i32,
    /// Heap of Flink's JVM.
    pub flink_heap: String,
    /// The engine's binary.
    pub companyos: PathBuf,
    /// The benchmarks' own folder.
    pub benchmarks_dir: PathBuf,
    /// The shipped detections' rules, pipelines/detections/rules.
    pub rules_dir: PathBuf,
    /// Folder for tables and logs.
    pub work_dir: PathBuf,
    /// Folder for Flink's environment and jars.
    pub cache_dir: PathBuf,
    /// Results without their ending: NAME.json and NAME.md are written.
    pub results: PathBuf,
    /// Longest time for any one run.
    pub timeout: Duration,
}

/// Runs everything and writes the report after every part, so that a late failure loses nothing.
pub async fn run(config: &NexmarkConfig) -> Result<NexmarkResults> {
    flink::prepare(&config.benchmarks_dir.join("flink"), &config.cache_dir)?;
    let kafka = match &config.brokers {
        Some(_) => None,
        None => Some(XtaskKafka::start()?),
    };
    let brokers = config.brokers.clone().unwrap_or_else(|| XTASK_BROKERS.to_owned());
    let outcome = Bench { config, brokers, run: chrono::Utc::now().timestamp_millis() }.run().await;
    let stopped = kafka.map_or(Ok(()), XtaskKafka::stop);
    let results = outcome?;
    stopped?;
    Ok(results)
}

struct Bench<'a> {
    config: &'a NexmarkConfig,
    brokers: String,
    /// Tells the topics of this run from those of others.
    run: i64,
}

impl Bench<'_> {
    async fn run(&self) -> Result<NexmarkResults> {
        let config = self.config;
        let mut results = NexmarkResults {
            at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            host: Host::read(),
            optimised: !cfg!(debug_assertions),
            ..NexmarkResults::default()
        };
        let (nexmark, mix): (Vec<Question>, Vec<Question>) =
            config.questions.iter().partition(|q| **q != Question::Mix);
        let warm_up = |events: u64| (events / 10).clamp(50_000, 1_000_000);

        if let Some(events) = config.check_events {
            if !nexmark.is_empty() {
                progress("comparing answers: Nexmark");
                self.fill_nexmark(events, "-check").await?;
                results.checks.extend(self.check_nexmark(&nexmark, events)?);
            }
            if !mix.is_empty() {
                progress("comparing answers: mix");
                self.fill_mix(events, "-check").await?;
                results.checks.extend(self.check_mix(events)?);
            }
            self.save(&mut results)?;
            if config.check_only {
                return Ok(results);
            }
        }
        if !nexmark.is_empty() {
            progress("filling the topics: Nexmark");
            self.fill_nexmark(warm_up(config.events), "-warm").await?;
            results.nexmark = Some(self.fill_nexmark(config.events, "").await?);
            let mut stored = None;
            for question in nexmark {
                let measured = self.nexmark(question, &mut stored)?;
                results.measured.push(measured);
                self.save(&mut results)?;
            }
        }
        if !mix.is_empty() {
            progress("filling the topics: mix");
            self.fill_mix(warm_up(config.mix_events), "-warm").await?;
            results.mix = Some(self.fill_mix(config.mix_events, "").await?);
            results.measured.push(self.mix(config.mix_events)?);
            self.save(&mut results)?;
        }
        Ok(results)
    }

    fn save(&self, results: &mut NexmarkResults) -> Result<()> {
        let name = self.config.results.file_name().context("the results have no name")?.to_string_lossy().into_owned();
        let folder = self.config.results.parent().unwrap_or(Path::new("."));
        suite::write(folder, &format!("{name}.json"), &(serde_json::to_string_pretty(results)? + "\n"))?;
        suite::write(folder, &format!("{name}.md"), &results.to_markdown()?)
    }

    fn suffix(&self, part: &str) -> String {
        format!("-{}{part}", self.run)
    }

    fn topic<'a>(&'a self, name: &'a str) -> Topic<'a> {
        Topic { brokers: &self.brokers, name, partitions: self.config.partitions, compression: "lz4" }
    }

    /// The newest event is a minute old at the start of the run, so that no clock objects to it.
    fn base_ms(&self, length_ms: u64) -> Result<u64> {
        let base = u64::try_from(self.run)?.saturating_sub(length_ms + 60_000);
        Ok(base - base % 10_000)
    }

    async fn fill_nexmark(&self, events: u64, part: &str) -> Result<FillResult> {
        let mut source = NexmarkEvents::new(self.config.seed, self.base_ms(events / events::EVENTS_PER_MS)?);
        let name = format!("nexmark{}", self.suffix(part));
        fill::with(&self.topic(&name), events, |index, out| source.write_event(index, out)).await
    }

    async fn fill_mix(&self, events: u64, part: &str) -> Result<FillResult> {
        let mut filled = FillResult { events: 0, bytes: 0, seconds: 0.0 };
        let (seed, base_ms) = (self.config.seed, self.base_ms(0)?);
        for (stream, count) in mix::shares(events) {
            let name = format!("mix-{stream}{}", self.suffix(part));
            let topic = self.topic(&name);
            let one = match stream {
                companyos_schemas::Stream::SliMetrics => {
                    let mut source = mix::Samples::new(seed, base_ms, count);
                    fill::with(&topic, count, |index, out| source.write_event(index, out)).await?
                }
                companyos_schemas::Stream::SecuritySignals => {
                    let mut source = mix::Signals::new(seed, base_ms, count)?;
                    fill::with(&topic, count, |index, out| source.write_event(index, out)).await?
                }
                _ => {
                    let mut source = Generator::new(GeneratorConfig::new(seed, base_ms));
                    fill::with(&topic, count, |index, out| source.write_event(index, out)).await?
                }
            };
            filled.events += one.events;
            filled.bytes += one.bytes;
            filled.seconds += one.seconds;
        }
        Ok(filled)
    }

    /// Views of all questions in one worker, all SELECTs in one JVM: only the answers matter.
    fn check_nexmark(&self, questions: &[Question], events: u64) -> Result<BTreeMap<String, Comparison>> {
        let dir = self.config.work_dir.join("check");
        let stored = self.ours("check", questions, events, "-check")?.1;
        let answer = dir.join("flink-answers.json");
        flink::answer(&self.flink("check", questions, "-check", None), &answer)?;
        let mut compared = BTreeMap::new();
        for (question, flink) in questions.iter().zip(answers::from_flink(&answer)?) {
            let csv = dir.join(format!("{question}.csv"));
            stored.read(events::TENANT, &self.sql("reads", *question), &csv)?;
            compared.insert(question.to_string(), answers::compare(&answers::from_csv(&csv)?, &flink));
        }
        stored.remove()?;
        Ok(compared)
    }

    fn check_mix(&self, events: u64) -> Result<BTreeMap<String, Comparison>> {
        let dir = self.config.work_dir.join("check-mix");
        let stored = self.ours_mix("check-mix", events, "-check", Duration::from_secs(3))?.1;
        let answer = dir.join("flink-answers.json");
        let mut job = self.flink("check-mix", &[Question::Mix], "-check", None);
        job.queries = vec![self.config.benchmarks_dir.join("nexmark/flink/mix_check.sql")];
        flink::answer(&job, &answer)?;
        let mut compared = BTreeMap::new();
        for (part, flink) in ["adoption", "burn", "rules"].into_iter().zip(answers::from_flink(&answer)?) {
            let query = self.config.benchmarks_dir.join(format!("nexmark/reads/mix_{part}.sql"));
            let mut ours = answers::Rows::new();
            for tenant in ["alpha", "beta"] {
                let csv = dir.join(format!("{part}-{tenant}.csv"));
                stored.read(tenant, &query, &csv)?;
                ours.append(&mut answers::from_csv(&csv)?);
            }
            compared.insert(format!("mix: {part}"), answers::compare(&ours, &flink));
        }
        stored.remove()?;
        Ok(compared)
    }

    /// Questions without a view share one run of the worker: what is stored is the same.
    fn nexmark(&self, question: Question, stored: &mut Option<(ours::OursResult, Stored)>) -> Result<Measured> {
        let name = question.to_string();
        progress(&format!("{name}: ours"));
        let events = self.config.events;
        let answer = self.config.work_dir.join(format!("{name}.parquet"));
        let (ours, read) = if question.has_view() {
            if let Some((_, tables)) = stored.take() {
                tables.remove()?;
            }
            let (ours, tables) = self.ours(&name, &[question], events, "")?;
            let read = tables.read(events::TENANT, &self.sql("reads", question), &answer)?;
            tables.remove()?;
            (ours, Some(read))
        } else {
            if stored.is_none() {
                *stored = Some(self.ours(&name, &[], events, "")?);
            }
            let (ours, tables) = stored.as_ref().context("nothing is stored")?;
            let read = match question {
                // Its answer is the table.
                Question::Q0 => None,
                _ => Some(tables.read(events::TENANT, &self.sql("reads", question), &answer)?),
            };
            (ours.clone(), read)
        };
        if answer.exists() {
            fs::remove_file(&answer)?;
        }
        progress(&format!("{name}: Flink"));
        let flink = flink::run(&self.flink(&name, &[question], "", Some("-warm")))?;
        Ok(Measured { question: name, events, ours, reads: read.into_iter().collect(), flink })
    }

    fn mix(&self, events: u64) -> Result<Measured> {
        progress("mix: ours");
        let (ours, stored) = self.ours_mix("mix", events, "", Duration::ZERO)?;
        let mut reads = Vec::new();
        for part in ["adoption", "burn"] {
            let query = self.config.benchmarks_dir.join(format!("nexmark/reads/mix_{part}.sql"));
            for tenant in ["alpha", "beta"] {
                reads.push(stored.read(tenant, &query, &self.config.work_dir.join("mix.parquet"))?);
            }
        }
        stored.remove()?;
        progress("mix: Flink");
        let flink = flink::run(&self.flink("mix", &[Question::Mix], "", Some("-warm")))?;
        Ok(Measured { question: "mix".to_owned(), events, ours, reads, flink })
    }

    fn ours(&self, name: &str, views: &[Question], events: u64, part: &str) -> Result<(ours::OursResult, Stored)> {
        let views = views.iter().filter(|question| question.has_view());
        ours::run(&OursConfig {
            brokers: self.brokers.clone(),
            topics: vec![("product_events".to_owned(), format!("nexmark{}", self.suffix(part)), events)],
            views: views.map(|question| (self.sql("views", *question), question.to_string())).collect(),
            slo: None,
            detect: false,
            companyos: self.config.companyos.clone(),
            template: self.config.benchmarks_dir.join("nexmark/worker.toml"),
            work_dir: self.config.work_dir.join(name),
            settle: Duration::ZERO,
            timeout: self.config.timeout,
        })
    }

    fn ours_mix(&self, name: &str, events: u64, part: &str, settle: Duration) -> Result<(ours::OursResult, Stored)> {
        let pipelines = self.config.rules_dir.parent().and_then(Path::parent).context("the rules lie elsewhere")?;
        let slo = pipelines.join("slo/checkout-availability.yaml");
        ensure!(slo.exists(), "{} is missing", slo.display());
        let topic = |(stream, count): (companyos_schemas::Stream, u64)| {
            (stream.name().to_owned(), format!("mix-{stream}{}", self.suffix(part)), count)
        };
        ours::run(&OursConfig {
            brokers: self.brokers.clone(),
            topics: mix::shares(events).into_iter().map(topic).collect(),
            views: vec![(pipelines.join("views/feature_adoption.sql"), "feature_adoption".to_owned())],
            slo: Some(slo),
            detect: true,
            companyos: self.config.companyos.clone(),
            template: self.config.benchmarks_dir.join("nexmark/worker.toml"),
            work_dir: self.config.work_dir.join(name),
            settle,
            timeout: self.config.timeout,
        })
    }

    fn flink(&self, name: &str, questions: &[Question], part: &str, warm_up: Option<&str>) -> FlinkConfig {
        let mix = questions.contains(&Question::Mix);
        FlinkConfig {
            brokers: self.brokers.clone(),
            tables: self.config.benchmarks_dir.join("nexmark/flink").join(if mix {
                "mix_tables.sql"
            } else {
                "tables.sql"
            }),
            queries: questions.iter().map(|question| self.sql("flink", *question)).collect(),
            rules: mix.then(|| self.config.rules_dir.clone()),
            suffix: self.suffix(part),
            warm_up_suffix: warm_up.map(|part| self.suffix(part)),
            heap: self.config.flink_heap.clone(),
            flink_dir: self.config.benchmarks_dir.join("flink"),
            cache_dir: self.config.cache_dir.clone(),
            work_dir: self.config.work_dir.join(name),
            timeout: self.config.timeout,
        }
    }

    fn sql(&self, kind: &str, question: Question) -> PathBuf {
        self.config.benchmarks_dir.join("nexmark").join(kind).join(format!("{question}.sql"))
    }
}
