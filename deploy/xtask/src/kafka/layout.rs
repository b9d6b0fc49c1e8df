//! Where a cluster's brokers listen and keep their files, and the settings that follow from it.

use std::{
    fs,
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// One broker's place: `dir/broker-ID.properties`, `.log`, `.pid` and the folder `broker-ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) id: u16,
    pub(super) port: u16,
    pub(super) controller_port: u16,
    pub(super) dir: PathBuf,
}

impl Place {
    pub(super) fn file(&self, ending: &str) -> PathBuf {
        self.dir.join(format!("broker-{}.{ending}", self.id))
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.join(format!("broker-{}", self.id))
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// Places for `brokers` brokers in `dir`; the first listens on `first_port`, or all on free ports if it is 0.
pub(super) fn places(dir: &Path, brokers: u16, first_port: u16) -> Result<Vec<Place>> {
    let mut free = free_ports(usize::from(brokers) * 2)?.into_iter();
    (1..=brokers)
        .map(|id| {
            let (Some(port), Some(controller_port)) = (free.next(), free.next()) else {
                bail!("too few free ports");
            };
            let port = match first_port {
                0 => port,
                first => unused(first.checked_add(id - 1).with_context(|| format!("port {first} is too high"))?)?,
            };
            Ok(Place { id, port, controller_port, dir: dir.to_owned() })
        })
        .collect()
}

/// Another broker on that port would be taken for ours.
fn unused(port: u16) -> Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("port {port} is in use"))?;
    Ok(port)
}

/// The places that [`write_properties`] once wrote to `dir`; none if it never did.
pub(super) fn read_places(dir: &Path) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for id in 1.. {
        let path = dir.join(format!("broker-{id}.properties"));
        let Ok(text) = fs::read_to_string(&path) else { break };
        let port = |name: &str| {
            let (_, rest) = text.split_once(&format!("{name}://127.0.0.1:"))?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        let (Some(client), Some(controller)) = (port("PLAINTEXT"), port("CONTROLLER")) else {
            bail!("{} names no listeners", path.display());
        };
        places.push(Place { id, port: client, controller_port: controller, dir: dir.to_owned() });
    }
    Ok(places)
}

/// Writes every broker's settings; `extra` come last and win.
pub(super) fn write_properties(places: &[Place], extra: &[(String, String)]) -> Result<()> {
    let voters: Vec<String> = places.iter().map(|p| format!("{}@127.0.0.1:{}", p.id, p.controller_port)).collect();
    for place in places {
        let mut text = properties(place, &voters.join(","), places.len());
        for (key, value) in extra {
            text.push_str(&format!("{key}={value}\n"));
        }
        let path = place.file("properties");
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn properties(place: &Place, voters: &str, brokers: usize) -> String {
    let Place { id, port, controller_port, .. } = place;
    let data = place.data();
    let in_sync = if brokers > 2 { 2 } else { 1 };
    format!(
        "\
process.roles=broker,controller
node.id={id}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
# Topics
auto.create.topics.enable=true
num.partitions=4
default.replication.factor={brokers}
min.insync.replicas={in_sync}
message.max.bytes=16777216
replica.fetch.max.bytes=16777216
# Replayed events are older than any retention.
log.retention.ms=-1
# Groups start at once; few internal partitions, as each is opened at start.
group.initial.rebalance.delay.ms=0
offsets.topic.num.partitions=4
offsets.topic.replication.factor={brokers}
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor={brokers}
transaction.state.log.min.isr={in_sync}
# A killed broker may register again only after its old session has ended.
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
# The default, 128 MiB, is a quarter of the heap.
log.cleaner.dedupe.buffer.size=16777216
",
        data = data.display()
    )
}

/// Ports nobody listens on, below the range that outgoing connections take theirs from: a client that keeps
/// connecting to a broker that is down would otherwise be given the broker's own port in time.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    const FIRST: u64 = 15_000;
    const SPAN: u64 = 17_000;
    let mut held = Vec::with_capacity(count);
    for attempt in 0..2_000_u64 {
        if held.len() == count {
            break;
        }
        let port = FIRST + RandomState::new().hash_one(attempt) % SPAN;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, u16::try_from(port)?)) {
            held.push(listener);
        }
    }
    if held.len() < count {
        bail!("found only {} free ports of {count}", held.len());
    }
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let written = places(dir.path(), 3, 0).unwrap();
        write_properties(&written, &[]).unwrap();
        assert_eq!(read_places(dir.path()).unwrap(), written);
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = places(Path::new("/nowhere"), 1, port).unwrap_err();
        assert!(error.to_string().contains(&format!("port {port} is in use")), "{error}");
    }

    #[test]
    fn free_ports_differ() {
        let mut ports = free_ports(40).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 40);
    }
}
