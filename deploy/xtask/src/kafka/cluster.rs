//! A Kafka for tests.

use std::{
    path::{Path, PathBuf},
    process::Child,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    jars, layout,
    layout::Place,
    process::{self, Guard, PortTaken},
};

const STOP_WITHIN: Duration = Duration::from_secs(30);
const START_ATTEMPTS: usize = 3;
/// 16 bytes in URL-safe base64, as Kafka wants it.
pub(super) const CLUSTER_ID: &str = "Y29tcGFueW9zLWthZmthMQ";

/// What to start.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// 1 or 3, each a JVM with 512 MiB of heap at most. With 3, topics are replicated to all of them.
    pub brokers: u16,
    /// The first broker's port, the others follow; 0 takes free ones.
    pub port: u16,
    /// Where the data stays; a temporary folder if none.
    pub dir: Option<PathBuf>,
    /// Settings of `server.properties` that replace ours.
    pub properties: Vec<(String, String)>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self { brokers: 1, port: 0, dir: None, properties: Vec::new() }
    }
}

/// A running cluster. All calls block; brokers are numbered from 1.
#[derive(Debug)]
pub struct KafkaCluster {
    brokers: Vec<Broker>,
    jars: PathBuf,
    bootstrap: String,
    // Dropped last: the folder goes when the brokers are gone.
    temporary: Option<TempDir>,
}

#[derive(Debug)]
struct Broker {
    place: Place,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    guard: Guard,
    child: Child,
}

impl KafkaCluster {
    /// Starts the brokers (their jars are fetched if they are missing) and waits until each serves clients and
    /// sees the others.
    pub fn start(options: KafkaOptions) -> Result<Self> {
        let jars = jars::fetch()?;
        let mut attempt = 1;
        loop {
            match Self::start_once(&options, jars.clone()) {
                Err(error) if options.port == 0 && error.is::<PortTaken>() && attempt < START_ATTEMPTS => attempt += 1,
                started => return started,
            }
        }
    }

    fn start_once(options: &KafkaOptions, jars: PathBuf) -> Result<Self> {
        let (dir, temporary) = match &options.dir {
            Some(dir) => {
                std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
                (dir.canonicalize()?, None)
            }
            None => {
                let temporary = tempfile::Builder::new().prefix("companyos-kafka-").tempdir()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let places = layout::places(&dir, options.brokers, options.port)?;
        layout::write_properties(&places, &options.properties)?;
        let bootstrap = places.iter().map(Place::address).collect::<Vec<_>>().join(",");
        let brokers = places.into_iter().map(|place| Broker { place, running: Mutex::new(None) }).collect();
        let cluster = Self { brokers, jars, bootstrap, temporary };
        for broker in &cluster.brokers {
            process::format(&cluster.jars, &broker.place, CLUSTER_ID)?;
            *broker.running() = Some(Running::spawn(&cluster.jars, &broker.place, cluster.temporary())?);
        }
        for broker in &cluster.brokers {
            broker.wait_ready(cluster.brokers.len())?;
        }
        Ok(cluster)
    }

    /// Addresses for `bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// SIGKILL: what the broker had not written is lost, its data folder stays.
    pub fn kill(&self, broker: u16) -> Result<()> {
        *self.broker(broker)?.running() = None;
        Ok(())
    }

    /// SIGTERM: a controlled shutdown. Fails if the broker does not end within 30 s.
    pub fn stop(&self, broker: u16) -> Result<()> {
        let broker = self.broker(broker)?;
        let mut slot = broker.running();
        let Some(running) = slot.as_mut() else { return Ok(()) };
        signal(&running.child, Signal::TERM)?;
        let ended = process::poll(STOP_WITHIN, || Ok(running.child.try_wait()?.is_some()))?;
        *slot = None;
        drop(slot);
        if !ended {
            bail!("broker {} did not stop:\n{}", broker.place.id, process::log_tail(&broker.place));
        }
        Ok(())
    }

    /// Starts a broker that was stopped or killed, on its data and port, and waits until it serves clients.
    pub fn restart(&self, broker: u16) -> Result<()> {
        let broker = self.broker(broker)?;
        *broker.running() = None;
        *broker.running() = Some(Running::spawn(&self.jars, &broker.place, self.temporary())?);
        broker.wait_ready(self.brokers.iter().filter(|other| other.running().is_some()).count())
    }

    /// SIGSTOP: connections stay open, nothing answers.
    pub fn pause(&self, broker: u16) -> Result<()> {
        self.broker(broker)?.signal(Signal::STOP)
    }

    /// SIGCONT: the end of [`pause`](Self::pause).
    pub fn resume(&self, broker: u16) -> Result<()> {
        self.broker(broker)?.signal(Signal::CONT)
    }

    /// The last lines of a broker's log, for messages of failed tests.
    pub fn log_tail(&self, broker: u16) -> Result<String> {
        Ok(process::log_tail(&self.broker(broker)?.place))
    }

    fn temporary(&self) -> Option<&Path> {
        self.temporary.as_ref().map(TempDir::path)
    }

    fn broker(&self, id: u16) -> Result<&Broker> {
        self.brokers.iter().find(|broker| broker.place.id == id).with_context(|| format!("no broker {id}"))
    }
}

impl Broker {
    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, what: Signal) -> Result<()> {
        let running = self.running();
        let running = running.as_ref().with_context(|| format!("broker {} is down", self.place.id))?;
        signal(&running.child, what)
    }

    fn wait_ready(&self, live: usize) -> Result<()> {
        process::wait_ready(&self.place, live, || match self.running().as_mut() {
            Some(running) => Ok(running.child.try_wait()?.map(|status| status.to_string())),
            None => Ok(Some("a kill".to_owned())),
        })
    }
}

impl Running {
    fn spawn(jars: &Path, place: &Place, temporary: Option<&Path>) -> Result<Self> {
        let mut child = process::spawn(jars, place)?;
        match Guard::new(&child, temporary) {
            Ok(guard) => Ok(Self { guard, child }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.guard.disarm();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(child: &Child, signal: Signal) -> Result<()> {
    kill_process(Pid::from_child(child), signal).with_context(|| format!("signalling process {}", child.id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::probe;

    /// One test for the life of a broker: each start costs seconds.
    #[test]
    fn a_broker_is_killed_paused_and_started_again_on_its_data() {
        let cluster = KafkaCluster::start(KafkaOptions::default()).unwrap();
        let place = cluster.broker(1).unwrap().place.clone();
        assert_eq!(cluster.bootstrap(), place.address());
        assert_eq!(probe::live_brokers(place.port).unwrap(), 1);

        cluster.pause(1).unwrap();
        assert!(probe::live_brokers(place.port).is_err(), "a paused broker answered");
        cluster.resume(1).unwrap();
        let answers = process::poll(Duration::from_secs(30), || Ok(probe::live_brokers(place.port).is_ok())).unwrap();
        assert!(answers, "a resumed broker does not answer");

        let meta = place.data().join("meta.properties");
        let before = std::fs::read_to_string(&meta).unwrap();
        cluster.kill(1).unwrap();
        assert!(probe::live_brokers(place.port).is_err(), "a killed broker answered");
        assert!(cluster.pause(1).is_err());
        cluster.restart(1).unwrap();
        assert_eq!(probe::live_brokers(place.port).unwrap(), 1);
        assert_eq!(std::fs::read_to_string(&meta).unwrap(), before);

        drop(cluster);
        assert!(probe::live_brokers(place.port).is_err(), "a dropped cluster answered");
        assert!(!place.dir.exists(), "a dropped cluster left its folder");
    }
}
