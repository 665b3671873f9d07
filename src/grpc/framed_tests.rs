use castd_actors::Error;
use castd_proto::etcdserverpb::WatchResponse;
use futures::channel::oneshot;
use futures::stream::{self, BoxStream, StreamExt};
use futures::{FutureExt, poll};
use http_body_util::BodyExt;
use prometheus::Registry;
use tonic::Code;

use super::*;

/// gRPC's frame in front of a message: whether it is compressed, and its length.
const FRAME_BYTES: usize = 5;

type Chunks = BoxStream<'static, Result<Chunk, Status>>;

/// A body with its figures, and the means to interrupt it.
struct Bench {
    body: Framed<Chunks>,
    registry: Registry,
    interrupt: Option<oneshot::Sender<Error>>,
}

impl Bench {
    fn new(chunks: impl Stream<Item = Result<Chunk, Status>> + Send + 'static) -> Self {
        let registry = Registry::new();
        let metrics = Arc::new(Metrics::new(&registry, false).unwrap());
        let ending = Ending::count(&metrics, Method::Watch, false);
        let (sender, interrupted) = oneshot::channel();
        let interrupt = Box::pin(async {
            match interrupted.await {
                Ok(error) => error,
                Err(_) => std::future::pending().await,
            }
        });
        let responses = Supervised::new(chunks.boxed(), interrupt, Some(ending));
        let body = Framed::new(responses, metrics, Method::Watch);
        Self { body, registry, interrupt: Some(sender) }
    }

    async fn data(&mut self) -> Bytes {
        self.body.frame().await.unwrap().unwrap().into_data().unwrap()
    }

    async fn trailers(&mut self) -> HeaderMap {
        let trailers = self.body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert!(http_body::Body::is_end_stream(&self.body));
        assert!(self.body.frame().await.is_none(), "nothing comes after the trailers");
        trailers
    }
}

/// The sum of a metric's counters, of those with this code if one is given.
fn counted(registry: &Registry, name: &str, code: Option<&str>) -> u64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).expect("registered");
    let counts = family.get_metric().iter().filter(|metric| {
        code.is_none_or(|code| metric.get_label().iter().any(|label| label.value() == code))
    });
    counts.map(|metric| metric.get_counter().get_value() as u64).sum()
}

/// How many calls ended with this code, and how many with any.
fn ended(registry: &Registry, code: &str) -> (u64, u64) {
    let name = "grpc_server_handled_total";
    (counted(registry, name, Some(code)), counted(registry, name, None))
}

fn chunk(responses: u32, parts: &[&'static str]) -> Result<Chunk, Status> {
    let parts = parts.iter().map(|part| Bytes::from_static(part.as_bytes())).collect();
    Ok(Chunk { parts, responses })
}

#[tokio::test]
async fn parts_go_out_in_order_and_as_they_are() {
    let first = Bytes::from(vec![7; 100]);
    let shared = Chunk { parts: vec![first.clone()], responses: 1 };
    let chunks = [Ok(shared), chunk(2, &["one", "two"]), chunk(0, &[]), chunk(1, &["three"])];
    let mut bench = Bench::new(stream::iter(chunks));
    assert_eq!(bench.data().await.as_ptr(), first.as_ptr(), "copied");
    for part in ["one", "two", "three"] {
        assert_eq!(bench.data().await, part);
    }
    let trailers = bench.trailers().await;
    assert_eq!(trailers.len(), 1);
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(ended(&bench.registry, "OK"), (1, 1));
}

#[tokio::test]
async fn messages_and_bytes_are_counted_without_their_frames() {
    let response = WatchResponse { watch_id: 300, created: true, ..WatchResponse::default() };
    let mut part = vec![0; FRAME_BYTES];
    part[FRAME_BYTES - 1] = u8::try_from(response.encoded_len()).unwrap();
    response.encode(&mut part).unwrap();
    let one = Chunk { parts: vec![part.clone().into()], responses: 1 };
    let two = Chunk { parts: vec![part.clone().into(), part.into()], responses: 2 };
    assert_eq!(two.decode().unwrap(), [response.clone(), response.clone()]);
    let mut bench = Bench::new(stream::iter([Ok(one), Ok(two)]));
    for _ in 0..3 {
        bench.data().await;
    }
    assert_eq!(counted(&bench.registry, "grpc_server_msg_sent_total", None), 3);
    let bytes = 3 * response.encoded_len() as u64;
    assert_eq!(counted(&bench.registry, "etcd_network_client_grpc_sent_bytes_total", None), bytes);
}

#[tokio::test]
async fn a_failure_follows_what_was_sent_and_is_told_in_the_trailers() {
    let failure = Status::new(Code::OutOfRange, "etcdserver: 100 % gone");
    let mut bench =
        Bench::new(stream::iter([chunk(1, &["one"]), Err(failure), chunk(1, &["two"])]));
    assert_eq!(bench.data().await, "one");
    let trailers = bench.trailers().await;
    assert_eq!(trailers["grpc-status"], "11");
    assert_eq!(trailers["grpc-message"], "etcdserver:%20100%20%25%20gone");
    assert_eq!(ended(&bench.registry, "OutOfRange"), (1, 1));
}

#[tokio::test]
async fn an_idle_stream_is_interrupted() {
    let mut bench = Bench::new(stream::iter([chunk(1, &["one"])]).chain(stream::pending()));
    assert_eq!(bench.data().await, "one");
    assert!(poll!(bench.body.frame()).is_pending());
    bench.interrupt.take().unwrap().send(Error::NoLeader).unwrap();
    let trailers = bench.trailers().await;
    assert_eq!(trailers["grpc-status"], "14");
    assert_eq!(trailers["grpc-message"], "etcdserver:%20no%20leader");
    assert_eq!(ended(&bench.registry, "Unavailable"), (1, 1));
}

#[tokio::test]
async fn a_stream_that_the_client_drops_is_canceled() {
    let Bench { mut body, registry, .. } = Bench::new(stream::iter([chunk(1, &["one"])]));
    assert!(body.frame().now_or_never().is_some());
    drop(body);
    assert_eq!(ended(&registry, "Canceled"), (1, 1));
}

#[test]
fn compressed_requests_are_refused() {
    let with = |encoding: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-encoding", encoding.parse().unwrap());
        refuse_compressed(&headers)
    };
    assert!(refuse_compressed(&HeaderMap::new()).is_ok());
    assert!(with("identity").is_ok());
    let status = with("gzip").unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(status.message(), "Content is compressed with `gzip` which isn't supported");
    assert_eq!(status.metadata().get("grpc-accept-encoding").unwrap(), "identity");
}
