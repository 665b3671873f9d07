//! Who is let in, and with what.

use castd_proto::castdpb::Parcel;
use castd_proto::castdpb::peer_client::PeerClient;
use raft::eraftpb::Snapshot;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::super::wire::Caller;
use super::*;

#[actix::test]
async fn another_cluster_is_refused() {
    let (mut a, mut b, _relay) = pair_with(settings(0xdead, A)).await;
    a.send(vec![heartbeat(1), append(1, 10)]);
    let told = a.notice(|notice| matches!(notice, Notice::Refused { .. })).await;
    assert_eq!(told, Notice::Refused { peer: B, refusal: Refusal::Cluster });
    let logged = b.notice(|notice| matches!(notice, Notice::Turned { .. })).await;
    let refusal = Refusal::Cluster;
    assert_eq!(logged, Notice::Turned { from: A, cluster_id: 0xdead, refusal });
    assert!(futures::poll!(b.inbound.next()).is_pending(), "nothing of it was read");
    a.settle().await;
    assert!(a.status.get().active_since.is_empty() && !a.status.get().removed);
}

#[actix::test]
async fn calls_for_another_member_are_refused() {
    let b = Side::start(settings(CLUSTER, B)).await;
    let mut a = Side::start(settings(CLUSTER, A)).await;
    a.meet(0xc, b.address);
    let told = a.notice(|notice| matches!(notice, Notice::Refused { .. })).await;
    assert_eq!(told, Notice::Refused { peer: 0xc, refusal: Refusal::Member });
}

#[actix::test]
async fn another_major_version_is_refused() {
    let version = "4.0.0".to_owned();
    let (mut a, _b, _relay) = pair_with(PeerSettings { version, ..settings(CLUSTER, A) }).await;
    let told = a.notice(|notice| matches!(notice, Notice::Refused { .. })).await;
    assert_eq!(told, Notice::Refused { peer: B, refusal: Refusal::Version });
}

fn without_a() -> Arc<View> {
    let cluster = ClusterState { removed: [A].into(), ..ClusterState::default() };
    Arc::new(Store::default().view(2, 1, Arc::new(cluster)))
}

#[actix::test]
async fn a_member_that_was_removed_learns_it() {
    let (mut a, mut b, _relay) = pair().await;
    a.up().await;
    a.send(vec![heartbeat(1)]);
    b.hear_messages(1).await;
    assert!(!a.status.get().removed);
    // A's next words on the stream that it has are the last ones.
    b.view.set(without_a());
    a.send(vec![heartbeat(2)]);
    let told = a.notice(|notice| matches!(notice, Notice::Refused { .. })).await;
    assert_eq!(told, Notice::Refused { peer: B, refusal: Refusal::Removed });
    a.settle().await;
    assert!(a.status.get().removed);
    assert!(futures::poll!(b.inbound.next()).is_pending(), "raft was not told");
}

/// What commits a removal is the last thing that the removed member is sent.
#[actix::test]
async fn what_was_said_before_a_member_was_removed_still_arrives() {
    let (mut a, mut b, _relay) = pair().await;
    a.up().await;
    a.send(vec![append(1, 10)]);
    let members = [(A, MemberInfo { id: A, ..MemberInfo::default() })].into();
    let cluster = ClusterState { members, removed: [B].into(), ..ClusterState::default() };
    a.tell(PeerMessage::Members(Arc::new(cluster)));
    assert_eq!(indexes(&b.hear_messages(1).await), [1]);
    a.settle().await;
    assert!(a.status.get().active_since.is_empty(), "it is none that could be reached");
}

#[actix::test]
async fn a_member_that_was_removed_long_ago_learns_it() {
    let b = Side::start(settings(CLUSTER, B)).await;
    b.view.set(without_a());
    let mut a = Side::start(settings(CLUSTER, A)).await;
    a.meet(B, b.address);
    a.notice(|notice| matches!(notice, Notice::Refused { .. })).await;
    a.settle().await;
    assert!(a.status.get().removed);
}

/// A leader that has joined while this member was away must hear how far it is.
#[actix::test]
async fn who_has_joined_meanwhile_is_answered() {
    let mut a = Side::start(settings(CLUSTER, A)).await;
    let mut b = Side::start(settings(CLUSTER, B)).await;
    b.meet(9, b.address);
    a.meet(B, b.address);
    b.notice(|notice| matches!(notice, Notice::Up { peer: A, .. })).await;
    b.settle().await;
    b.send(vec![Message { from: B, to: A, ..heartbeat(7) }]);
    assert_eq!(indexes(&a.hear_messages(1).await), [7]);

    // Who was removed is no stranger.
    let cluster = ClusterState { removed: [A].into(), ..ClusterState::default() };
    b.tell(PeerMessage::Members(Arc::new(cluster)));
    b.settle().await;
    assert!(!b.status.get().active_since.contains_key(&A));
}

/// Whoever knows the cluster's id can call, and say that it is anywhere.
#[actix::test]
async fn a_crowd_of_strangers_does_not_keep_a_leader_out() {
    let a = Side::start(settings(CLUSTER, A)).await;
    let mut b = Side::start(settings(CLUSTER, B)).await;
    b.meet(9, b.address);
    let mut client = client(&b).await;
    for id in 100..120 {
        let caller = Caller::new(&settings(CLUSTER, id), B, &["http://127.0.0.1:1".to_owned()]);
        client.ask(caller.request(Question::default())).await.unwrap();
        b.notice(|notice| matches!(notice, Notice::Caller { from, .. } if *from == id)).await;
    }
    a.meet(B, b.address);
    b.notice(|notice| matches!(notice, Notice::Up { peer: A, .. })).await;
}

async fn client(side: &Side) -> PeerClient<Channel> {
    PeerClient::connect(format!("http://{}", side.address)).await.unwrap()
}

#[actix::test]
async fn messages_that_are_not_the_callers_are_dropped() {
    let mut b = Side::start(settings(CLUSTER, B)).await;
    let snapshot = Some(Snapshot::default());
    let parcel = Parcel {
        messages: vec![
            Message { from: 9, ..heartbeat(1) },
            Message { to: 9, ..heartbeat(2) },
            message(MessageType::MsgHup, 3),
            message(MessageType::MsgUnreachable, 4),
            Message { snapshot, ..message(MessageType::MsgSnapshot, 5) },
            message(MessageType::MsgTransferLeader, 6),
            heartbeat(7),
        ],
        probe: 5,
    };
    let caller = Caller::new(&settings(CLUSTER, A), B, &[]);
    let request = caller.request(futures::stream::iter([parcel]));
    let mut answers = client(&b).await.deliver(request).await.unwrap().into_inner();
    let answer = within(answers.message()).await.unwrap();
    assert_eq!(answer.map(|delivered| delivered.probe), Some(5));
    assert_eq!(within(answers.message()).await.unwrap(), None);
    assert_eq!(indexes(&b.hear_messages(1).await), [7]);
    assert_eq!(b.figure("etcd_network_peer_received_failures_total"), 6);
}

#[actix::test]
async fn a_call_without_a_name_is_refused() {
    let b = Side::start(settings(CLUSTER, B)).await;
    let refused = client(&b).await.ask(Request::new(Question::default())).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(Refusal::of(&refused), Some(Refusal::Nameless));
}
