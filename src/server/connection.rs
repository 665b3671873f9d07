//! One connection: which protocol it speaks, and who answers its requests.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::{FutureExt, TryFutureExt};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt;

use super::authority::any_authority;
use super::coalescing::Coalescing;
use super::listeners::Role;
use super::opening::Opening;
use super::options::ServerOptions;
use super::places::Place;
use super::read_through::ReadThrough;
use crate::grpc::{self, Faces, Phase};

/// What a client may send on one stream before it is read, in bytes.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// The same for all streams of a connection. h2 ends a connection in which too many
/// small frames wait to be read, and how many it allows follows from this: each costs
/// up to 256 bytes of half of it. A client may send a stream window full of requests to
/// watch, of 15 bytes each, without waiting, and that on a dozen streams.
const CONNECTION_WINDOW_BYTES: u32 = 512 << 20;

/// What h2 takes of one stream's answers before they are sent, in bytes: a client that
/// stops reading stops its streams there.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// The largest header list of a request, in bytes: tokens and metadata are small.
const HEADER_LIST_BYTES_MAX: u32 = 64 << 10;

/// Streams that a client opened and reset before they were looked at. A client that
/// cancels many calls at once is welcome, one that does nothing else is not.
const PENDING_RESETS_MAX: usize = 1024;

/// Streams that another member may have open on one connection: a lane, and the questions
/// beside it, of which it holds back more than a few hundred by itself.
const PEER_STREAMS_MAX: u32 = 1024;

/// How long that sign may take, in times of silence. It may stand behind a megabyte of a
/// snapshot on a slow line, while a host that lost its power is still forgotten in seconds.
const PEER_PATIENCE: u32 = 3;

/// How long a client may take to say what it speaks, and for the header of an HTTP/1
/// request, the wait for the next request on a connection included.
const HEADER_TIMEOUT: Duration = Duration::from_secs(300);

/// The same for those who look at metrics, who come again within a minute, and for members,
/// who ask one question on such a connection.
const BRIEF_HEADER_TIMEOUT: Duration = Duration::from_secs(90);

/// What everyone may take to say something, or to read an answer, although others wait for
/// the place.
const GRACE: Duration = Duration::from_secs(1);

/// What every connection needs at hand.
pub(super) struct Shared {
    pub(super) faces: Arc<Faces>,
    /// Everything HTTP that clients are served.
    pub(super) http: Router,
    /// What the metrics listeners serve.
    pub(super) metrics: Router,
    /// What the peer listeners serve over plain HTTP.
    pub(super) peer: Router,
    /// What they serve over gRPC.
    pub(super) peer_calls: Routes,
    /// How clients are spoken with.
    pub(super) client_builder: auto::Builder<TokioExecutor>,
    /// How other members are.
    pub(super) peer_builder: auto::Builder<TokioExecutor>,
    /// How those are who look at metrics.
    pub(super) metrics_builder: auto::Builder<TokioExecutor>,
}

impl Shared {
    /// How to speak with those who come to a listener of this role.
    fn builder(&self, role: Role) -> &auto::Builder<TokioExecutor> {
        match role {
            Role::Client | Role::GrpcOnly | Role::HttpOnly => &self.client_builder,
            Role::Peer => &self.peer_builder,
            Role::Metrics => &self.metrics_builder,
        }
    }
}

/// How to speak with clients: within the limits that the operator chose for them.
pub(super) fn for_clients(options: &ServerOptions) -> auto::Builder<TokioExecutor> {
    let mut builder = builder(Role::Client);
    builder
        .http2()
        .max_concurrent_streams(options.max_concurrent_streams)
        .keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout);
    builder
}

/// How to speak with other members: no limit that is meant for clients may come between
/// them. One that says nothing for `silence` is asked for a sign of life.
pub(super) fn for_peers(silence: Duration) -> auto::Builder<TokioExecutor> {
    let mut builder = builder(Role::Peer);
    builder
        .http2()
        .max_concurrent_streams(PEER_STREAMS_MAX)
        .keep_alive_interval(Some(silence))
        .keep_alive_timeout(PEER_PATIENCE * silence);
    builder
}

/// How to speak with those who look at metrics: over HTTP/1 alone, as etcd does, since
/// whoever speaks HTTP/2 may keep a place without ever asking.
pub(super) fn for_metrics() -> auto::Builder<TokioExecutor> {
    builder(Role::Metrics).http1_only()
}

/// What holds for every connection, with the patience that those at such a listener find.
fn builder(role: Role) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(header_timeout(role));
    builder
        .http2()
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX);
    builder
}

fn header_timeout(role: Role) -> Duration {
    match role {
        Role::Client | Role::GrpcOnly | Role::HttpOnly => HEADER_TIMEOUT,
        Role::Peer | Role::Metrics => BRIEF_HEADER_TIMEOUT,
    }
}

/// Serves one connection until the client or the node leaves, or until it has to make room.
pub(super) async fn serve<I>(io: I, role: Role, shared: Arc<Shared>, place: Place)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut phase = shared.faces.phase();
    let mut end = shared.faces.phase();
    let answering = Arc::clone(&shared);
    let service = service_fn(move |request| answer(&answering, role, request));
    let opening = Opening::new(patience(header_timeout(role), place.wanted()));
    let io = any_authority(ReadThrough::new(io, opening));
    let io = TokioIo::new(Coalescing::new(io));
    let mut connection = pin!(shared.builder(role).serve_connection(io, service));
    // Members talk to each other for as long as there are clients to serve.
    let last = if role == Role::Peer { Phase::Draining } else { Phase::Serving };
    let makes_room = tokio::select! {
        biased;
        // Broken connections are the clients' business.
        _ = connection.as_mut() => return,
        _ = phase.wait_for(|phase| *phase > last) => false,
        () = room_is_needed(role, &place) => true,
    };
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        biased;
        _ = connection.as_mut() => {}
        _ = end.wait_for(|phase| *phase == Phase::Closed) => {}
        () = tokio::time::sleep(GRACE), if makes_room => {}
    }
}

/// Returns when a connection has had its time to say what it speaks: a short one if its place
/// is wanted, else this long.
async fn patience(long: Duration, wanted: impl Future<Output = ()>) {
    tokio::time::sleep(GRACE).await;
    // Either way, it is over.
    let _ = tokio::time::timeout(long.saturating_sub(GRACE), wanted).await;
}

/// Returns when a connection has to go because others wait for its place. Only those who look
/// at metrics have to, who can come again at any time: health is asked for among them.
async fn room_is_needed(role: Role, place: &Place) {
    if role != Role::Metrics {
        return std::future::pending().await;
    }
    // In a box: clients' connections need no room for it.
    Box::pin(async {
        tokio::time::sleep(GRACE).await;
        place.wanted().await;
    })
    .await;
}

/// An answer to come. Always in a box: a request's future is moved several times on its
/// way to its task, and what the task has room for stays taken while a stream is open.
type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

fn answer(shared: &Arc<Shared>, role: Role, request: Request<Incoming>) -> Answering {
    if role.grpc() && grpc::is_grpc(&request) {
        return Box::pin(grpc::serve(Arc::clone(&shared.faces), request).map(Ok));
    }
    if role == Role::Peer && grpc::is_grpc(&request) {
        let answered = shared.peer_calls.clone().oneshot(request);
        return Box::pin(answered.map_ok(|response| response.map(Body::new)));
    }
    Box::pin(answer_http(Arc::clone(shared), role, request).map(Ok))
}

async fn answer_http(
    shared: Arc<Shared>,
    role: Role,
    request: Request<Incoming>,
) -> Response<Body> {
    let router = match role {
        Role::Client | Role::HttpOnly => &shared.http,
        Role::Metrics => &shared.metrics,
        Role::Peer => &shared.peer,
        // Nothing but gRPC is served here.
        Role::GrpcOnly => return crate::http::not_found().map(Body::new),
    };
    let Ok(response) = router.clone().oneshot(request.map(axum::body::Body::new)).await;
    response.map(Body::new)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// How long a connection lasts whose other side begins, and says nothing more.
    async fn lasts(builder: auto::Builder<TokioExecutor>) -> Duration {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let nobody = |_| async { Ok::<_, Infallible>(Response::new(Empty::<bytes::Bytes>::new())) };
        let serving = tokio::spawn(async move {
            let connection = builder.serve_connection(TokioIo::new(ours), service_fn(nobody));
            let _ = connection.await;
        });
        // The preface, an empty frame of settings, and the consent to theirs.
        theirs.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        theirs.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]).await.unwrap();
        let begun = Instant::now();
        theirs.read_to_end(&mut Vec::new()).await.unwrap();
        serving.await.unwrap();
        begun.elapsed()
    }

    #[tokio::test]
    async fn patience_is_short_with_those_whose_place_is_wanted() {
        let long = 2 * GRACE;
        let begun = Instant::now();
        patience(long, std::future::ready(())).await;
        let took = begun.elapsed();
        assert!(took >= GRACE && took < long, "{took:?}");
        let begun = Instant::now();
        patience(long, std::future::pending()).await;
        assert!(begun.elapsed() >= long);
    }

    #[tokio::test]
    async fn a_member_that_is_gone_is_given_up_after_a_few_silences() {
        let silence = Duration::from_millis(100);
        let lasted = tokio::time::timeout(Duration::from_secs(60), lasts(for_peers(silence)));
        let lasted = lasted.await.expect("it is given up");
        assert!(lasted >= (1 + PEER_PATIENCE) * silence, "a slow line has its time: {lasted:?}");
    }
}
