//! Calls: unary ones and streams in both directions.

use std::future::poll_fn;
use std::marker::PhantomData;
use std::rc::Rc;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE};
use http::uri::{PathAndQuery, Scheme};
use http::{Method, Request, Response, Uri, Version};
use prost::Message;
use tonic::{Code, Status};

use super::frames::{Frames, encode};
use super::{CallError, Link};

/// One method of one server: all of a call's head, made once.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    uri: Uri,
    headers: HeaderMap,
}

impl Route {
    fn new(link: &Link, path: &'static str) -> Self {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(link.endpoint().authority().clone());
        parts.path_and_query = Some(PathAndQuery::from_static(path));
        let uri = Uri::from_parts(parts).expect("scheme, authority and path are all there");
        let mut headers = HeaderMap::with_capacity(2);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        Self { uri, headers }
    }

    fn request(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// One client's handle on a shared connection. One call at a time goes through it.
#[derive(Debug)]
pub(crate) struct Rpc {
    link: Rc<Link>,
    handle: Option<(u64, SendRequest<Bytes>)>,
}

impl Rpc {
    /// A handle for one more client of `link`.
    pub(crate) fn new(link: &Rc<Link>) -> Self {
        Self { link: Rc::clone(link), handle: None }
    }

    /// Prepares calls of the method at `path`, for instance `/etcdserverpb.KV/Put`.
    pub(crate) fn route(&self, path: &'static str) -> Route {
        Route::new(&self.link, path)
    }

    /// Waits until a call could go out.
    ///
    /// # Errors
    /// When the connection is broken: nothing has been sent then, and another member may be
    /// asked.
    pub(crate) async fn usable(&mut self) -> Result<(), CallError> {
        self.ready().await.map(|_| ())
    }

    /// One request, one answer.
    ///
    /// # Errors
    /// The server's status, a broken connection, or an answer that cannot be decoded.
    pub(crate) async fn unary<Q: Message, A: Message + Default>(
        &mut self,
        route: &Route,
        request: &Q,
    ) -> Result<A, CallError> {
        let answer = match self.start(route).await {
            Ok((response, mut body)) => {
                body.send_data(encode(request), true)?;
                read_unary(response).await
            }
            Err(error) => Err(error),
        };
        if matches!(&answer, Err(error) if error.lost_connection()) {
            self.handle = None;
        }
        answer
    }

    /// Opens a stream of messages in both directions.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(crate) async fn open<A: Message + Default>(
        &mut self,
        route: &Route,
    ) -> Result<(Outbound, Inbound<A>), CallError> {
        let (outbound, chunks) = self.open_raw(route).await?;
        Ok((outbound, Inbound { chunks, frames: Frames::default(), of: PhantomData }))
    }

    /// Opens a stream whose answers are read as they come, in chunks that end anywhere.
    ///
    /// # Errors
    /// When the connection is broken.
    pub(crate) async fn open_raw(
        &mut self,
        route: &Route,
    ) -> Result<(Outbound, Chunks), CallError> {
        let (response, body) = self.start(route).await?;
        Ok((Outbound { body }, Chunks { head: Some(response), body: None }))
    }

    /// The number of the connection that the latest call went through.
    pub(crate) fn generation(&self) -> Option<u64> {
        self.handle.as_ref().map(|(generation, _)| *generation)
    }

    /// The connection this client shares.
    pub(crate) fn link(&self) -> &Rc<Link> {
        &self.link
    }

    /// After a lost connection: one attempt to have a new one.
    pub(crate) async fn revive(&self) {
        self.link.revive().await;
    }

    async fn start(
        &mut self,
        route: &Route,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), CallError> {
        let sender = self.ready().await?;
        Ok(sender.send_request(route.request(), false)?)
    }

    /// The present connection's sender, once it may open another stream.
    async fn ready(&mut self) -> Result<&mut SendRequest<Bytes>, CallError> {
        let present = self.link.generation();
        if self.handle.as_ref().is_none_or(|(generation, _)| *generation != present) {
            self.handle = self.link.sender();
        }
        let Some((generation, sender)) = self.handle.as_mut() else {
            return Err(CallError::Connection("not connected".into()));
        };
        if let Err(error) = poll_fn(|context| sender.poll_ready(context)).await {
            self.link.broken(*generation);
            return Err(error.into());
        }
        Ok(sender)
    }
}

/// The sending half of a stream.
#[derive(Debug)]
pub(crate) struct Outbound {
    body: SendStream<Bytes>,
}

impl Outbound {
    /// Queues one message. What the windows do not let through yet waits in memory, so this is
    /// for requests that are few and small.
    ///
    /// # Errors
    /// When the stream is broken.
    pub(crate) fn send<Q: Message>(&mut self, message: &Q) -> Result<(), CallError> {
        Ok(self.body.send_data(encode(message), false)?)
    }
}

/// The receiving half of a stream, as it comes.
#[derive(Debug)]
pub(crate) struct Chunks {
    head: Option<ResponseFuture>,
    body: Option<RecvStream>,
}

impl Chunks {
    /// The next bytes, or `None` at a clean end. Their room in the windows goes back to the
    /// server here: who does not ask stops the server.
    ///
    /// # Errors
    /// The server's status, or a broken connection.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        if let Some(head) = self.head.take() {
            let response = head.await?;
            check_head(&response)?;
            self.body = Some(response.into_body());
        }
        let Some(body) = self.body.as_mut() else { return Ok(None) };
        if let Some(chunk) = body.data().await {
            return Ok(Some(take_chunk(body, chunk?)?));
        }
        finish(body).await?;
        self.body = None;
        Ok(None)
    }
}

/// The receiving half of a stream of messages of type `A`.
#[derive(Debug)]
pub(crate) struct Inbound<A> {
    chunks: Chunks,
    frames: Frames,
    of: PhantomData<A>,
}

impl<A: Message + Default> Inbound<A> {
    /// The next message, or `None` at a clean end.
    ///
    /// # Errors
    /// The server's status, a broken connection, or a message that cannot be decoded.
    pub(crate) async fn next(&mut self) -> Result<Option<A>, CallError> {
        loop {
            if let Some(message) = self.frames.next()? {
                return Ok(Some(A::decode(message)?));
            }
            match self.chunks.next().await? {
                Some(chunk) => self.frames.push(chunk),
                None => break,
            }
        }
        self.frames.ended()?;
        Ok(None)
    }
}

async fn read_unary<A: Message + Default>(response: ResponseFuture) -> Result<A, CallError> {
    let response = response.await?;
    check_head(&response)?;
    let mut body = response.into_body();
    let mut frames = Frames::default();
    while let Some(chunk) = body.data().await {
        frames.push(take_chunk(&mut body, chunk?)?);
    }
    let message = frames.next()?;
    finish(&mut body).await?;
    frames.ended()?;
    let message = message.ok_or_else(|| CallError::WrongAnswer("OK without a message".into()))?;
    Ok(A::decode(message)?)
}

/// Gives a chunk's room in the windows back to the server.
fn take_chunk(body: &mut RecvStream, chunk: Bytes) -> Result<Bytes, CallError> {
    body.flow_control().release_capacity(chunk.len())?;
    Ok(chunk)
}

/// An answer may consist of a head alone; then the status is in it.
fn check_head(response: &Response<RecvStream>) -> Result<(), CallError> {
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok => Err(status.into()),
        Some(_) => Ok(()),
        None if response.status().is_success() => Ok(()),
        None => Err(CallError::WrongAnswer(format!("HTTP status {}", response.status()))),
    }
}

/// Reads the status behind the last message.
async fn finish(body: &mut RecvStream) -> Result<(), CallError> {
    let trailers = body.trailers().await?;
    match trailers.as_ref().and_then(Status::from_header_map) {
        Some(status) if status.code() != Code::Ok => Err(status.into()),
        Some(_) => Ok(()),
        None => Err(CallError::WrongAnswer("no grpc-status at the end".into())),
    }
}
