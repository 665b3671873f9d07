//! The snapshot lane, from one store to another.

use std::time::Instant;

use castd_proto::castdpb::peer_client::PeerClient;
use castd_proto::castdpb::{SnapshotPiece, snapshot_piece};
use castd_proto::etcdserverpb::PutRequest;
use futures::stream;
use raft::eraftpb::{Snapshot, SnapshotMetadata};
use tonic::Code;

use super::super::wire::Caller;
use super::relay::Mode;
use super::*;
use crate::mvcc::{Origin, StoreMeta};

/// A state at index 50 of so many random-looking kilobytes.
fn state(kib: usize) -> Box<Export> {
    let mut store = Store::default();
    for number in 0..kib {
        let key = Bytes::from(format!("key/{number}"));
        let value = (0..1024).map(|i| ((i * number * 2_654_435_761) >> 7) as u8).collect();
        store.put(PutRequest { key, value, ..PutRequest::default() }).unwrap();
    }
    store.finish_batch();
    let members = [A, B].map(|id| (id, MemberInfo { id, ..MemberInfo::default() })).into();
    let cluster = ClusterState { members, ..ClusterState::default() };
    let meta = StoreMeta {
        cluster_id: CLUSTER,
        member_id: A,
        revision: store.revision(),
        compact_revision: store.compact_revision(),
        leases: store.lease_meta(),
        cluster: cluster.clone(),
        origin: Origin::Log,
    };
    let view = store.view(50, 3, Arc::new(cluster));
    Box::new(Export::new(meta, Arc::new(view)))
}

fn snapshot(index: u64) -> Message {
    let metadata = Some(SnapshotMetadata { index, term: 2, ..SnapshotMetadata::default() });
    let snapshot = Some(Snapshot { metadata, ..Snapshot::default() });
    Message { snapshot, ..message(MessageType::MsgSnapshot, 0) }
}

/// What raft at A hears of its snapshot.
async fn outcome(a: &mut Side) -> bool {
    loop {
        if let RaftInbound::SnapshotSent { to, arrived } = a.hear().await {
            assert_eq!(to, B);
            return arrived;
        }
    }
}

#[actix::test]
async fn a_state_arrives_whole_and_at_the_rate_allowed() {
    let rate = 2 << 20;
    let settings_of_a = PeerSettings { snapshot_bytes_per_second: rate, ..settings(CLUSTER, A) };
    let (mut a, mut b, _relay) = pair_with(settings_of_a).await;
    a.source.set(Arc::new(Next::Give(state(2048))));
    let start = Instant::now();
    // raft knew of index 40 only when it asked.
    a.send(vec![snapshot(40)]);
    let RaftInbound::Snapshot { message, state, hold } = b.hear().await else {
        panic!("raft is told of a snapshot")
    };
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(700), "2 MiB at 2 MiB/s in {took:?}");
    assert!(futures::poll!(a.inbound.next()).is_pending(), "A does not know that it is in force");
    drop(hold);
    assert!(outcome(&mut a).await);
    let metadata = message.get_snapshot().get_metadata();
    assert_eq!((metadata.index, metadata.term), (50, 3));
    assert_eq!(metadata.get_conf_state().voters, [A, B]);
    let (store, meta) = state.into_state();
    assert_eq!((meta.revision, store.revision()), (2049, 2049));
    assert_eq!(a.figure("etcd_network_snapshot_send_success"), 1);
    assert_eq!(b.figure("etcd_network_snapshot_receive_success"), 1);
    assert_eq!(a.figure("etcd_network_snapshot_send_inflights_total"), 0);
    assert!(futures::poll!(a.inbound.next()).is_pending(), "raft is told once");
}

#[actix::test]
async fn a_way_that_breaks_leaves_nothing_behind() {
    let (mut a, mut b, relay) = pair().await;
    a.up().await;
    a.source.set(Arc::new(Next::Give(state(2048))));
    relay.set(Mode::CutAfter(1 << 20));
    a.send(vec![snapshot(40)]);
    assert!(!outcome(&mut a).await);
    assert_eq!(a.figure("etcd_network_snapshot_send_failures"), 1);
    // It can be sent again.
    relay.set(Mode::Open);
    a.send(vec![snapshot(40)]);
    tokio::select! {
        sent = outcome(&mut a) => assert!(sent),
        () = b.take_everything() => panic!("the service lives"),
    }
    assert_eq!(b.figure("etcd_network_snapshot_receive_success"), 1);
}

#[actix::test]
async fn a_snapshot_that_makes_no_progress_is_given_up() {
    let snapshot_stall = Duration::from_millis(300);
    let settings_of_a = PeerSettings { snapshot_stall, ..settings(CLUSTER, A) };
    let (mut a, _b, relay) = pair_with(settings_of_a).await;
    a.up().await;
    a.source.set(Arc::new(Next::Give(state(4096))));
    relay.set(Mode::StallAfter(1 << 20));
    a.send(vec![snapshot(40)]);
    assert!(!outcome(&mut a).await);
}

#[actix::test]
async fn who_takes_long_to_install_is_waited_for_while_it_lives() {
    let snapshot_stall = Duration::from_millis(50);
    let settings_of_a = PeerSettings { snapshot_stall, ..settings(CLUSTER, A) };
    let (mut a, mut b, relay) = pair_with(settings_of_a).await;
    a.up().await;
    a.source.set(Arc::new(Next::Give(state(1))));
    a.send(vec![snapshot(40)]);
    let RaftInbound::Snapshot { hold, .. } = b.hear().await else { panic!("a snapshot") };
    let twice_the_stall = tokio::time::sleep(2 * snapshot_stall);
    tokio::select! {
        sent = outcome(&mut a) => panic!("it is not in force, and A hears {sent}"),
        () = twice_the_stall => {}
    }
    relay.set(Mode::Cut);
    assert!(outcome(&mut a).await, "raft is to ask what became of it");
    assert_eq!(a.figure("etcd_network_snapshot_send_failures"), 1);
    drop(hold);
}

#[actix::test]
async fn a_state_that_is_older_than_raft_s_is_not_sent() {
    let (mut a, _b, _relay) = pair().await;
    a.source.set(Arc::new(Next::Give(state(1))));
    a.send(vec![snapshot(51)]);
    assert!(!outcome(&mut a).await);
    a.source.set(Arc::new(Next::Fail));
    a.send(vec![snapshot(40)]);
    assert!(!outcome(&mut a).await);
}

#[actix::test]
async fn a_link_that_panics_is_started_again_and_raft_hears_of_its_snapshot() {
    let (mut a, mut b, _relay) = pair().await;
    a.up().await;
    a.source.set(Arc::new(Next::Panic));
    a.send(vec![snapshot(40)]);
    assert!(!outcome(&mut a).await);
    a.up().await;
    assert_eq!(a.figure("castd_peer_link_restarts_total"), 1);
    a.send(vec![heartbeat(1)]);
    assert_eq!(indexes(&b.hear_messages(1).await), [1]);
}

#[actix::test]
async fn a_snapshot_for_nobody_and_one_too_many_are_reported() {
    let hour = Duration::from_secs(3600);
    let b = Side::start(settings(CLUSTER, B)).await;
    let settings_of_a = PeerSettings { connect_timeout: hour, ..settings(CLUSTER, A) };
    let mut a = Side::start(settings_of_a).await;
    a.send(vec![snapshot(40)]);
    assert!(!outcome(&mut a).await);
    // One is sent, one waits, the third is too many; when the link ends, so do they.
    let relay = Relay::start(b.address).await;
    relay.set(Mode::StallAfter(0));
    a.source.set(Arc::new(Next::Give(state(1))));
    a.meet(B, relay.address);
    a.send(vec![snapshot(40)]);
    a.send(vec![snapshot(40), snapshot(40), snapshot(40)]);
    let first = outcome(&mut a).await;
    a.meet(77, a.address);
    let rest = [outcome(&mut a).await, outcome(&mut a).await, outcome(&mut a).await];
    assert_eq!((first, rest), (false, [false; 3]));
    a.settle().await;
    assert!(futures::poll!(a.inbound.next()).is_pending() && a.came.is_empty());
}

#[actix::test]
async fn what_is_no_snapshot_is_refused_and_one_comes_at_a_time() {
    let mut b = Side::start(settings(CLUSTER, B)).await;
    let caller = Caller::new(&settings(CLUSTER, A), B, &[]);
    let mut client = PeerClient::connect(format!("http://{}", b.address)).await.unwrap();
    let piece = |piece| SnapshotPiece { piece: Some(piece) };
    let first = piece(snapshot_piece::Piece::Message(snapshot(40)));
    let junk = piece(snapshot_piece::Piece::State(Bytes::from_static(b"not a state")));

    for (pieces, code) in [
        (vec![], Code::InvalidArgument),
        (vec![junk.clone()], Code::InvalidArgument),
        (vec![first.clone(), first.clone()], Code::InvalidArgument),
        (vec![first.clone(), junk], Code::DataLoss),
        (vec![first.clone()], Code::DataLoss),
    ] {
        let request = caller.request(stream::iter(pieces));
        assert_eq!(client.send_snapshot(request).await.unwrap_err().code(), code);
    }

    let with_state = |first| -> Vec<_> {
        let pieces = state(4).into_pieces(1000);
        let pieces = pieces.map(|bytes| piece(snapshot_piece::Piece::State(bytes)));
        [first].into_iter().chain(pieces).collect()
    };
    // The message is of index 40, the state of 50.
    let request = caller.request(stream::iter(with_state(first)));
    assert_eq!(client.send_snapshot(request).await.unwrap_err().code(), Code::DataLoss);

    let mut of_the_state = snapshot(40);
    state(4).place(&mut of_the_state).unwrap();
    let whole = with_state(piece(snapshot_piece::Piece::Message(of_the_state)));
    let send = || {
        let (mut client, request) = (client.clone(), caller.request(stream::iter(whole.clone())));
        tokio::spawn(async move { client.send_snapshot(request).await })
    };
    let calls = [send(), send()];
    let RaftInbound::Snapshot { hold, .. } = b.hear().await else { panic!("a snapshot") };
    assert!(futures::poll!(b.inbound.next()).is_pending(), "the second waits for the first");
    drop(hold);
    let RaftInbound::Snapshot { hold, .. } = b.hear().await else { panic!("a snapshot") };
    drop(hold);
    for call in calls {
        within(call).await.unwrap().unwrap();
    }
}
