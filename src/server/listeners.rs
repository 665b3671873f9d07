//! Sockets that wait for connections.
//!
//! They are bound before anything else starts, so that a port in use is an error at
//! once, and handed to an event loop when there is something to serve.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::options::{Endpoint, ServerOptions};
use super::{ACCEPT_BACKOFF, Listener};

/// Connections the kernel keeps while none is accepted.
const BACKLOG: i32 = 4096;

/// How long a connection may be silent before the system asks whether the other side is
/// there, and the time between two such questions. As etcd has it.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What is served at a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// gRPC and HTTP.
    Client,
    /// gRPC alone.
    GrpcOnly,
    /// HTTP alone.
    HttpOnly,
    /// `/metrics` and the health checks.
    Metrics,
    /// What members ask of each other before they speak raft.
    Peer,
}

impl Role {
    /// Whether gRPC is served.
    pub fn grpc(self) -> bool {
        matches!(self, Self::Client | Self::GrpcOnly)
    }

    /// Whether it is clients who come, with calls that a member can only answer when it
    /// has caught up with its cluster.
    pub(super) fn is_for_clients(self) -> bool {
        matches!(self, Self::Client | Self::GrpcOnly | Self::HttpOnly)
    }
}

pub(super) enum Socketed {
    Tcp(TcpListener),
    Unix(UnixListener, RemovedAtEnd),
}

/// The file of a Unix socket, which goes with its listener.
pub(super) struct RemovedAtEnd(PathBuf);

impl Drop for RemovedAtEnd {
    fn drop(&mut self) {
        // It may be gone already; there is nothing else to do about it.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The listeners of a node, bound and waiting.
pub struct Listeners(pub(super) Vec<(Role, Socketed)>);

impl Listeners {
    /// Binds every endpoint of `options`.
    ///
    /// # Errors
    /// The first endpoint that cannot be bound, with its name.
    pub fn bind(options: &ServerOptions) -> io::Result<Self> {
        let client = if options.client_http.is_empty() { Role::Client } else { Role::GrpcOnly };
        let groups = [
            (client, &options.client),
            (Role::HttpOnly, &options.client_http),
            (Role::Metrics, &options.metrics),
            (Role::Peer, &options.peer),
        ];
        let mut all = Vec::new();
        for (role, endpoints) in groups {
            for endpoint in endpoints {
                let socket = bind(endpoint, options.reuse_port).map_err(|error| {
                    let reason = reason(&error);
                    io::Error::new(error.kind(), format!("listen {endpoint}: bind: {reason}"))
                })?;
                all.push((role, socket));
            }
        }
        Ok(Self(all))
    }

    /// Lets nobody wait at the listeners for members, as long as this is polled: this one
    /// has nothing to tell them yet.
    pub async fn turn_members_away(&self) -> Infallible {
        let doors = self.0.iter().filter(|(role, _)| *role == Role::Peer);
        for failed in join_all(doors.map(|(_, socket)| turn_away(socket))).await {
            // Whoever comes waits then for as long as it likes.
            let Err(error) = failed;
            tracing::warn!(%error, "cannot turn other members away");
        }
        std::future::pending().await
    }

    /// The TCP addresses that are listened at, with what is served there.
    pub fn addresses(&self) -> Vec<(Role, SocketAddr)> {
        self.0
            .iter()
            .filter_map(|(role, socket)| match socket {
                Socketed::Tcp(listener) => Some((*role, listener.local_addr().ok()?)),
                Socketed::Unix(..) => None,
            })
            .collect()
    }
}

/// Why binding failed, in the words that users of etcd look for.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address already in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// Closes every connection that comes in.
async fn turn_away(socket: &Socketed) -> io::Result<Infallible> {
    match socket {
        Socketed::Tcp(listener) => {
            turn_all_away(tokio::net::TcpListener::from_std(listener.try_clone()?)?).await
        }
        Socketed::Unix(listener, _) => {
            turn_all_away(tokio::net::UnixListener::from_std(listener.try_clone()?)?).await
        }
    }
}

async fn turn_all_away<L: Listener>(listener: L) -> io::Result<Infallible> {
    loop {
        if listener.accept_stream().await.is_err() {
            tokio::time::sleep(ACCEPT_BACKOFF).await;
        }
    }
}

fn bind(endpoint: &Endpoint, reuse_port: bool) -> io::Result<Socketed> {
    match endpoint {
        Endpoint::Tcp(address) => Ok(Socketed::Tcp(bind_tcp(*address, reuse_port)?)),
        Endpoint::Unix(path) => bind_unix(path),
    }
}

fn bind_tcp(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted member must not wait for the old connections to time out.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // The connections that are accepted have it from here.
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_unix(path: &Path) -> io::Result<Socketed> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(Socketed::Unix(listener, RemovedAtEnd(path.to_owned())))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};
    use std::pin::pin;

    use socket2::SockRef;
    use tokio::io::AsyncReadExt;

    use super::*;

    fn loopback(port: u16) -> Endpoint {
        Endpoint::Tcp((Ipv4Addr::LOCALHOST, port).into())
    }

    #[test]
    fn a_port_in_use_is_an_error_with_its_name() {
        let options = ServerOptions { client: vec![loopback(0)], ..ServerOptions::default() };
        let first = Listeners::bind(&options).unwrap();
        let [(Role::Client, address)] = first.addresses()[..] else { panic!("one listener") };
        let again = ServerOptions { client: vec![loopback(address.port())], ..options };
        let error = Listeners::bind(&again).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(
            error.to_string(),
            format!("listen tcp {address}: bind: address already in use")
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn members_are_turned_away_until_there_is_something_to_tell_them() {
        let options = ServerOptions { peer: vec![loopback(0)], ..ServerOptions::default() };
        let listeners = Listeners::bind(&options).unwrap();
        let [(Role::Peer, address)] = listeners.addresses()[..] else { panic!("one listener") };
        let connect = || tokio::net::TcpStream::connect(address);
        let mut early = connect().await.unwrap();
        let closed = early.read_u8();
        tokio::select! {
            end = closed => assert!(end.is_err()),
            never = listeners.turn_members_away() => match never {},
        }
        let mut late = connect().await.unwrap();
        assert!(futures::poll!(pin!(late.read_u8())).is_pending(), "it waits");
    }

    #[test]
    fn a_unix_socket_in_use_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("client.sock");
        let endpoint = Endpoint::Unix(path.clone());
        let options = ServerOptions { client: vec![endpoint], ..ServerOptions::default() };
        let _first = Listeners::bind(&options).unwrap();
        let error = Listeners::bind(&options).map(|_| ()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("listen unix {}: bind: address already in use", path.display())
        );
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn the_system_asks_who_is_silent_whether_it_is_there() {
        let listener = bind_tcp((Ipv4Addr::LOCALHOST, 0).into(), false).unwrap();
        listener.set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let accepted = SockRef::from(&accepted);
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
        assert_eq!(accepted.tcp_keepalive_interval().unwrap(), Duration::from_secs(30));
    }

    #[test]
    fn http_on_its_own_leaves_grpc_alone() {
        let options = ServerOptions {
            client: vec![loopback(0)],
            client_http: vec![loopback(0)],
            metrics: vec![loopback(0)],
            ..ServerOptions::default()
        };
        let roles: Vec<Role> =
            Listeners::bind(&options).unwrap().addresses().iter().map(|(role, _)| *role).collect();
        assert_eq!(roles, [Role::GrpcOnly, Role::HttpOnly, Role::Metrics]);
    }

    #[test]
    fn a_unix_socket_replaces_what_is_left_of_an_earlier_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("client.sock");
        std::fs::write(&path, "").unwrap();
        let options = ServerOptions {
            client: vec![Endpoint::Unix(path.clone())],
            ..ServerOptions::default()
        };
        let listeners = Listeners::bind(&options).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(listeners);
        assert!(!path.exists());
    }
}
