//! Streams whose responses come encoded and framed: no codec touches them again.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::vec;

use bytes::Bytes;
use castd_actors::Chunk;
use futures::Stream;
use http::{HeaderMap, HeaderName, Request, Response, header};
use http_body::Frame;
use prost::Message;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::metadata::{GRPC_CONTENT_TYPE, MetadataValue};
use tonic::{Status, Streaming};

use super::call::{Call, Ending, admit, wants_leader};
use super::codec::Counting;
use super::error::{Failure, status};
use super::faces::Faces;
use super::methods::Method;
use super::supervised::{Supervised, interrupt};
use crate::metrics::Metrics;

const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

thread_local! {
    static GOING_OUT: Cell<bool> = const { Cell::new(false) };
}

/// Whether a stream's responses went out on this thread since the last
/// [`responses_are_out`]. Then others follow: what happens is told to many.
pub fn responses_go_out() -> bool {
    GOING_OUT.get()
}

/// Takes note that all responses that were to go out have gone.
pub fn responses_are_out() {
    GOING_OUT.set(false);
}

/// Takes note that a stream's responses go out.
pub(crate) fn response_goes_out() {
    GOING_OUT.set(true);
}

/// Answers a stream of requests with chunks of responses.
pub(super) async fn framed_stream<B, Req, S, F, Fut>(
    faces: Arc<Faces>,
    method: Method,
    request: Request<B>,
    function: F,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send,
    Req: Message + Default + 'static,
    S: Stream<Item = Result<Chunk, Status>> + Unpin + Send + 'static,
    F: FnOnce(Call, Streaming<Req>) -> Fut,
    Fut: Future<Output = Result<S, Failure>>,
{
    let mut ending = Ending::begin(&faces, method);
    let metrics = Arc::clone(&faces.metrics);
    let interrupt = interrupt(&faces, wants_leader(request.headers()));
    match open(faces, method, request, function).await {
        Ok(responses) => {
            let responses = Supervised::new(responses, interrupt, Some(ending));
            let mut response = Response::new(Body::new(Framed::new(responses, metrics, method)));
            response.headers_mut().insert(header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
            response
        }
        Err(status) => {
            ending.code(status.code());
            status.into_http()
        }
    }
}

/// Calls the method's function, if the request may come in. Its headers are gone then:
/// a stream that waits for hours has no use for them.
async fn open<B, Req, S, F, Fut>(
    faces: Arc<Faces>,
    method: Method,
    request: Request<B>,
    function: F,
) -> Result<S, Status>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send,
    Req: Message + Default + 'static,
    F: FnOnce(Call, Streaming<Req>) -> Fut,
    Fut: Future<Output = Result<S, Failure>>,
{
    refuse_compressed(request.headers())?;
    let decoder = Counting::<Req>::waiting(&faces.metrics, method);
    let limit = faces.options.max_message_bytes();
    let call = admit(faces, method, request.headers()).map_err(status)?;
    let requests = Streaming::new_request(decoder, request.into_body(), None, Some(limit));
    function(call, requests).await.map_err(Status::from)
}

/// Requests come as they are, and a client that compresses its own hears of it.
fn refuse_compressed(headers: &HeaderMap) -> Result<(), Status> {
    let Some(encoding) = headers.get(&ENCODING).filter(|encoding| *encoding != "identity") else {
        return Ok(());
    };
    let name = String::from_utf8_lossy(encoding.as_bytes());
    let text = format!("Content is compressed with `{name}` which isn't supported");
    let mut status = Status::unimplemented(text);
    status.metadata_mut().insert(ACCEPT_ENCODING, MetadataValue::from_static("identity"));
    Err(status)
}

/// The body of a response: the parts of each chunk as they are, and trailers at the end.
struct Framed<S> {
    responses: Supervised<S>,
    /// What is left of the last chunk.
    parts: vec::IntoIter<Bytes>,
    metrics: Arc<Metrics>,
    method: Method,
    /// Whether the trailers are out.
    ended: bool,
}

impl<S> Framed<S> {
    fn new(responses: Supervised<S>, metrics: Arc<Metrics>, method: Method) -> Self {
        Self { responses, parts: Vec::new().into_iter(), metrics, method, ended: false }
    }

    fn begin_chunk(&mut self, chunk: Chunk) {
        let messages = u64::from(chunk.responses);
        self.metrics.calls.sent_together(self.method, messages, chunk.message_bytes());
        self.parts = chunk.parts.into_iter();
        response_goes_out();
    }

    fn end(&mut self, status: &Status) -> Result<Frame<Bytes>, Status> {
        self.ended = true;
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers)?;
        Ok(Frame::trailers(trailers))
    }
}

impl<S> http_body::Body for Framed<S>
where
    S: Stream<Item = Result<Chunk, Status>> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(part) = this.parts.next() {
                return Poll::Ready(Some(Ok(Frame::data(part))));
            }
            // An idle stream keeps nothing of what it sent.
            this.parts = Vec::new().into_iter();
            if this.ended {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut this.responses).poll_next(context)) {
                Some(Ok(chunk)) => this.begin_chunk(chunk),
                Some(Err(status)) => return Poll::Ready(Some(this.end(&status))),
                None => return Poll::Ready(Some(this.end(&Status::ok("")))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

#[cfg(test)]
#[path = "framed_tests.rs"]
mod tests;
