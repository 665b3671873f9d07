//! The listeners, and the connections that come in through them.
//!
//! Owns: sockets, HTTP/1 and HTTP/2, limits of connections and streams, and the orderly
//! end. Hands each request to [`grpc`](crate::grpc) or [`http`](crate::http). Runs on the
//! arbiters it is given: the first accepts, and connections go around all of them. A
//! connection stays where it is. Never does: look into a request.

mod authority;
mod coalescing;
mod connection;
mod listeners;
mod opening;
mod options;
mod places;
mod read_through;

pub use listeners::{Listeners, Role};
pub use options::{ConnectionsMax, Endpoint, ServerOptions};

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_rt::ArbiterHandle;
use castd_actors::Company;
use castd_actors::peer_transport::PeerSettings;
use castd_actors::shared::Gate;
use prometheus::Registry;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tonic::service::Routes;

use connection::Shared;
use listeners::Socketed;
use places::{Place, Places};

use crate::grpc::{Faces, LeaderWatch, Phase};
use crate::http::HttpFaces;
use crate::metrics::{CompanyCollector, Metrics, ProcessCollector};

/// The shortest time between two warnings that there is no place, or that no connection
/// can be accepted.
const WARN_INTERVAL: Duration = Duration::from_secs(30);

/// How long to wait before accepting again when the system refused to.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The faces at work. Dropped without [`stop`](Self::stop), everything is cut at once.
pub struct Serving {
    phase: watch::Sender<Phase>,
    /// Ends when the last connection has.
    open: mpsc::Receiver<()>,
    gate: watch::Sender<bool>,
    drain: Duration,
}

impl Serving {
    /// Lets clients in. Until then their connections wait in the system's queue, so that
    /// a client with several endpoints asks the others; members and who looks at metrics
    /// are served from the start.
    pub fn open_gate(&self) {
        self.gate.send_replace(true);
    }

    /// Whether clients were let in.
    pub fn is_open(&self) -> bool {
        *self.gate.borrow()
    }

    /// Accepts nothing more, ends streams, lets calls finish for the time the options
    /// give them, and cuts what is left then.
    pub async fn stop(mut self) {
        self.phase.send_replace(Phase::Draining);
        // Nothing is ever sent: an answer says that every connection is gone.
        if tokio::time::timeout(self.drain, self.open.recv()).await.is_err() {
            tracing::warn!("closing client connections that have not ended");
        }
        self.phase.send_replace(Phase::Closed);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Closed);
    }
}

/// Puts the company behind the listeners. Clients wait until
/// [`open_gate`](Serving::open_gate). `arbiters` must not be empty; their figures and
/// those of the faces go into `registry`, which `/metrics` shows.
///
/// # Errors
/// When a metric of this name is registered already.
pub fn serve(
    listeners: Listeners,
    company: &Company,
    registry: &Registry,
    options: &ServerOptions,
    arbiters: &[ArbiterHandle],
) -> prometheus::Result<Serving> {
    let (phase, phases) = watch::channel(Phase::Serving);
    let leaders = LeaderWatch::new();
    let (gate, gated) = watch::channel(false);
    let metrics = metrics(company, registry, options)?;
    let faces = options.faces.clone();
    let faces = Faces::new(company.clone(), faces, metrics, phases, &leaders);
    let posts: Vec<Post> = arbiters
        .iter()
        .enumerate()
        .map(|(thread, arbiter)| {
            let (door, desk) = company.with_desk(thread);
            arbiter.spawn(desk.run());
            let peers = door.peer_calls();
            let shared = Arc::new(shared(faces.at(door), peers, registry, options));
            Post { arbiter: arbiter.clone(), shared }
        })
        .collect();
    let (alive, open) = mpsc::channel(1);
    let acceptor = Acceptor {
        posts: posts.into(),
        phase: phase.subscribe(),
        gate: gated,
        places: Places::new(options.max_connections),
        alive,
    };
    if let Some(first) = arbiters.first() {
        let election_timeout = options.faces.election_timeout;
        first.spawn(watch_leader(leaders, company.clone(), election_timeout, phase.subscribe()));
        for (role, socket) in listeners.0 {
            first.spawn(acceptor.clone().run(role, socket));
        }
    }
    Ok(Serving { phase, open, gate, drain: options.drain })
}

fn metrics(
    company: &Company,
    registry: &Registry,
    options: &ServerOptions,
) -> prometheus::Result<Arc<Metrics>> {
    let faces = &options.faces;
    let metrics = Arc::new(Metrics::new(registry, faces.extensive_metrics)?);
    let quota = crate::grpc::effective_quota(faces.quota_backend_bytes);
    let figures = CompanyCollector::new(company.clone(), &faces.version, quota)?;
    registry.register(Box::new(figures))?;
    registry.register(Box::new(ProcessCollector::new()?))?;
    Ok(metrics)
}

fn shared(
    faces: Faces,
    peer_calls: Routes,
    registry: &Registry,
    options: &ServerOptions,
) -> Shared {
    // Others are given as long as this member's own links give them.
    let silence = PeerSettings::usual_silence(options.faces.election_timeout);
    let faces = Arc::new(faces);
    let http = HttpFaces::new(Arc::clone(&faces), registry.clone());
    Shared {
        faces,
        http: http.client_routes(),
        metrics: http.metrics_routes(),
        peer: http.peer_routes(),
        peer_calls,
        client_builder: connection::for_clients(options),
        peer_builder: connection::for_peers(silence),
        metrics_builder: connection::for_metrics(),
    }
}

async fn watch_leader(
    leaders: LeaderWatch,
    company: Company,
    election_timeout: Duration,
    mut phase: watch::Receiver<Phase>,
) {
    tokio::select! {
        () = leaders.run(company, election_timeout) => {}
        _ = phase.wait_for(|phase| *phase == Phase::Closed) => {}
    }
}

/// A thread that serves connections, and what it needs at hand.
struct Post {
    arbiter: ArbiterHandle,
    shared: Arc<Shared>,
}

/// Takes connections and hands them around.
#[derive(Clone)]
struct Acceptor {
    posts: Arc<[Post]>,
    phase: watch::Receiver<Phase>,
    gate: watch::Receiver<bool>,
    places: Places,
    alive: mpsc::Sender<()>,
}

impl Acceptor {
    async fn run(self, role: Role, socket: Socketed) {
        let (mut phase, mut gate) = (self.phase.clone(), self.gate.clone());
        let accept = async {
            if role.is_for_clients() {
                // A gate that is gone was in front of a server that is.
                let _ = gate.wait_for(|open| *open).await;
            }
            self.accept(role, socket).await
        };
        let result = tokio::select! {
            _ = phase.wait_for(|phase| *phase > Phase::Serving) => Ok(()),
            result = accept => result,
        };
        if let Err(error) = result {
            tracing::error!(?role, %error, "listener failed");
        }
    }

    async fn accept(&self, role: Role, socket: Socketed) -> io::Result<()> {
        match socket {
            Socketed::Tcp(listener) => {
                self.accept_all(role, TcpListener::from_std(listener)?).await
            }
            Socketed::Unix(listener, _removed_at_end) => {
                self.accept_all(role, UnixListener::from_std(listener)?).await
            }
        }
    }

    async fn accept_all<L: Listener>(&self, role: Role, listener: L) -> io::Result<()> {
        let mut posts = self.posts.iter().cycle();
        let mut complaint = Gate::new(WARN_INTERVAL);
        let mut refusal = Gate::new(WARN_INTERVAL);
        loop {
            let stream = match listener.accept_stream().await {
                Ok(stream) => stream,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    if refusal.pass(Instant::now()) {
                        tracing::warn!(?role, %error, "failed to accept connections");
                    }
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                    continue;
                }
            };
            // Not before there is somebody to take it: a listener at which nobody comes
            // would keep a place from another.
            let Some(place) = self.place(role, &mut complaint).await else { return Ok(()) };
            let Some(post) = posts.next() else { return Ok(()) };
            self.hand_over(post, role, stream, place);
        }
    }

    /// A place for a connection to a listener of this role, as soon as there is one.
    async fn place(&self, role: Role, complaint: &mut Gate) -> Option<Place> {
        let stock = self.places.of(role);
        if let Some(place) = stock.try_take() {
            return Some(place);
        }
        if complaint.pass(Instant::now()) {
            tracing::warn!(
                ?role,
                "as many connections as there may be: the next waits for one to end"
            );
        }
        stock.take().await
    }

    /// Moves a connection to an arbiter. A socket belongs to the event loop that made it,
    /// so it travels without one.
    fn hand_over<S: Stream>(&self, post: &Post, role: Role, stream: S, place: Place) {
        let Ok(socket) = stream.detach() else { return };
        let shared = Arc::clone(&post.shared);
        // Nobody waits for the other members to leave.
        let alive = (role != Role::Peer).then(|| self.alive.clone());
        post.arbiter.spawn(async move {
            let Ok(stream) = S::attach(socket) else { return };
            // As a task of the runtime itself, not of the arbiter's local set.
            tokio::spawn(async move {
                connection::serve(stream, role, shared, place).await;
                drop(alive);
            });
        });
    }
}

/// A socket that connections come in through.
trait Listener: Send + Sync {
    type Stream: Stream;
    fn accept_stream(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept_stream(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept_stream(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// A connected socket that can move from one event loop to another.
trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static {
    type Socket: Send + 'static;
    fn detach(self) -> io::Result<Self::Socket>;
    fn attach(socket: Self::Socket) -> io::Result<Self>
    where
        Self: Sized;
}

impl Stream for TcpStream {
    type Socket = std::net::TcpStream;

    fn detach(self) -> io::Result<Self::Socket> {
        // Answers are small and written whole: waiting for more only delays them.
        self.set_nodelay(true)?;
        self.into_std()
    }

    fn attach(socket: Self::Socket) -> io::Result<Self> {
        Self::from_std(socket)
    }
}

impl Stream for UnixStream {
    type Socket = std::os::unix::net::UnixStream;

    fn detach(self) -> io::Result<Self::Socket> {
        self.into_std()
    }

    fn attach(socket: Self::Socket) -> io::Result<Self> {
        Self::from_std(socket)
    }
}
