//! The broker's life: start, accept connections, stop.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime},
};

use backon::{ConstantBuilder, Retryable};
use rama::{Context, Service};
use tansu_broker::{coordinator::group::administrator::Controller, service};
use tansu_sans_io::{ErrorCode, create_topics_request::CreatableTopic};
use tansu_storage::{BrokerRegistrationRequest, Storage, StorageContainer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};
use url::Url;
use uuid::Uuid;

use crate::{BrokerError, BrokerStorage, mended::MendedStorage, storage::Claimed};

const NODE_ID: i32 = 111;
/// How often tansu deletes and compacts what topics' policies let it, as in its own binary.
const MAINTENANCE: Duration = Duration::from_secs(600);

type Groups = Controller<MendedStorage>;

/// What to start.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    /// Where records are kept.
    pub storage: BrokerStorage,
    /// A loopback address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Must stay the same for the same file: storage keeps topics by cluster.
    pub cluster_id: String,
}

impl Default for BrokerOptions {
    /// In memory, on a free port.
    fn default() -> Self {
        Self {
            storage: BrokerStorage::Memory,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            cluster_id: "companyos".to_owned(),
        }
    }
}

/// A running broker; dropping it stops it too, but does not wait for its end.
#[derive(Debug)]
pub struct EmbeddedBroker {
    address: SocketAddr,
    storage: MendedStorage,
    cancellation: DropGuard,
    serving: JoinHandle<()>,
}

impl EmbeddedBroker {
    /// Opens the storage and listens; when it returns, clients can connect.
    pub async fn start(options: BrokerOptions) -> Result<Self, BrokerError> {
        let BrokerOptions { storage, listen, cluster_id } = options;
        if !listen.ip().is_loopback() {
            return Err(BrokerError::NotLoopback(listen));
        }
        let claimed = storage.claim()?;
        let failed = |source| BrokerError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let advertised = Url::parse(&format!("tcp://{address}")).map_err(tansu_broker::Error::from)?;

        let cancellation = CancellationToken::new();
        let open = || open(&cluster_id, &advertised, &claimed, &cancellation);
        let storage = open
            .retry(ConstantBuilder::default().with_delay(Duration::from_millis(50)).with_max_times(200))
            .when(still_closing)
            .await?;
        let groups = Controller::with_storage(storage.clone())?;
        let acceptor = Acceptor { cluster_id, storage: storage.clone(), groups, connections: JoinSet::new() };
        let serving = tokio::spawn(acceptor.run(listener, cancellation.clone(), claimed));
        info!(%address, "embedded broker is listening");
        Ok(Self { address, storage, cancellation: cancellation.drop_guard(), serving })
    }

    /// For `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        self.address.to_string()
    }

    /// Creates a topic; false if it was there already, with however many partitions.
    pub async fn create_topic(&self, topic: &str, partitions: i32) -> Result<bool, BrokerError> {
        if partitions < 1 {
            return Err(BrokerError::Partitions { topic: topic.to_owned(), partitions });
        }
        let new = CreatableTopic::default()
            .name(topic.to_owned())
            .num_partitions(partitions)
            .replication_factor(1)
            .assignments(Some(Vec::new()))
            .configs(Some(Vec::new()));
        match self.storage.create_topic(new, false).await {
            Ok(_) => Ok(true),
            Err(tansu_storage::Error::Api(ErrorCode::TopicAlreadyExists)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Closes the connections and the storage; another broker may then use the same file and port.
    ///
    /// A request that was not answered yet may have been carried out or not, as when a broker crashes.
    pub async fn shutdown(self) {
        let Self { address, storage, cancellation, serving } = self;
        drop(cancellation);
        drop(storage);
        if let Err(error) = serving.await {
            warn!(%error, "embedded broker ended badly");
        }
        info!(%address, "embedded broker has stopped");
    }
}

async fn open(
    cluster_id: &str,
    advertised: &Url,
    claimed: &Claimed,
    cancellation: &CancellationToken,
) -> Result<MendedStorage, tansu_storage::Error> {
    let storage = StorageContainer::builder()
        .cluster_id(cluster_id)
        .node_id(NODE_ID)
        .advertised_listener(advertised.clone())
        .storage(claimed.url.clone())
        .cancellation(cancellation.clone())
        .silent(true)
        .build()
        .await?;
    let storage = MendedStorage::new(storage);
    storage
        .register_broker(BrokerRegistrationRequest {
            broker_id: NODE_ID,
            cluster_id: cluster_id.to_owned(),
            incarnation_id: Uuid::new_v4(),
            rack: None,
        })
        .await?;
    Ok(storage)
}

/// tansu closes its file in a task nobody can wait for, so a broker that was just shut down may hold it a little
/// longer. Nobody else does: the file is claimed.
fn still_closing(error: &tansu_storage::Error) -> bool {
    format!("{error:?}").contains("database is locked")
}

struct Acceptor {
    cluster_id: String,
    storage: MendedStorage,
    groups: Groups,
    connections: JoinSet<()>,
}

impl Acceptor {
    /// Holds the claim on the storage until the last connection is gone.
    async fn run(mut self, listener: TcpListener, cancellation: CancellationToken, claimed: Claimed) {
        let mut maintenance = interval(MAINTENANCE);
        maintenance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancellation.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.serve(stream, peer),
                    // Out of file handles, mostly: the listener stays usable, a pause keeps it from spinning.
                    Err(error) => {
                        warn!(%error, "embedded broker cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                _ = maintenance.tick() => {
                    let storage = self.storage.clone();
                    self.connections.spawn(async move {
                        if let Err(error) = storage.maintain(SystemTime::now()).await {
                            warn!(%error, "maintenance of the embedded broker's storage failed");
                        }
                    });
                }
                Some(ended) = self.connections.join_next(), if !self.connections.is_empty() => {
                    if let Err(error) = ended {
                        warn!(%error, "a connection of the embedded broker ended badly");
                    }
                }
            }
        }
        drop(listener);
        self.connections.shutdown().await;
        drop(self);
        drop(claimed);
    }

    fn serve(&mut self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%peer, %error, "the connection is gone already");
            return;
        }
        let services = service::services(&self.cluster_id, self.groups.clone(), self.storage.clone(), None);
        match services {
            Ok(services) => {
                self.connections.spawn(async move {
                    // Clients end connections by closing them: most ends are errors.
                    let ended = services.serve(Context::default(), stream).await;
                    debug!(%peer, ?ended, "connection closed");
                });
            }
            Err(error) => warn!(%peer, %error, "embedded broker cannot serve a connection"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_not_open_to_the_network() {
        let options = BrokerOptions { listen: SocketAddr::from(([0, 0, 0, 0], 0)), ..BrokerOptions::default() };
        assert!(matches!(EmbeddedBroker::start(options).await, Err(BrokerError::NotLoopback(_))));
    }

    #[tokio::test]
    async fn a_topic_is_created_once() {
        let broker = EmbeddedBroker::start(BrokerOptions::default()).await.unwrap();
        assert!(broker.create_topic("t", 3).await.unwrap());
        assert!(!broker.create_topic("t", 3).await.unwrap());
        assert!(matches!(broker.create_topic("u", 0).await, Err(BrokerError::Partitions { .. })));
        broker.shutdown().await;
    }

    #[tokio::test]
    async fn file_and_port_are_free_after_shutdown() {
        let dir = tempfile::tempdir().unwrap();
        let mut options =
            BrokerOptions { storage: BrokerStorage::Sqlite(dir.path().join("broker.db")), ..BrokerOptions::default() };
        let first = EmbeddedBroker::start(options.clone()).await.unwrap();
        assert!(matches!(EmbeddedBroker::start(options.clone()).await, Err(BrokerError::StorageInUse(_))));
        assert!(first.create_topic("kept", 1).await.unwrap());
        options.listen = first.address;
        first.shutdown().await;
        let second = EmbeddedBroker::start(options).await.unwrap();
        assert!(!second.create_topic("kept", 1).await.unwrap(), "the topic was lost");
        second.shutdown().await;
    }
}
