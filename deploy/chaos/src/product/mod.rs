//! A deployment of real `companyos` processes for one run: workers, the query server and a broker, in
//! a folder that stays if the run fails.

mod broker;
mod events;
mod process;
mod sql;
mod topic;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use companyos_schemas::{Stream, access::token_digest, tenancy::Tenancy};

use broker::Broker;
pub(crate) use events::{Producer, product_event};
pub(crate) use process::Process;
pub(crate) use sql::Row;

/// What every run takes.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Repeats the same events and victims; random if none is given
    #[arg(long)]
    seed: Option<u64>,
    /// The `companyos` to run; the one beside this program if none is given
    #[arg(long)]
    companyos: Option<PathBuf>,
    /// Keep tables and logs in this folder; a temporary one that is removed on success if none
    #[arg(long)]
    data: Option<PathBuf>,
}

/// What a run needs of the deployment.
pub(crate) struct Plan<'a> {
    pub(crate) tenants: &'a [&'a str],
    /// Streams whose pipelines the workers run.
    pub(crate) streams: &'a [Stream],
    /// Apache Kafka, where workers are killed: the embedded broker's groups do not always get over the
    /// death of a member.
    pub(crate) kafka: bool,
    /// More sections of the configuration.
    pub(crate) config: String,
}

/// The region all events are in.
pub(crate) const REGION: &str = "eu";

/// See the module.
pub(crate) struct Deployment {
    pub(crate) seed: u64,
    pub(crate) random: fastrand::Rng,
    pub(crate) bootstrap: String,
    pub(crate) tenancy: Tenancy,
    pub(crate) workers: Vec<Process>,
    binary: PathBuf,
    folder: PathBuf,
    temporary: Option<tempfile::TempDir>,
    config: PathBuf,
    tokens: BTreeMap<String, String>,
    url: String,
    client: reqwest::Client,
    started: usize,
    maintenance: Option<Process>,
    broker: Broker,
    query: Process,
}

impl Deployment {
    /// Starts broker and query server.
    pub(crate) async fn start(common: &Common, plan: Plan<'_>) -> Result<Self> {
        let seed = common.seed.unwrap_or_else(|| fastrand::u64(..));
        println!("seed {seed}");
        let binary = match &common.companyos {
            Some(path) => path.canonicalize().with_context(|| path.display().to_string())?,
            None => std::env::current_exe()?.with_file_name("companyos"),
        };
        if !binary.is_file() {
            bail!("there is no {}: build the workspace, or give --companyos", binary.display());
        }
        let (folder, temporary) = match &common.data {
            Some(dir) => {
                std::fs::create_dir_all(dir)?;
                (dir.canonicalize()?, None)
            }
            None => {
                let dir = tempfile::Builder::new().prefix("companyos-chaos-").tempdir()?;
                (dir.path().to_owned(), Some(dir))
            }
        };
        let mut broker = Broker::start(plan.kafka, &binary, &folder).await?;
        let bootstrap = broker.bootstrap().await?;
        let tokens: BTreeMap<String, String> = plan
            .tenants
            .iter()
            .map(|tenant| ((*tenant).to_owned(), format!("chaos-token-of-{tenant}-{seed:016x}")))
            .collect();
        let config = folder.join("companyos.toml");
        let text = configuration(&folder, &bootstrap, plan.streams, &tokens)? + &plan.config;
        std::fs::write(&config, text)?;
        let mut query =
            Process::start(&binary, &folder, "query", &["query".as_ref(), "--config".as_ref(), config.as_os_str()])?;
        let url = format!("http://{}/v1/sql", query.word_after("query server is listening address=").await?);
        Ok(Self {
            seed,
            random: fastrand::Rng::with_seed(seed),
            bootstrap,
            tenancy: tenancy(&folder, plan.tenants)?,
            workers: Vec::new(),
            binary,
            folder,
            temporary,
            config,
            tokens,
            url,
            client: reqwest::Client::new(),
            started: 0,
            maintenance: None,
            broker,
            query,
        })
    }

    /// Starts `companyos maintain` beside the workers.
    pub(crate) fn start_maintenance(&mut self) -> Result<()> {
        let arguments = ["maintain".as_ref(), "--config".as_ref(), self.config.as_os_str()];
        self.maintenance = Some(Process::start(&self.binary, &self.folder, "maintain", &arguments)?);
        Ok(())
    }

    /// Lines with this text in the logs of all workers, dead ones included.
    pub(crate) fn logged(&self, text: &str) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for number in 1..=self.started {
            let log = std::fs::read(self.folder.join(format!("worker-{number}.log")))?;
            let log = String::from_utf8_lossy(&log);
            lines.extend(log.lines().filter(|line| line.contains(text)).map(str::to_owned));
        }
        Ok(lines)
    }

    /// Commits to the state tables of views, of which there are `_delta_log` entries.
    pub(crate) fn view_commits(&self) -> Result<usize> {
        let mut commits = 0;
        for table in std::fs::read_dir(self.folder.join("tables"))? {
            let table = table?;
            if !table.file_name().to_string_lossy().starts_with("view_") {
                continue;
            }
            // A table that is being made has no log yet.
            commits += std::fs::read_dir(table.path().join("_delta_log")).map_or(0, Iterator::count);
        }
        Ok(commits)
    }

    /// Starts one more worker.
    pub(crate) fn start_worker(&mut self) -> Result<()> {
        self.started += 1;
        let name = format!("worker-{}", self.started);
        let arguments = ["worker".as_ref(), "--config".as_ref(), self.config.as_os_str()];
        self.workers.push(Process::start(&self.binary, &self.folder, &name, &arguments)?);
        Ok(())
    }

    /// SIGKILL for a random worker, and another one in its place.
    pub(crate) fn kill_one(&mut self) -> Result<()> {
        let victim = self.random.usize(..self.workers.len());
        self.workers.remove(victim).kill()?;
        self.start_worker()
    }

    /// Runs a command of the product on this deployment to its end; what it printed comes back.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let (binary, folder, config) = (self.binary.clone(), self.folder.clone(), self.config.clone());
        let output = tokio::task::spawn_blocking(move || {
            std::process::Command::new(binary)
                .args(&arguments)
                .env("COMPANYOS_CONFIG", config)
                .current_dir(folder)
                .output()
                .map(|output| (arguments, output))
        });
        let (arguments, output) = output.await??;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            bail!("companyos {arguments:?}: {}\n{out}{err}", output.status);
        }
        Ok(out.into_owned())
    }

    /// Writes a file into the run's folder.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        // Renamed into place, so that no process reads half of it.
        let next = path.with_extension("next");
        std::fs::write(&next, text)?;
        std::fs::rename(next, &path)?;
        Ok(path)
    }

    /// Fails if a process ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.broker.check()?;
        self.query.check()?;
        self.maintenance.iter_mut().try_for_each(Process::check)?;
        self.workers.iter_mut().try_for_each(Process::check)
    }

    /// Ends all processes in order; the folder stays if the run failed.
    pub(crate) async fn finish<T>(mut self, outcome: Result<T>) -> Result<T> {
        let outcome = match outcome {
            Ok(value) => self.stop().await.map(|()| value),
            Err(error) => Err(error),
        };
        if outcome.is_err()
            && let Some(dir) = self.temporary.take()
        {
            println!("seed {}; tables and logs stay in {}", self.seed, dir.keep().display());
        }
        outcome
    }

    async fn stop(&mut self) -> Result<()> {
        self.check()?;
        for worker in self.workers.drain(..) {
            worker.stop().await?;
        }
        if let Some(maintenance) = self.maintenance.take() {
            maintenance.stop().await?;
        }
        Ok(())
    }
}

/// Protects nothing: the events are made up.
const DLP_KEY: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

fn tenancy(folder: &Path, tenants: &[&str]) -> Result<Tenancy> {
    let root = url::Url::from_directory_path(folder.join("tables")).ok().context("the data folder must be absolute")?;
    let tenant = serde_json::json!({ "environments": ["prod"], "regions": [REGION] });
    let tenants: BTreeMap<&str, _> = tenants.iter().map(|name| (*name, tenant.clone())).collect();
    let tenancy: Tenancy = serde_json::from_value(serde_json::json!({
        "home_region": REGION,
        "regions": { REGION: { "storage": root } },
        "tenants": tenants,
    }))?;
    tenancy.validate()?;
    Ok(tenancy)
}

fn configuration(
    folder: &Path,
    bootstrap: &str,
    streams: &[Stream],
    tokens: &BTreeMap<String, String>,
) -> Result<String> {
    let pipelines: Vec<&str> = streams.iter().map(|stream| stream.name()).collect();
    std::fs::create_dir_all(folder.join("tables"))?;
    let root = url::Url::from_directory_path(folder.join("tables")).ok().context("the data folder must be absolute")?;
    let mut text = format!(
        r#"[kafka]
brokers = "{bootstrap}"
[kafka.settings]
"session.timeout.ms" = "6000"
"reconnect.backoff.max.ms" = "1000"
[query]
listen = "127.0.0.1:0"
[telemetry]
listen = "127.0.0.1:0"
[worker]
commit_interval = "300ms"
pipelines = {pipelines:?}
# Without keys every e-mail address becomes the same word, and detections take all users for one.
[dlp.keys]
active = 1
ring = [{{ version = 1, secret = "{DLP_KEY}" }}]
[tenancy]
home_region = "{REGION}"
[tenancy.regions.{REGION}]
storage = "{root}"
"#
    );
    for (tenant, token) in tokens {
        let digest = token_digest(token);
        text += &format!(
            r#"[tenancy.tenants.{tenant}]
environments = ["prod"]
regions = ["{REGION}"]
[[access.tokens]]
id = "{tenant}"
sha256 = "{digest}"
permissions = ["query", "operate"]
tenant = "{tenant}"
"#
        );
    }
    Ok(text)
}

/// So many seconds: a deadline that only a fault passes, on a busy machine with an unoptimised build.
pub(crate) const fn within(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Looks again until there is something to see.
pub(crate) async fn until<T>(
    what: &str,
    deadline: Duration,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(seen) = look().await? {
            return Ok(seen);
        }
        if Instant::now() > end {
            bail!("not within {deadline:?}: {what}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
