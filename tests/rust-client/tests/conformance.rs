//! What users of the `etcd-client` crate rely on: KV, transactions, watches,
//! leases and maintenance, and all of it again after a crash.

use std::collections::HashSet;
use std::time::Duration;

use castd_rust_client::Server;
use etcd_client::{
    AlarmAction, AlarmType, CompactionOptions, Compare, CompareOp, DeleteOptions, Error, EventType,
    GetOptions, KeyValue, LeaseGrantOptions, LeaseTimeToLiveOptions, PutOptions, SortOrder,
    SortTarget, Txn, TxnOp, TxnOpResponse, WatchFilterType, WatchOptions, WatchResponse,
    WatchStream,
};

/// `key=value create/modified/version` of each pair.
fn print(pairs: &[KeyValue]) -> String {
    let print = |kv: &KeyValue| {
        let (key, value) = (kv.key_str().unwrap(), kv.value_str().unwrap());
        format!("{key}={value} {}/{}/{}", kv.create_revision(), kv.mod_revision(), kv.version())
    };
    pairs.iter().map(print).collect::<Vec<_>>().join(" ")
}

/// Insists on a failure with this gRPC text.
fn wants_error<T: std::fmt::Debug>(result: Result<T, Error>, code: &str, text: &str) {
    match result {
        Err(Error::GRpcStatus(status)) => {
            assert_eq!(status.message(), text);
            assert_eq!(format!("{:?}", status.code()), code);
        }
        other => panic!("wanted {text:?}, got {other:?}"),
    }
}

/// The next reply of a stream, within a time that only a hang exceeds.
async fn next(stream: &mut WatchStream) -> WatchResponse {
    let reply = tokio::time::timeout(Duration::from_secs(20), stream.message());
    reply.await.expect("a reply in time").unwrap().expect("the stream goes on")
}

/// Reads `count` events of a stream as `TYPE key=value`.
async fn events(stream: &mut WatchStream, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let reply = next(stream).await;
        assert!(!reply.canceled(), "canceled: {}", reply.cancel_reason());
        for event in reply.events() {
            let kv = event.kv().unwrap();
            let what = if event.event_type() == EventType::Put { "PUT" } else { "DELETE" };
            seen.push(format!("{what} {}={}", kv.key_str().unwrap(), kv.value_str().unwrap()));
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn put_get_delete() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let first = client.put("a", "1", None).await.unwrap();
    assert_eq!(first.header().unwrap().revision(), 2);
    assert!(first.prev_key().is_none());
    let second = client.put("a", "2", Some(PutOptions::new().with_prev_key())).await.unwrap();
    assert_eq!(second.prev_key().unwrap().value(), b"1");
    client.put("b", "9", None).await.unwrap();
    client.put("c", "5", None).await.unwrap();

    let all = client.get("", Some(GetOptions::new().with_all_keys())).await.unwrap();
    assert_eq!(print(all.kvs()), "a=2 2/3/2 b=9 4/4/1 c=5 5/5/1");
    let page =
        client.get("a", Some(GetOptions::new().with_from_key().with_limit(2))).await.unwrap();
    assert_eq!((page.kvs().len(), page.count(), page.more()), (2, 3, true));
    let by_value =
        GetOptions::new().with_all_keys().with_sort(SortTarget::Value, SortOrder::Descend);
    assert_eq!(
        print(client.get("", Some(by_value)).await.unwrap().kvs()),
        "b=9 4/4/1 c=5 5/5/1 a=2 2/3/2"
    );
    let past = client.get("a", Some(GetOptions::new().with_revision(2))).await.unwrap();
    assert_eq!(print(past.kvs()), "a=1 2/2/1");
    let recent = GetOptions::new()
        .with_all_keys()
        .with_min_mod_revision(4)
        .with_keys_only()
        .with_serializable();
    assert_eq!(print(client.get("", Some(recent)).await.unwrap().kvs()), "b= 4/4/1 c= 5/5/1");
    let count =
        client.get("", Some(GetOptions::new().with_all_keys().with_count_only())).await.unwrap();
    assert_eq!((count.kvs().len(), count.count()), (0, 3));

    let gone = client
        .delete("a", Some(DeleteOptions::new().with_range("c").with_prev_key()))
        .await
        .unwrap();
    assert_eq!((gone.deleted(), print(gone.prev_kvs())), (2, "a=2 2/3/2 b=9 4/4/1".to_string()));
    wants_error(client.get("", None).await, "InvalidArgument", "etcdserver: key is not provided");
    let future = client.get("a", Some(GetOptions::new().with_revision(99))).await;
    wants_error(future, "OutOfRange", "etcdserver: mvcc: required revision is a future revision");
    let ignore = client.put("absent", "", Some(PutOptions::new().with_ignore_value())).await;
    wants_error(ignore, "InvalidArgument", "etcdserver: key not found");
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let create = |value: &'static str| {
        Txn::new()
            .when([Compare::create_revision("a", CompareOp::Equal, 0)])
            .and_then([TxnOp::put("a", value, None), TxnOp::put("b", value, None)])
            .or_else([TxnOp::get("a", None)])
    };
    let first = client.txn(create("1")).await.unwrap();
    assert!(first.succeeded());
    assert_eq!(first.header().unwrap().revision(), 2);
    let second = client.txn(create("2")).await.unwrap();
    assert!(!second.succeeded());
    let [TxnOpResponse::Get(get)] = &second.op_responses()[..] else { panic!("{second:?}") };
    assert_eq!(print(get.kvs()), "a=1 2/2/1");

    let nested = Txn::new()
        .when([
            Compare::value("a", CompareOp::Equal, "1").with_range("c"),
            Compare::version("a", CompareOp::Less, 2),
            Compare::lease("a", CompareOp::Equal, 0),
        ])
        .and_then([TxnOp::txn(
            Txn::new().and_then([TxnOp::delete("b", None), TxnOp::put("c", "3", None)]),
        )]);
    assert!(client.txn(nested).await.unwrap().succeeded());
    let all = client.get("", Some(GetOptions::new().with_all_keys())).await.unwrap();
    assert_eq!(print(all.kvs()), "a=1 2/2/1 c=3 3/3/1");

    let twice = Txn::new().and_then([TxnOp::put("d", "1", None), TxnOp::put("d", "2", None)]);
    wants_error(
        client.txn(twice).await,
        "InvalidArgument",
        "etcdserver: duplicate key given in txn request",
    );
    let many = Txn::new()
        .and_then((0..129).map(|i| TxnOp::put(format!("k{i}"), "", None)).collect::<Vec<_>>());
    wants_error(
        client.txn(many).await,
        "InvalidArgument",
        "etcdserver: too many operations in txn request",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for value in ["1", "2", "3", "4"] {
        client.put("a", value, None).await.unwrap();
    }
    client.compact(4, Some(CompactionOptions::new().with_physical())).await.unwrap();
    let text = "etcdserver: mvcc: required revision has been compacted";
    wants_error(
        client.get("a", Some(GetOptions::new().with_revision(3))).await,
        "OutOfRange",
        text,
    );
    wants_error(client.compact(4, None).await, "OutOfRange", text);
    let at = client.get("a", Some(GetOptions::new().with_revision(4))).await.unwrap();
    assert_eq!(print(at.kvs()), "a=3 2/4/3");
    let mut stream =
        client.watch("a", Some(WatchOptions::new().with_start_revision(2))).await.unwrap();
    let mut reply = next(&mut stream).await;
    while reply.created() && !reply.canceled() {
        reply = next(&mut stream).await;
    }
    assert_eq!((reply.canceled(), reply.compact_revision()), (true, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn watches() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut stream =
        client.watch("w/", Some(WatchOptions::new().with_prefix().with_prev_key())).await.unwrap();
    client.put("w/a", "1", None).await.unwrap();
    client.put("other", "x", None).await.unwrap();
    client.put("w/a", "2", None).await.unwrap();
    client.delete("w/a", None).await.unwrap();
    assert_eq!(events(&mut stream, 3).await, ["PUT w/a=1", "PUT w/a=2", "DELETE w/a="]);

    stream
        .watch(
            "w/",
            Some(
                WatchOptions::new()
                    .with_prefix()
                    .with_start_revision(2)
                    .with_watch_id(77)
                    .with_filters([WatchFilterType::NoDelete]),
            ),
        )
        .await
        .unwrap();
    assert_eq!(events(&mut stream, 2).await, ["PUT w/a=1", "PUT w/a=2"]);
    stream.cancel(77).await.unwrap();
    let canceled = next(&mut stream).await;
    assert_eq!((canceled.watch_id(), canceled.canceled()), (77, true));

    stream.request_progress().await.unwrap();
    let progress = next(&mut stream).await;
    assert_eq!((progress.watch_id(), progress.events().len()), (-1, 0));
    assert_eq!(progress.header().unwrap().revision(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn leases() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let granted =
        client.lease_grant(300, Some(LeaseGrantOptions::new().with_id(42))).await.unwrap();
    assert_eq!((granted.id(), granted.ttl()), (42, 300));
    let again = client.lease_grant(300, Some(LeaseGrantOptions::new().with_id(42))).await;
    wants_error(again, "FailedPrecondition", "etcdserver: lease already exists");
    wants_error(
        client.lease_grant(9_000_000_001, None).await,
        "OutOfRange",
        "etcdserver: too large lease TTL",
    );
    client.put("a", "1", Some(PutOptions::new().with_lease(42))).await.unwrap();
    let ttl = client
        .lease_time_to_live(42, Some(LeaseTimeToLiveOptions::new().with_keys()))
        .await
        .unwrap();
    assert_eq!((ttl.granted_ttl(), ttl.keys().to_vec()), (300, vec![b"a".to_vec()]));
    let (mut keeper, mut replies) = client.lease_keep_alive(42).await.unwrap();
    keeper.keep_alive().await.unwrap();
    assert_eq!(replies.message().await.unwrap().expect("a reply").ttl(), 300);
    assert!(client.lease_keep_alive(4711).await.is_err(), "a lease that is not there");
    let listed = client.leases().await.unwrap();
    assert_eq!(listed.leases().iter().map(|l| l.id()).collect::<Vec<_>>(), [42]);
    client.lease_revoke(42).await.unwrap();
    assert_eq!(client.get("a", None).await.unwrap().count(), 0);
    wants_error(client.lease_revoke(42).await, "NotFound", "etcdserver: requested lease not found");

    let short = client.lease_grant(1, None).await.unwrap();
    assert_eq!(short.ttl(), 2);
    let mut stream = client.watch("short", None).await.unwrap();
    client.put("short", "1", Some(PutOptions::new().with_lease(short.id()))).await.unwrap();
    assert_eq!(events(&mut stream, 2).await, ["PUT short=1", "DELETE short="]);
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.put("a", "1", None).await.unwrap();
    let status = client.status().await.unwrap();
    let member = status.header().unwrap().member_id();
    assert!(!status.is_learner());
    assert!(status.raft_applied_index() > 0 && status.db_size() > 0);
    let members = client.member_list().await.unwrap();
    assert_eq!(members.members().len(), server.member_count());
    assert!(members.members().iter().any(|m| m.id() == member));
    assert!(members.members().iter().any(|m| m.id() == status.leader()));
    assert!(members.members().iter().any(|m| m.name() == "m1"));
    if server.member_count() > 1 {
        return; // each of the calls that follow asks another member
    }
    assert_eq!(client.hash_kv(0).await.unwrap().hash(), client.hash_kv(2).await.unwrap().hash());
    if server.member_count() > 1 {
        return; // each of the calls that follow asks another member
    }
    assert_eq!(client.hash_kv(0).await.unwrap().compact_version(), -1);
    assert_ne!(client.hash().await.unwrap().hash(), 0);
    client.defragment().await.unwrap();
    let alarms = client.alarm(AlarmAction::Get, AlarmType::None, None).await.unwrap();
    assert!(alarms.alarms().is_empty());
    assert_eq!(print(client.get("a", None).await.unwrap().kvs()), "a=1 2/2/1");
}

/// Three crashes under writes: what was acknowledged is there, with its revision.
#[tokio::test(flavor = "multi_thread")]
async fn survives_crashes() {
    let mut server = Server::start().await;
    let mut acknowledged = HashSet::new();
    for round in 0..3 {
        let mut client = server.client().await;
        for i in 0..50 {
            let key = format!("{round}/{i}");
            let revision =
                client.put(key.as_str(), "v", None).await.unwrap().header().unwrap().revision();
            acknowledged.insert((key, revision));
        }
        drop(client);
        server.kill_and_restart().await;
    }
    let mut client = server.client().await;
    let all = client.get("", Some(GetOptions::new().with_all_keys())).await.unwrap();
    let stored =
        all.kvs().iter().map(|kv| (kv.key_str().unwrap().to_string(), kv.mod_revision())).collect();
    assert_eq!(acknowledged, stored);
}
