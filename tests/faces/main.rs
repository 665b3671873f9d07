//! The network faces over a company on a real disk, as clients meet them.
#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

mod leaderless;
mod node;

use std::time::Duration;

use castd::grpc::FaceOptions;
use castd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use castd_proto::etcdserverpb::request_op::Request as Op;
use castd_proto::etcdserverpb::watch_client::WatchClient;
use castd_proto::etcdserverpb::watch_request::RequestUnion;
use castd_proto::etcdserverpb::{
    AlarmRequest, DeleteRangeRequest, MoveLeaderRequest, PutRequest, RangeRequest, RequestOp,
    SnapshotRequest, TxnRequest, WatchCreateRequest, WatchRequest,
};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use node::{MEMBER, begin, begin_closed};

fn put(key: &str, value: Vec<u8>) -> PutRequest {
    PutRequest { key: key.to_owned().into(), value: value.into(), ..PutRequest::default() }
}

fn everything() -> RangeRequest {
    RangeRequest { key: "\0".into(), range_end: "\0".into(), ..RangeRequest::default() }
}

fn told(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

#[actix::test]
async fn what_is_wrong_is_told_in_etcds_words() {
    let dir = tempfile::tempdir().unwrap();
    let node = begin(dir.path(), FaceOptions::default()).await;
    let mut kv = node.kv();
    let error = kv.put(put("", vec![])).await.unwrap_err();
    assert_eq!(told(&error), (Code::InvalidArgument, "etcdserver: key is not provided"));
    let error = kv.put(put("k", vec![0; 1600 << 10])).await.unwrap_err();
    assert_eq!(told(&error), (Code::InvalidArgument, "etcdserver: request is too large"));
    let error = kv.put(put("k", vec![0; 3 << 20])).await.unwrap_err();
    // The key's field takes 3 bytes, the value's tag and length 5.
    let text = "grpc: received message larger than max (3145736 vs. 2097152)";
    assert_eq!(told(&error), (Code::ResourceExhausted, text));
    let mut odd = Request::new(put("k", vec![]));
    let version = MetadataValue::try_from(&b"3.\xff"[..]).unwrap();
    odd.metadata_mut().insert("client-api-version", version);
    let error = kv.put(odd).await.unwrap_err();
    assert_eq!(told(&error), (Code::InvalidArgument, "etcdserver: invalid client api version"));
    let mut maintenance = MaintenanceClient::new(node.channel.clone());
    let error = maintenance.snapshot(SnapshotRequest {}).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
    assert_eq!(error.message(), "castd: etcdserverpb.Maintenance/Snapshot is not supported yet");
    let error = maintenance.move_leader(MoveLeaderRequest { target_id: 99 }).await.unwrap_err();
    assert_eq!(told(&error), (Code::FailedPrecondition, "etcdserver: bad leader transferee"));
    maintenance.move_leader(MoveLeaderRequest { target_id: MEMBER }).await.unwrap();
    node.end().await;
}

#[actix::test]
async fn clients_wait_in_front_of_the_gate() {
    let dir = tempfile::tempdir().unwrap();
    let node = begin_closed(dir.path(), FaceOptions::default()).await;
    let mut kv = node.kv();
    let mut waiting = std::pin::pin!(async move { kv.put(put("k", vec![])).await });
    let mut hurried = Request::new(everything());
    hurried.set_timeout(Duration::from_millis(100));
    let mut kv = node.kv();
    let mut health = Box::pin(node.http("GET /health"));
    tokio::select! {
        answer = waiting.as_mut() => panic!("the gate is closed: {answer:?}"),
        page = health.as_mut() => panic!("the gate is closed: {page}"),
        answer = kv.range(hurried) => {
            assert_eq!(answer.unwrap_err().code(), Code::Cancelled, "the client's own deadline");
        }
    }
    node.serving.open_gate();
    waiting.await.unwrap();
    let health = health.await;
    assert!(health.ends_with("{\"health\":\"true\",\"reason\":\"\"}"), "{health}");
    assert!(node.http("GET /version").await.starts_with("HTTP/1.1 200 OK\r\n"));
    let found = node.kv().range(everything()).await.unwrap().into_inner();
    assert_eq!(found.count, 1);
    node.end().await;
}

#[actix::test]
async fn paths_that_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let node = begin(dir.path(), FaceOptions::default()).await;
    for (path, text) in [
        ("/etcdserverpb.KV/Steal", "unknown method Steal for service etcdserverpb.KV"),
        ("/no.Service/Range", "unknown service no.Service"),
    ] {
        let mut client = tonic::client::Grpc::new(node.channel.clone());
        client.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<RangeRequest, RangeRequest>::default();
        let path = http::uri::PathAndQuery::from_static(path);
        let answer: Result<tonic::Response<RangeRequest>, _> =
            client.unary(Request::new(everything()), path, codec).await;
        assert_eq!(told(&answer.unwrap_err()), (Code::Unimplemented, text));
    }
    let answer = node.http("GET /nowhere").await;
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n404 page not found\n"), "{answer}");
    let answer = node.http("POST /livez").await;
    assert!(answer.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{answer}");
    assert!(answer.contains("\r\nallow: GET\r\n"), "{answer}");
    node.end().await;
}

#[actix::test]
async fn a_full_store_raises_the_alarm_and_lets_deletions_through() {
    let dir = tempfile::tempdir().unwrap();
    let faces = FaceOptions { quota_backend_bytes: 1, ..FaceOptions::default() };
    let node = begin(dir.path(), faces).await;
    let mut kv = node.kv();
    for _ in 0..3 {
        let error = kv.put(put("k", vec![])).await.unwrap_err();
        assert_eq!(
            told(&error),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
        );
    }
    let mut maintenance = MaintenanceClient::new(node.channel.clone());
    let alarms = maintenance.alarm(AlarmRequest::default()).await.unwrap().into_inner().alarms;
    let raised: Vec<(u64, i32)> = alarms.iter().map(|a| (a.member_id, a.alarm)).collect();
    assert_eq!(raised, [(MEMBER, 1)]);
    let health = node.http("GET /health").await;
    assert!(health.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{health}");
    assert!(
        health.ends_with("\r\n{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n"),
        "{health}"
    );
    let excluded = node.http("GET /health?exclude=NOSPACE").await;
    assert!(excluded.ends_with("\r\n{\"health\":\"true\",\"reason\":\"\"}"), "{excluded}");
    let ready = node.http("GET /readyz?verbose&exclude=non_learner").await;
    assert!(
        ready.ends_with(
            "\r\n\r\n[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\nok\n"
        ),
        "{ready}"
    );
    kv.delete_range(DeleteRangeRequest { key: "k".into(), ..DeleteRangeRequest::default() })
        .await
        .unwrap();
    kv.range(everything()).await.unwrap();
    let metrics = node.http("GET /metrics").await;
    for line in [
        "etcd_server_quota_backend_bytes 1",
        "etcd_debugging_server_alarms{alarm_type=\"NOSPACE\",server_id=\"7\"} 1",
        "etcd_server_health_failures 1",
        "etcd_server_health_success 1",
        "grpc_server_handled_total{grpc_code=\"ResourceExhausted\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 3",
        "etcd_server_client_requests_total{client_api_version=\"unknown\",type=\"unary\"} 6",
    ] {
        assert!(metrics.contains(&format!("\n{line}\n")), "no {line} in\n{metrics}");
    }
    node.end().await;
}

#[actix::test]
async fn long_ranges_are_whole() {
    let dir = tempfile::tempdir().unwrap();
    let node = begin(dir.path(), FaceOptions::default()).await;
    let mut kv = node.kv();
    for hundred in 0..50 {
        let success = (0..100)
            .map(|n| {
                let request = put(&format!("k{hundred:02}{n:02}"), vec![b'v'; 16]);
                RequestOp { request: Some(Op::RequestPut(request)) }
            })
            .collect();
        kv.txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap();
    }
    let plain = kv.range(RangeRequest { limit: 4096, ..everything() }).await.unwrap().into_inner();
    assert_eq!((plain.kvs.len(), plain.more, plain.count), (4096, true, 5000));
    let long = kv.range(everything()).await.unwrap().into_inner();
    assert_eq!((long.kvs.len(), long.more, long.count), (5000, false, 5000));
    assert_eq!(long.header, plain.header);
    assert_eq!(long.kvs[..4096], plain.kvs);
    let error = kv.range(RangeRequest { revision: 1000, ..everything() }).await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange);
    let mut pieces = kv.range_stream(everything()).await.unwrap().into_inner();
    let mut streamed = Vec::new();
    let mut last = None;
    while let Some(piece) = pieces.message().await.unwrap() {
        let piece = piece.range_response.unwrap();
        streamed.extend(piece.kvs);
        last = Some((piece.header, piece.more, piece.count));
    }
    assert_eq!(streamed, long.kvs);
    assert_eq!(last, Some((long.header, false, 5000)));
    node.end().await;
}

#[actix::test]
async fn a_node_that_leaves_ends_its_streams() {
    let dir = tempfile::tempdir().unwrap();
    let node = begin(dir.path(), FaceOptions::default()).await;
    let create = WatchCreateRequest { key: "k".into(), ..WatchCreateRequest::default() };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The client sends nothing more: half-closed, it still listens.
    let requests = futures::stream::iter([request]);
    let mut watch = WatchClient::new(node.channel.clone());
    let mut responses = watch.watch(requests).await.unwrap().into_inner();
    assert!(responses.message().await.unwrap().unwrap().created);
    node.kv().put(put("k", vec![])).await.unwrap();
    assert_eq!(responses.message().await.unwrap().unwrap().events.len(), 1);
    let mut kv = node.kv();
    // Far less than the time that open connections are given.
    tokio::time::timeout(Duration::from_secs(4), node.end()).await.unwrap();
    let error = responses.message().await.unwrap_err();
    assert_eq!(told(&error), (Code::Unavailable, "etcdserver: server stopped"));
    assert_eq!(kv.put(put("k", vec![])).await.unwrap_err().code(), Code::Unavailable);
}
