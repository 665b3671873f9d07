//! From an HTTP request to a method's function and back: metadata, limits, figures.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use castd_actors::{Applied, Error};
use castd_proto::castdpb::request::Op;
use castd_proto::etcdserverpb::ResponseHeader;
use futures::future::{Either, Map, Ready, ready};
use futures::{FutureExt, Stream};
use http::{HeaderMap, HeaderName, Request, Response};
use prost::Message;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, ServerStreamingService, StreamingService, UnaryService};
use tonic::{Code, Status, Streaming};

use super::codec::{CountingCodec, Wire};
use super::error::{Failure, in_go_words, status};
use super::faces::Faces;
use super::methods::Method;
use super::supervised::{Supervised, interrupt};
use crate::metrics::{Metrics, RequestKind};

/// The largest message that is sent, in bytes.
const SEND_BYTES_MAX: usize = i32::MAX as usize;

/// What a proposal has around the request in it: its header, its tag and its length.
const PROPOSAL_OVERHEAD_BYTES: usize = 15;

static CLIENT_API_VERSION: HeaderName = HeaderName::from_static("client-api-version");
static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
static HAS_LEADER: HeaderName = HeaderName::from_static("hasleader");

/// The responses of a stream.
pub(super) type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A call that is being answered.
pub(super) struct Call {
    pub(super) faces: Arc<Faces>,
    /// Whether this member has no vote: it answers little then.
    learner: bool,
    /// The time the client gives it, if it said so.
    timeout: Option<Duration>,
}

impl Call {
    /// A call that no client made.
    pub(super) fn internal(faces: &Arc<Faces>) -> Self {
        Self { faces: Arc::clone(faces), learner: false, timeout: None }
    }

    /// For what a member with a vote alone answers.
    ///
    /// # Errors
    /// `NotSupportedForLearner`.
    pub(super) fn refuse_learner(&self) -> Result<(), Error> {
        if self.learner { Err(Error::NotSupportedForLearner) } else { Ok(()) }
    }

    /// Has one write replicated and applied, and gives its outcome.
    ///
    /// # Errors
    /// `RequestTooLarge`, `Timeout`, or what the company answers.
    pub(super) async fn propose(&self, kind: RequestKind, op: Op) -> Result<Applied, Error> {
        let faces = &*self.faces;
        let bytes = op.encoded_len() + PROPOSAL_OVERHEAD_BYTES;
        if bytes > faces.options.max_request_bytes {
            return Err(Error::RequestTooLarge);
        }
        let started = Instant::now();
        let figures = &faces.metrics.faces;
        figures.proposals_pending.inc();
        let _pending = Pending(&faces.metrics);
        let proposing = tokio::time::timeout(self.patience(), faces.company.propose(op));
        let result = proposing.await.unwrap_or(Err(Error::Timeout));
        let failed = matches!(&result, Err(error) if never_applied(*error));
        if failed && !matches!(result, Err(Error::TooManyRequests)) {
            figures.proposals_failed.inc();
        }
        self.took(kind, !failed, started.elapsed());
        result
    }

    /// Counts a request, and says so in the log when it was slow.
    pub(super) fn took(&self, kind: RequestKind, succeeded: bool, took: Duration) {
        self.faces.metrics.faces.request(kind, succeeded, took);
        if took > self.faces.options.slow_request {
            tracing::warn!(
                request_type = ?kind,
                time_spent = ?took,
                succeeded,
                "request took too long"
            );
        }
    }

    /// Waits until what was committed by now can be read from the newest view. Gives the
    /// time at which that was so.
    ///
    /// # Errors
    /// `Timeout`, or what the company answers.
    pub(super) async fn read_index(&self) -> Result<Instant, Error> {
        let reading = self.faces.company.read_index();
        let result = tokio::time::timeout(self.patience(), reading).await;
        let result = result.unwrap_or(Err(Error::Timeout));
        if result.is_err() {
            self.faces.metrics.faces.read_index_failed();
        }
        result.map(|()| Instant::now())
    }

    /// The header of an answer that was true at `revision`.
    pub(super) fn header(&self, revision: i64) -> Option<ResponseHeader> {
        Some(self.faces.company.header(revision))
    }

    /// The header of an answer that is true now.
    pub(super) fn header_now(&self) -> Option<ResponseHeader> {
        self.header(self.faces.company.view().revision())
    }

    /// Gives `work` the time that the call has.
    ///
    /// # Errors
    /// `Timeout`, or what the work meets.
    pub(super) async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let working = tokio::time::timeout(self.patience(), work);
        working.await.unwrap_or(Err(Error::Timeout))
    }

    /// How long to wait for the company. It ends what takes too long by itself, with a
    /// word about why, so it gets a little more than the request's time.
    fn patience(&self) -> Duration {
        let options = &self.faces.options;
        let limit = options.request_timeout() + options.election_timeout;
        self.timeout.map_or(limit, |timeout| timeout.min(limit))
    }
}

/// Whether the proposal came to nothing, as opposed to being applied with this outcome.
fn never_applied(error: Error) -> bool {
    matches!(
        error,
        Error::Timeout
            | Error::TimeoutLeaderFailed
            | Error::TimeoutConnectionLost
            | Error::NeverProposed
            | Error::NoLeader
            | Error::NotLeader
            | Error::LeaderChanged
            | Error::Stopped
            | Error::TooManyRequests
            | Error::Canceled
    )
}

struct Pending<'a>(&'a Metrics);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.faces.proposals_pending.dec();
    }
}

/// Looks at what the client says about its request.
///
/// # Errors
/// `NotSupportedForLearner`, `InvalidClientApiVersion`, `NoLeader`.
pub(super) fn admit(faces: Arc<Faces>, method: Method, headers: &HeaderMap) -> Result<Call, Error> {
    let raft = faces.company.raft();
    // raft may not know yet of a member that the cluster has: what counts is the list.
    let learner = raft.is_learner && faces.company.is_learner();
    if learner && !method.is_for_learners() {
        return Err(Error::NotSupportedForLearner);
    }
    let version = match headers.get(&CLIENT_API_VERSION) {
        Some(value) => {
            let text = std::str::from_utf8(value.as_bytes());
            Some(text.map_err(|_| Error::InvalidClientApiVersion)?)
        }
        None => None,
    };
    faces.metrics.calls.client_version(method.kind(), version);
    if wants_leader(headers) && raft.leader == 0 {
        return Err(Error::NoLeader);
    }
    let timeout = headers.get(&GRPC_TIMEOUT).and_then(|value| timeout(value.as_bytes()));
    Ok(Call { faces, learner, timeout })
}

pub(super) fn wants_leader(headers: &HeaderMap) -> bool {
    headers.get(&HAS_LEADER).is_some_and(|value| value.as_bytes() == b"true")
}

/// The time a client gives its call, as gRPC writes it: up to eight digits and a unit.
fn timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |count, digit| count * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// Counts a call's end, however it comes about.
pub(super) struct Ending {
    metrics: Arc<Metrics>,
    method: Method,
    /// Only where handling times are kept: a look at the clock is not free.
    started: Option<Instant>,
    /// As long as nothing else is said, the client went away.
    code: Code,
}

impl Ending {
    pub(super) fn begin(faces: &Faces, method: Method) -> Self {
        Self::count(&faces.metrics, method, faces.options.extensive_metrics)
    }

    /// For the same figures; `timed` keeps the handling time as well.
    pub(super) fn count(metrics: &Arc<Metrics>, method: Method, timed: bool) -> Self {
        metrics.calls.started(method);
        let started = timed.then(Instant::now);
        Self { metrics: Arc::clone(metrics), method, started, code: Code::Cancelled }
    }

    pub(super) fn code(&mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let seconds = || self.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        self.metrics.calls.handled(self.method, self.code as usize, seconds);
    }
}

/// A response's code. Only one without messages has it in its headers.
fn code_of(response: &Response<Body>) -> Code {
    response.headers().get(&GRPC_STATUS).map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}

/// Puts an early refusal by tonic into the words that clients know.
fn reworded(response: Response<Body>) -> Response<Body> {
    if code_of(&response) != Code::OutOfRange {
        return response;
    }
    match Status::from_header_map(response.headers()) {
        Some(status) => in_go_words(status).into_http(),
        None => response,
    }
}

fn grpc<E, D>(faces: &Faces, method: Method) -> Grpc<CountingCodec<E, D>>
where
    E: Wire,
    D: Message + Default + 'static,
{
    Grpc::new(CountingCodec::new(&faces.metrics, method))
        .max_decoding_message_size(faces.options.max_message_bytes())
        .max_encoding_message_size(SEND_BYTES_MAX)
}

/// Answers one request with one response.
pub(super) async fn unary<B, Req, Resp, F, Fut>(
    faces: Arc<Faces>,
    method: Method,
    request: Request<B>,
    function: F,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send,
    Req: Message + Default + 'static,
    Resp: Wire,
    F: FnOnce(Call, Req) -> Fut,
    Fut: Future<Output = Result<Resp, Failure>>,
{
    let mut ending = Ending::begin(&faces, method);
    let mut grpc = grpc(&faces, method);
    let handler = Handler { faces, method, function: Some(function), ending: None };
    let response = reworded(grpc.unary(UnaryCall(handler), request).await);
    ending.code(code_of(&response));
    response
}

/// Answers one request with a stream of responses.
pub(super) async fn server_stream<B, Req, Resp, F, Fut>(
    faces: Arc<Faces>,
    method: Method,
    request: Request<B>,
    function: F,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send,
    Req: Message + Default + 'static,
    Resp: Wire,
    F: FnOnce(Call, Req) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Responses<Resp>, Failure>> + Send + 'static,
{
    let ending = Some(Ending::begin(&faces, method));
    let mut grpc = grpc(&faces, method);
    let handler = Handler { faces, method, function: Some(function), ending };
    reworded(grpc.server_streaming(StreamCall(handler), request).await)
}

/// Answers a stream of requests with a stream of responses.
pub(super) async fn bidi_stream<B, Req, Resp, F, Fut>(
    faces: Arc<Faces>,
    method: Method,
    request: Request<B>,
    function: F,
) -> Response<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send,
    Req: Message + Default + 'static,
    Resp: Wire,
    F: FnOnce(Call, Streaming<Req>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Responses<Resp>, Failure>> + Send + 'static,
{
    let ending = Some(Ending::begin(&faces, method));
    let mut grpc = grpc(&faces, method);
    let handler = Handler { faces, method, function: Some(function), ending };
    reworded(grpc.streaming(StreamCall(handler), request).await)
}

/// Answers what this version does not do.
pub(super) fn not_yet(faces: &Arc<Faces>, method: Method) -> Response<Body> {
    let mut ending = Ending::begin(faces, method);
    ending.code(Code::Unimplemented);
    let name = format!("{}/{}", method.service(), method.name());
    Status::from(Failure::not_yet(&name)).into_http()
}

/// A method's function, with what it is called with. It is called once.
struct Handler<F> {
    faces: Arc<Faces>,
    method: Method,
    function: Option<F>,
    /// A stream's end is counted by the stream, a unary call's by its caller.
    ending: Option<Ending>,
}

impl<F> Handler<F> {
    fn begin(&mut self, metadata: &MetadataMap) -> Result<(Call, F), Status> {
        let call = admit(Arc::clone(&self.faces), self.method, metadata.as_ref());
        let call = call.map_err(status)?;
        let again = || Status::internal("castd: a handler was called twice");
        Ok((call, self.function.take().ok_or_else(again)?))
    }
}

struct UnaryCall<F>(Handler<F>);

/// What tonic wants of an answer, from what a method gives.
type Wrap<Resp> = fn(Result<Resp, Failure>) -> Result<tonic::Response<Resp>, Status>;

fn wrap<Resp>(result: Result<Resp, Failure>) -> Result<tonic::Response<Resp>, Status> {
    result.map(tonic::Response::new).map_err(Status::from)
}

impl<Req, Resp, F, Fut> UnaryService<Req> for UnaryCall<F>
where
    F: FnOnce(Call, Req) -> Fut,
    Fut: Future<Output = Result<Resp, Failure>>,
{
    type Response = Resp;
    type Future = Either<Map<Fut, Wrap<Resp>>, Ready<Result<tonic::Response<Resp>, Status>>>;

    fn call(&mut self, request: tonic::Request<Req>) -> Self::Future {
        match self.0.begin(request.metadata()) {
            Ok((call, function)) => {
                let wrap: Wrap<Resp> = wrap;
                Either::Left(function(call, request.into_inner()).map(wrap))
            }
            Err(status) => Either::Right(ready(Err(status))),
        }
    }
}

struct StreamCall<F>(Handler<F>);

type StreamFuture<Resp> = Pin<
    Box<dyn Future<Output = Result<tonic::Response<Supervised<Responses<Resp>>>, Status>> + Send>,
>;

impl<F> StreamCall<F> {
    fn open<M, Resp, Fut>(&mut self, request: tonic::Request<M>) -> StreamFuture<Resp>
    where
        F: FnOnce(Call, M) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Responses<Resp>, Failure>> + Send + 'static,
        M: Send + 'static,
        Resp: 'static,
    {
        let begun = self.0.begin(request.metadata());
        let ending = self.0.ending.take();
        Box::pin(async move {
            let mut ending = ending;
            let opened = match begun {
                Ok((call, function)) => {
                    let interrupt =
                        interrupt(&call.faces, wants_leader(request.metadata().as_ref()));
                    let stream = function(call, request.into_inner()).await;
                    stream.map_err(Status::from).map(|stream| (stream, interrupt))
                }
                Err(status) => Err(status),
            };
            match opened {
                Ok((stream, interrupt)) => {
                    Ok(tonic::Response::new(Supervised::new(stream, interrupt, ending)))
                }
                Err(status) => {
                    if let Some(ending) = &mut ending {
                        ending.code(status.code());
                    }
                    Err(status)
                }
            }
        })
    }
}

impl<Req, Resp, F, Fut> ServerStreamingService<Req> for StreamCall<F>
where
    F: FnOnce(Call, Req) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Responses<Resp>, Failure>> + Send + 'static,
    Req: Send + 'static,
    Resp: 'static,
{
    type Response = Resp;
    type ResponseStream = Supervised<Responses<Resp>>;
    type Future = StreamFuture<Resp>;

    fn call(&mut self, request: tonic::Request<Req>) -> Self::Future {
        self.open(request)
    }
}

impl<Req, Resp, F, Fut> StreamingService<Req> for StreamCall<F>
where
    F: FnOnce(Call, Streaming<Req>) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Responses<Resp>, Failure>> + Send + 'static,
    Req: Send + 'static,
    Resp: 'static,
{
    type Response = Resp;
    type ResponseStream = Supervised<Responses<Resp>>;
    type Future = StreamFuture<Resp>;

    fn call(&mut self, request: tonic::Request<Streaming<Req>>) -> Self::Future {
        self.open(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        let cases: [(&[u8], Option<Duration>); 9] = [
            (b"5S", Some(Duration::from_secs(5))),
            (b"4999932u", Some(Duration::from_micros(4_999_932))),
            (b"100m", Some(Duration::from_millis(100))),
            (b"99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            (b"1M", Some(Duration::from_secs(60))),
            (b"7n", Some(Duration::from_nanos(7))),
            (b"123456789S", None),
            (b"S", None),
            (b"5x", None),
        ];
        for (text, expected) in cases {
            assert_eq!(timeout(text), expected, "{}", text.escape_ascii());
        }
    }
}
