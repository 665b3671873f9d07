//! The configuration a member runs with, every value typed and checked.

use super::bootstrap::InitialCluster;
use super::url::Url;
use crate::logging::{LogConfig, Notice};
use std::path::PathBuf;
use std::time::Duration;

/// Everything a member needs to know to run. Made by [`load`](super::load) alone, so
/// what is here has passed every check that needs no disk and no network.
#[derive(Debug, Clone)]
pub struct Config {
    /// The member's name among people (`--name`).
    pub name: String,
    /// The data directory (`--data-dir`, else `<name>.etcd` in the working directory).
    pub data_dir: PathBuf,
    /// A directory of its own for the WAL (`--wal-dir`).
    pub dedicated_wal_dir: Option<PathBuf>,
    /// Applied entries between two checkpoints that let the raft log be cut.
    pub snapshot_count: u64,
    /// Raft entries kept behind a checkpoint for slow followers.
    pub snapshot_catchup_entries: u64,
    /// The raft tick, in milliseconds; above 0.
    pub heartbeat_ms: u64,
    /// The election timeout, in milliseconds; at least five ticks, at most 50000.
    pub election_ms: u64,
    /// Whether the first election may come early at boot.
    pub initial_election_tick_advance: bool,
    /// Where the member listens.
    pub listen: Listen,
    /// The most WAL files that may be kept beyond those still needed; 0 sets no limit.
    pub max_wals: u64,
    /// The size of the store, in bytes, from which writes are refused. `None` sets no
    /// limit.
    pub quota_backend_bytes: Option<u64>,
    /// The most operations in one transaction.
    pub max_txn_ops: u64,
    /// The largest client request, in bytes.
    pub max_request_bytes: u64,
    /// The most HTTP/2 streams of one client connection.
    pub max_concurrent_streams: u32,
    /// How clients' connections are kept alive.
    pub keepalive: KeepAlive,
    /// Whether the JSON gateway is wanted (`--enable-grpc-gateway`).
    pub enable_grpc_gateway: bool,
    /// Whether the process locks its pages in memory.
    pub memory_mlock: bool,
    /// Whether nothing is ever fsynced. A power cut loses data.
    pub unsafe_no_fsync: bool,

    /// The peer URLs this member tells the cluster; part of its member id.
    pub advertise_peer_urls: Vec<Url>,
    /// The client URLs this member tells clients.
    pub advertise_client_urls: Vec<Url>,
    /// The members a new cluster begins with; only this one, or none, where they are
    /// discovered.
    pub initial_cluster: InitialCluster,
    /// How the other members are found.
    pub discovery: Discovery,
    /// Whether the member begins a cluster or joins one.
    pub initial_cluster_state: ClusterState,
    /// Mixed into member and cluster ids.
    pub initial_cluster_token: String,
    /// Whether membership changes that would lose quorum are refused.
    pub strict_reconfig_check: bool,
    /// The most learners the cluster may have; above 0.
    pub max_learners: u32,
    /// Whether this member leaves its cluster behind and goes on alone with its data.
    pub force_new_cluster: bool,
    /// Whether raft asks before it elects.
    pub pre_vote: bool,
    /// What the member compacts by itself.
    pub auto_compaction: AutoCompaction,

    /// Where log lines go and how they look.
    pub log: LogConfig,
    /// How much `/metrics` tells.
    pub metrics: MetricsDetail,
    /// The feature gates, and those that stand for all of a stage.
    pub features: Vec<Feature>,
    /// An apply that takes longer is logged.
    pub warning_apply_duration: Duration,
    /// A unary request that takes longer is logged.
    pub warning_unary_request_duration: Duration,
    /// The most revisions removed in one piece of a compaction.
    pub compaction_batch_limit: u64,
    /// The pause between two pieces of a compaction.
    pub compaction_sleep_interval: Duration,
    /// How long an idle watch that asked for progress waits between two notices.
    pub watch_progress_notify_interval: Duration,

    /// What the configuration has to say, to be written once the logger is up.
    pub notices: Vec<Notice>,
}

/// Where a member listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Where peers connect. Only `http`.
    pub peer_urls: Vec<Url>,
    /// Where clients connect, gRPC and HTTP. `http` or `unix`.
    pub client_urls: Vec<Url>,
    /// Where HTTP clients connect; when not empty, `client_urls` serve gRPC only.
    pub client_http_urls: Vec<Url>,
    /// Further listeners for metrics and health.
    pub metrics_urls: Vec<Url>,
    /// Whether listeners set `SO_REUSEPORT`.
    pub reuse_port: bool,
    /// Whether listeners set `SO_REUSEADDR`.
    pub reuse_address: bool,
}

/// How the connections of gRPC clients are kept alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// The shortest time between a client's pings; a faster client is sent away. Zero
    /// sets no floor.
    pub min_time: Duration,
    /// The time between the server's pings. Zero sends none.
    pub interval: Duration,
    /// How long a ping's answer may take before the connection is closed. Zero never
    /// closes.
    pub timeout: Duration,
}

/// How a new member finds the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Discovery {
    /// `--initial-cluster` names them.
    Static,
    /// DNS SRV records name them.
    Srv {
        /// The domain.
        domain: String,
        /// What follows the service's name, with its dash; empty for nothing.
        suffix: String,
    },
    /// They meet at a discovery service.
    V3(DiscoveryService),
}

/// Another cluster, at which the members of a new one meet.
#[derive(Clone, PartialEq, Eq)]
pub struct DiscoveryService {
    /// What the new cluster is called there.
    pub token: String,
    /// Its clients' endpoints, `host:port` or URLs.
    pub endpoints: Vec<String>,
    /// The longest time to connect.
    pub dial_timeout: Duration,
    /// The longest time for an answer.
    pub request_timeout: Duration,
    /// The time between two pings.
    pub keepalive_time: Duration,
    /// How long a ping's answer may take.
    pub keepalive_timeout: Duration,
    /// User and password, if it asks for them.
    pub credentials: Option<(String, String)>,
}

impl std::fmt::Debug for DiscoveryService {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiscoveryService")
            .field("token", &self.token)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

/// A feature gate's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// The gate's name.
    pub name: &'static str,
    /// How ripe the feature is: `ALPHA` or `BETA`.
    pub stage: &'static str,
    /// Whether it is on.
    pub enabled: bool,
}

/// Whether the member begins a cluster or joins one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// It begins one.
    New,
    /// It joins one.
    Existing,
}

impl ClusterState {
    /// The word on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Existing => "existing",
        }
    }
}

/// What the member compacts by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Nothing.
    Off,
    /// What is older than this.
    Periodic(Duration),
    /// All but this many of the newest revisions.
    Revision(u64),
}

/// How much `/metrics` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsDetail {
    /// The usual.
    Basic,
    /// Histograms of every gRPC method too.
    Extensive,
}

impl Config {
    /// The raft tick.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    /// The election timeout in whole ticks.
    pub fn election_ticks(&self) -> u64 {
        self.election_ms / self.heartbeat_ms
    }

    /// The election timeout as raft counts it: in whole ticks.
    pub fn election_timeout(&self) -> Duration {
        Duration::from_millis(self.election_ticks() * self.heartbeat_ms)
    }

    /// How long a request may take before its client hears of a timeout: five seconds
    /// for queues and the disk, and two elections.
    pub fn request_timeout(&self) -> Duration {
        castd_actors::shared::request_timeout(self.election_timeout())
    }

    /// The directory with everything the member keeps: `<data-dir>/member`.
    pub fn member_dir(&self) -> PathBuf {
        self.data_dir.join("member")
    }

    /// The directory of the WAL: `--wal-dir`, else `<data-dir>/member/wal`.
    pub fn wal_dir(&self) -> PathBuf {
        match &self.dedicated_wal_dir {
            Some(dir) => dir.clone(),
            None => self.member_dir().join("wal"),
        }
    }

    /// The directory of checkpoints: `<data-dir>/member/snap`.
    pub fn snap_dir(&self) -> PathBuf {
        self.member_dir().join("snap")
    }
}
