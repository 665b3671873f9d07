//! What the operator chose for the listeners and their connections.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::grpc::FaceOptions;

/// How many connections there may be at once; more wait until one ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionsMax {
    /// Those of clients, on all their listeners together.
    pub clients: usize,
    /// Those to the metrics listeners.
    pub metrics: usize,
    /// Those of other members.
    pub peers: usize,
}

impl ConnectionsMax {
    /// The most there are, however many descriptors may be open: each costs memory.
    pub const MOST: Self = Self { clients: 60_000, metrics: 1024, peers: 1024 };
}

/// A place to listen at. Names are resolved before they come here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// The path of a Unix domain socket. What is left of an earlier one is removed.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Unix(path) => write!(f, "unix {}", path.display()),
        }
    }
}

/// Everything the network faces are told.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// What concerns requests, not connections.
    pub faces: FaceOptions,
    /// Where clients are served: gRPC, and HTTP as long as `client_http` is empty.
    pub client: Vec<Endpoint>,
    /// Where HTTP is served instead, when it is to have listeners of its own.
    pub client_http: Vec<Endpoint>,
    /// Where `/metrics` and the health checks are served, and nothing else.
    pub metrics: Vec<Endpoint>,
    /// Where other members ask who is in the cluster.
    pub peer: Vec<Endpoint>,
    /// Let other processes listen at the same port (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// The most streams a client may have open on one connection.
    pub max_concurrent_streams: u32,
    /// How long a connection may be silent before it is asked for a sign of life; `None`
    /// to never ask.
    pub keepalive_interval: Option<Duration>,
    /// How long that sign may take.
    pub keepalive_timeout: Duration,
    /// How many connections there may be.
    pub max_connections: ConnectionsMax,
    /// How long calls may go on after the node has been told to stop.
    pub drain: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            faces: FaceOptions::default(),
            client: Vec::new(),
            client_http: Vec::new(),
            metrics: Vec::new(),
            peer: Vec::new(),
            reuse_port: false,
            max_concurrent_streams: u32::MAX,
            keepalive_interval: Some(Duration::from_secs(2 * 3600)),
            keepalive_timeout: Duration::from_secs(20),
            max_connections: ConnectionsMax::MOST,
            drain: Duration::from_secs(5),
        }
    }
}
