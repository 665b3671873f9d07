//! One HTTP/2 connection to a server, made anew when it breaks.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::uri::Authority;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::CallError;

/// Receive window of a stream and of a connection: bulk answers never wait for an update.
const WINDOW_BYTES: u32 = 16 << 20;
/// Receive window of a stream in HTTP/2 when nobody says otherwise; Go's clients have it too.
const SMALL_WINDOW_BYTES: u32 = 65_535;
/// The largest window there is.
const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;
/// Largest frame the server may send: a bulk answer comes in few.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// Windows and largest frame for streams that go on: a server that is ahead by more than this
/// gains nothing, and what is read is still in the processor's cache.
const STREAMED_WINDOW_BYTES: u32 = 1 << 20;
const STREAMED_FRAME_BYTES_MAX: u32 = 32 << 10;
/// How long an attempt that failed keeps the next one waiting.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A server's address: `host:port`, with or without `http://` in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    authority: Authority,
}

impl Endpoint {
    /// Host and port, as they go into the `:authority` of every call.
    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "http://{}", self.authority)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("https://") {
            return Err("TLS is not supported by the generator, use http://".into());
        }
        let bare = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let authority: Authority =
            bare.parse().map_err(|error| format!("not host:port: {bare:?}: {error}"))?;
        match authority.port_u16() {
            Some(_) => Ok(Self { authority }),
            None => Err(format!("no port in {bare:?}")),
        }
    }
}

/// How much a server may send ahead of its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Windows {
    stream_bytes: u32,
    connection_bytes: u32,
    frame_bytes: u32,
}

impl Windows {
    /// So large that nothing ever waits for them.
    pub(crate) const LARGE: Self = Self {
        stream_bytes: WINDOW_BYTES,
        connection_bytes: WINDOW_BYTES,
        frame_bytes: FRAME_BYTES_MAX,
    };

    /// Large ones for streams that go on.
    pub(crate) const STREAMED: Self = Self {
        stream_bytes: STREAMED_WINDOW_BYTES,
        connection_bytes: 2 * STREAMED_WINDOW_BYTES,
        frame_bytes: STREAMED_FRAME_BYTES_MAX,
    };

    /// Those of a client that stops a server soon: 64 KiB a stream. That of the connection lets
    /// all of its `streams` be stopped and others still go on, as with Go's clients, which give
    /// room of the connection back whether or not a stream is read.
    pub(crate) fn small(streams: usize) -> Self {
        let streams = u32::try_from(streams).unwrap_or(u32::MAX).saturating_add(1);
        let connection_bytes = SMALL_WINDOW_BYTES.saturating_mul(streams).min(WINDOW_BYTES_MAX);
        Self { stream_bytes: SMALL_WINDOW_BYTES, connection_bytes, ..Self::STREAMED }
    }
}

/// A connection that many clients of one thread share.
#[derive(Debug)]
pub(crate) struct Link {
    endpoint: Endpoint,
    windows: Windows,
    session: RefCell<Option<AbortHandle>>,
    sender: RefCell<Option<SendRequest<Bytes>>>,
    generation: Cell<u64>,
    connecting: Cell<bool>,
    attempted: Notify,
}

impl Link {
    /// Connects. The connection's own task runs on the calling thread's local runtime.
    ///
    /// # Errors
    /// When the server cannot be reached or does not speak HTTP/2.
    pub(crate) async fn connect(endpoint: Endpoint) -> Result<Rc<Self>, CallError> {
        Self::connect_with(endpoint, Windows::LARGE).await
    }

    /// Connects with windows of a certain size.
    ///
    /// # Errors
    /// As [`Link::connect`].
    pub(crate) async fn connect_with(
        endpoint: Endpoint,
        windows: Windows,
    ) -> Result<Rc<Self>, CallError> {
        let (sender, session) = handshake(&endpoint, windows).await?;
        Ok(Rc::new(Self {
            endpoint,
            windows,
            session: RefCell::new(Some(session)),
            sender: RefCell::new(Some(sender)),
            generation: Cell::new(1),
            connecting: Cell::new(false),
            attempted: Notify::new(),
        }))
    }

    /// The server this link goes to.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// A handle for one client, and the number of the connection it belongs to.
    pub(super) fn sender(&self) -> Option<(u64, SendRequest<Bytes>)> {
        self.sender.borrow().clone().map(|sender| (self.generation.get(), sender))
    }

    /// The number of the present connection: handles of an older one are of no use.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// A client found connection `generation` broken.
    pub(super) fn broken(&self, generation: u64) {
        if self.generation.get() == generation {
            self.generation.set(generation + 1);
            *self.sender.borrow_mut() = None;
        }
    }

    /// Cuts the connection off, without a word to the server: every stream on it breaks.
    pub(crate) fn cut(&self) {
        if let Some(session) = self.session.borrow_mut().take() {
            session.abort();
        }
        self.broken(self.generation.get());
    }

    /// Tries once to connect again; callers that come meanwhile wait for that attempt.
    /// Returns after a pause when it fails, so that a client's loop cannot spin.
    pub(super) async fn revive(&self) {
        if self.sender.borrow().is_some() {
            return;
        }
        if self.connecting.get() {
            return self.attempted.notified().await;
        }
        self.connecting.set(true);
        match handshake(&self.endpoint, self.windows).await {
            Ok((sender, session)) => {
                *self.sender.borrow_mut() = Some(sender);
                *self.session.borrow_mut() = Some(session);
            }
            Err(_) => tokio::time::sleep(RECONNECT_PAUSE).await,
        }
        self.connecting.set(false);
        self.attempted.notify_waiters();
    }
}

/// Opens the socket and the HTTP/2 session, and starts the session's task.
async fn handshake(
    endpoint: &Endpoint,
    windows: Windows,
) -> Result<(SendRequest<Bytes>, AbortHandle), CallError> {
    let failed = |error: &dyn fmt::Display| CallError::Connection(format!("{endpoint}: {error}"));
    let dial = TcpStream::connect(endpoint.authority.as_str());
    let socket = tokio::time::timeout(CONNECT_TIMEOUT, dial)
        .await
        .map_err(|_| failed(&"no connection in time"))?
        .map_err(|error| failed(&error))?;
    socket.set_nodelay(true).map_err(|error| failed(&error))?;
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(windows.stream_bytes)
        .initial_connection_window_size(windows.connection_bytes)
        .max_frame_size(windows.frame_bytes)
        .enable_push(false)
        .handshake(socket)
        .await
        .map_err(|error| failed(&error))?;
    // A broken session shows in every call on it, with its reason: nothing is lost here.
    let session = tokio::task::spawn_local(async move { drop(connection.await) });
    Ok((sender, session.abort_handle()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_in_the_forms_people_write() {
        for text in ["127.0.0.1:2379", "http://127.0.0.1:2379", "http://127.0.0.1:2379/"] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), "http://127.0.0.1:2379", "{text}");
        }
        assert_eq!(
            "http://[::1]:2379".parse::<Endpoint>().unwrap().authority().port_u16(),
            Some(2379)
        );
    }

    #[test]
    fn endpoints_that_cannot_work_are_refused() {
        for text in ["https://127.0.0.1:2379", "127.0.0.1", "", "http://", "a b:1", "host:99999"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }
}
