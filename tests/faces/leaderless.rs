//! What a member answers that has no leader, or no vote.

use std::time::Duration;

use castd::grpc::FaceOptions;
use castd_proto::etcdserverpb::lease_client::LeaseClient;
use castd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use castd_proto::etcdserverpb::watch_client::WatchClient;
use castd_proto::etcdserverpb::watch_request::RequestUnion;
use castd_proto::etcdserverpb::{
    LeaseKeepAliveRequest, MoveLeaderRequest, RangeRequest, StatusRequest, WatchCreateRequest,
    WatchRequest,
};
use futures::stream;
use tonic::{Code, Request};

use super::node::{Node, absent, begin, begin_among, own};
use super::{everything, put, told};

const NO_LEADER: (Code, &str) = (Code::Unavailable, "etcdserver: no leader");
const LEARNER: (Code, &str) =
    (Code::FailedPrecondition, "etcdserver: rpc not supported for learner");

fn local() -> RangeRequest {
    RangeRequest { serializable: true, ..everything() }
}

fn with_leader<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    request
}

fn create() -> WatchRequest {
    let create = WatchCreateRequest { key: "k".into(), ..WatchCreateRequest::default() };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

async fn says(node: &Node, path: &str, end: &str) {
    let page = node.http(&format!("GET {path}")).await;
    assert!(page.ends_with(end), "{path}: {page}");
}

#[actix::test]
async fn a_member_that_lost_its_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let members = [own(false), absent(8), absent(9)];
    let node = begin_among(dir.path(), FaceOptions::default(), members).await;
    node.serving.open_gate();
    let mut kv = node.kv();
    assert_eq!(kv.range(local()).await.unwrap().into_inner().count, 0);
    assert_eq!(told(&kv.range(with_leader(local())).await.unwrap_err()), NO_LEADER);
    assert_eq!(told(&kv.put(with_leader(put("k", vec![]))).await.unwrap_err()), NO_LEADER);

    let mut watch = WatchClient::new(node.channel.clone());
    let refused = watch.watch(with_leader(stream::iter([create()]))).await.unwrap_err();
    assert_eq!(told(&refused), NO_LEADER);
    let requests = stream::iter([create()]);
    let mut watched = watch.watch(requests).await.unwrap().into_inner();
    assert!(watched.message().await.unwrap().unwrap().created, "who asks for no leader needs none");

    let mut maintenance = MaintenanceClient::new(node.channel.clone());
    let refused = maintenance.move_leader(MoveLeaderRequest { target_id: 8 }).await.unwrap_err();
    assert_eq!(told(&refused), (Code::FailedPrecondition, "etcdserver: not leader"));
    let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.leader, status.is_learner), (0, false));
    assert_eq!(status.errors, ["etcdserver: no leader"]);

    says(&node, "/health", "\r\n{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n").await;
    says(&node, "/health?serializable=true", "\r\n{\"health\":\"true\",\"reason\":\"\"}").await;
    says(&node, "/livez", "\r\nok\n").await;
    says(&node, "/readyz?exclude=linearizable_read", "\r\nok\n").await;
    node.end().await;
}

#[actix::test]
async fn what_waits_for_a_leader_ends_with_etcds_words() {
    let dir = tempfile::tempdir().unwrap();
    let members = [own(false), absent(8), absent(9)];
    let node = begin_among(dir.path(), FaceOptions::default(), members).await;
    node.serving.open_gate();
    let (mut writes, mut reads) = (node.kv(), node.kv());
    let mut leases = LeaseClient::new(node.channel.clone());
    let renewal = stream::iter([LeaseKeepAliveRequest { id: 1 }]);
    let renewing = async {
        let mut answers = leases.lease_keep_alive(renewal).await.unwrap().into_inner();
        answers.message().await.unwrap_err()
    };
    let (write, read, renewal, ready) = tokio::join!(
        writes.put(put("k", vec![])),
        reads.range(everything()),
        renewing,
        node.http("GET /readyz/linearizable_read"),
    );
    let timeout = (Code::Unavailable, "etcdserver: request timed out");
    let never_proposed = (Code::DeadlineExceeded, "context deadline exceeded");
    assert_eq!(told(&write.unwrap_err()), never_proposed);
    assert_eq!(told(&read.unwrap_err()), timeout);
    assert_eq!(told(&renewal), NO_LEADER);
    let text = "\r\n[-]linearizable_read failed: etcdserver: request timed out\n\n";
    assert!(ready.ends_with(text), "{ready}");
    node.end().await;
}

#[actix::test]
async fn a_learner_answers_little() {
    let dir = tempfile::tempdir().unwrap();
    let members = [own(true), absent(8)];
    let node = begin_among(dir.path(), FaceOptions::default(), members).await;
    node.serving.open_gate();
    let mut kv = node.kv();
    assert_eq!(kv.range(local()).await.unwrap().into_inner().count, 0);
    assert_eq!(told(&kv.range(everything()).await.unwrap_err()), LEARNER);
    assert_eq!(told(&kv.put(put("k", vec![])).await.unwrap_err()), LEARNER);
    assert_eq!(told(&kv.range_stream(local()).await.unwrap_err()), LEARNER);
    let mut watch = WatchClient::new(node.channel.clone());
    assert_eq!(told(&watch.watch(stream::iter([create()])).await.unwrap_err()), LEARNER);
    let mut maintenance = MaintenanceClient::new(node.channel.clone());
    let refused = maintenance.move_leader(MoveLeaderRequest { target_id: 8 }).await.unwrap_err();
    assert_eq!(told(&refused), LEARNER);
    let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    assert!(status.is_learner);
    let text = "\r\n[-]non_learner failed: not supported for learner\n\n";
    says(&node, "/readyz/non_learner", text).await;
    says(&node, "/livez", "\r\nok\n").await;
    let page = node.http("GET /metrics").await;
    assert!(page.contains("\netcd_server_is_learner 1\n"), "{page}");
    node.end().await;
}

#[actix::test]
async fn a_stream_that_wants_a_leader_lives_while_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let faces = FaceOptions { election_timeout: Duration::from_millis(50), ..Default::default() };
    let node = begin(dir.path(), faces).await;
    let mut watch = WatchClient::new(node.channel.clone());
    let requests = with_leader(stream::iter([create()]));
    let mut responses = watch.watch(requests).await.unwrap().into_inner();
    assert!(responses.message().await.unwrap().unwrap().created);
    node.kv().put(put("k", vec![])).await.unwrap();
    assert_eq!(responses.message().await.unwrap().unwrap().events.len(), 1);
    node.end().await;
}
