//! The urgent and the bulk lane.

use super::relay::Mode;
use super::*;

#[actix::test]
async fn messages_arrive_whole_and_in_the_order_of_their_lane() {
    let (mut a, mut b, _relay) = pair().await;
    for batch in 0..50 {
        let indexes = batch * 20..batch * 20 + 20;
        a.send(indexes.flat_map(|index| [append(index, 300), heartbeat(index)]).collect());
    }
    a.up().await;
    let all = b.hear_messages(2000).await;
    let (bulk, urgent): (Vec<Message>, Vec<Message>) =
        all.into_iter().partition(|message| message.msg_type() == MessageType::MsgAppend);
    assert_eq!(indexes(&bulk), (0..1000).collect::<Vec<_>>());
    assert_eq!(indexes(&urgent), (0..1000).collect::<Vec<_>>());
    assert!(bulk.iter().all(|message| *message == append(message.index, 300)));
    let bytes: usize = bulk.iter().chain(&urgent).map(prost::Message::encoded_len).sum();
    assert_eq!(a.figure("etcd_network_peer_sent_bytes_total"), bytes as u64);
    assert_eq!(b.figure("etcd_network_peer_received_bytes_total"), bytes as u64);
    assert_eq!(a.figure("castd_peer_messages_dropped_total"), 0);
    a.settle().await;
    assert!(a.status.get().active_since.contains_key(&B));
    assert_eq!(a.figure("etcd_network_active_peers"), 1);
    assert_eq!(a.figure("etcd_network_known_peers"), 2, "itself included");
}

#[actix::test]
async fn bulk_that_does_not_move_delays_nothing_urgent() {
    let (a, mut b, relay) = pair().await;
    // So much passes on a connection that everything urgent does, and one entry does not.
    relay.set(Mode::StallAfter(64 << 10));
    a.send(vec![append(1, 1 << 20)]);
    for index in 0..100 {
        a.send(vec![heartbeat(index)]);
    }
    let urgent = b.hear_messages(100).await;
    assert!(urgent.iter().all(|message| message.msg_type() == MessageType::MsgHeartbeat));
    relay.set(Mode::Open);
    assert_eq!(b.hear_messages(1).await, [append(1, 1 << 20)]);
}

#[actix::test]
async fn a_link_that_broke_drops_what_comes_and_stands_again() {
    let (mut a, mut b, relay) = pair().await;
    a.up().await;
    a.send(vec![heartbeat(1), append(1, 10)]);
    b.hear_messages(2).await;

    relay.set(Mode::Cut);
    a.down().await;
    a.settle().await;
    assert!(a.status.get().active_since.is_empty());
    assert_eq!(a.figure("etcd_network_disconnected_peers_total"), 1);
    assert!(matches!(a.hear().await, RaftInbound::Unreachable(B)));

    // Nothing is kept for later: raft sends again what it still wants to say.
    while a.figure("castd_peer_messages_dropped_total") == 0 {
        a.send(vec![append(2, 10)]);
        tokio::task::yield_now().await;
        a.settle().await;
    }
    relay.set(Mode::Open);
    a.up().await;
    a.send(vec![heartbeat(3)]);
    let heard = b.hear_messages(1).await;
    assert!(indexes(&heard).iter().all(|index| *index != 1), "nothing is sent twice");
}

#[actix::test]
async fn a_peer_that_falls_silent_is_noticed() {
    let silence = Duration::from_millis(400);
    let (mut a, _b, relay) = pair_with(PeerSettings { silence, ..settings(CLUSTER, A) }).await;
    a.up().await;
    relay.set(Mode::StallAfter(0));
    a.down().await;
    relay.set(Mode::Open);
    a.up().await;
}

#[actix::test]
async fn a_peer_that_calls_is_called_back_at_once() {
    // Once it has failed, A would try again in an hour.
    let hour = Duration::from_secs(3600);
    let settings_of_a = PeerSettings { backoff: (hour, hour), ..settings(CLUSTER, A) };
    let (mut a, mut b, relay) = pair_with(settings_of_a).await;
    a.up().await;
    relay.set(Mode::Cut);
    a.down().await;
    relay.set(Mode::Open);
    b.meet(A, a.address);
    a.up().await;
    b.up().await;
}

#[actix::test]
async fn a_full_queue_drops_counts_and_tells_raft_once_in_a_tick() {
    let hour = Duration::from_secs(3600);
    let settings_of_a = PeerSettings { tick: hour, connect_timeout: hour, ..settings(CLUSTER, A) };
    let b = Side::start(settings(CLUSTER, B)).await;
    let mut a = Side::start(settings_of_a).await;
    let relay = Relay::start(b.address).await;
    relay.set(Mode::StallAfter(0));
    a.meet(B, relay.address);
    for _ in 0..5 {
        a.send((0..1000).map(heartbeat).collect());
    }
    a.settle().await;
    assert_eq!(a.figure("castd_peer_messages_dropped_total"), 5000 - 4096);
    assert_eq!(a.figure("etcd_network_peer_sent_failures_total"), 5000 - 4096);
    assert!(matches!(a.hear().await, RaftInbound::Unreachable(B)));
    // The tick lasts an hour: nothing else was said.
    assert!(futures::poll!(a.inbound.next()).is_pending() && a.came.is_empty());
}

#[actix::test]
async fn who_is_no_member_has_no_link() {
    let (mut a, mut b, mut relay) = pair().await;
    a.up().await;
    relay.connections(2).await;
    a.send(vec![Message { to: 77, ..heartbeat(1) }]);
    a.settle().await;
    assert_eq!(a.figure("castd_peer_messages_undeliverable_total"), 1);

    // B is to move: what is connected stays so, and then it is found at the new
    // place. Later it is removed.
    let mut other = Relay::start(b.address).await;
    a.meet(B, other.address);
    a.send(vec![heartbeat(2)]);
    assert_eq!(indexes(&b.hear_messages(1).await), [2]);
    relay.connections(2).await;
    relay.set(Mode::Cut);
    relay.connections(0).await;
    other.connections(2).await;
    a.meet(77, a.address);
    other.connections(0).await;
    assert!(!a.status.get().active_since.contains_key(&B));
    a.send(vec![heartbeat(3)]);
    a.settle().await;
    assert_eq!(a.figure("castd_peer_messages_undeliverable_total"), 2);
}

#[actix::test]
async fn the_urls_of_a_member_are_tried_in_turn() {
    let b = Side::start(settings(CLUSTER, B)).await;
    let mut a = Side::start(settings(CLUSTER, A)).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let urls = ["https://127.0.0.1:1", &format!("http://{gone}"), &format!("http://{}", b.address)];
    a.meet_at(B, urls.map(str::to_owned).to_vec());
    a.up().await;
}

#[actix::test]
async fn members_of_one_machine_may_talk_over_a_socket_file() {
    let mut b = Side::start(settings(CLUSTER, B)).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peers.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let server = tonic::transport::Server::builder().add_service(b.service.server());
    let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
    tokio::spawn(server.serve_with_incoming(incoming));
    let a = Side::start(settings(CLUSTER, A)).await;
    a.meet_at(B, vec![format!("unix://{}", path.display())]);
    a.send(vec![heartbeat(1)]);
    assert_eq!(indexes(&b.hear_messages(1).await), [1]);
}

#[actix::test]
async fn a_raft_that_falls_behind_makes_its_senders_wait() {
    let (a, mut b, _relay) = pair().await;
    // Raft's mailbox takes 64 parcels, and here each message is larger than a parcel.
    for index in 0..100 {
        a.send(vec![append(index, 1 << 20)]);
        a.settle().await;
    }
    let kept = 100 - a.figure("castd_peer_messages_dropped_total");
    let messages = b.hear_messages(kept as usize).await;
    assert!(messages.is_sorted_by_key(|message| message.index));
}
