//! What it costs to take raft's messages to another member, over loopback and with both
//! ends in one process:
//! `cargo run --release -p castd-actors --example peer_cost -- BATCHES ENTRIES WINDOW`.
//!
//! A batch is what a leader sends in one turn: an append with ENTRIES entries of 300 bytes.
//! The follower answers each with an acknowledgement, and WINDOW batches may wait for theirs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Actor;
use bytes::Bytes;
use castd_actors::cluster::{ClusterState, MemberInfo};
use castd_actors::mvcc::Store;
use castd_actors::peer_transport::{
    PeerEdges, PeerMessage, PeerMetrics, PeerService, PeerSettings, PeerStatus, PeerTransport,
    Questions, ServiceEdges, SnapshotSource,
};
use castd_actors::raft_node::RaftInbound;
use castd_actors::shared::{Inlet, Outlet, Published, Switchboard};
use castd_actors::snapshot::Export;
use castd_actors::{Error, Identity};
use castd_proto::castdpb::{Answer, Question};
use futures::StreamExt;
use futures::future::BoxFuture;
use prometheus::Registry;
use raft::eraftpb::{Entry, Message, MessageType};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

struct Nothing;

impl SnapshotSource for Nothing {
    fn export(&self) -> BoxFuture<'_, Result<Export, Error>> {
        Box::pin(std::future::ready(Err(Error::Stopped)))
    }
}

impl Questions for Nothing {
    fn answer(&self, _: u64, _: Question) -> BoxFuture<'_, Result<Answer, Error>> {
        Box::pin(std::future::ready(Err(Error::Stopped)))
    }
}

struct Member {
    transport: Inlet<PeerMessage>,
    inbound: Outlet<RaftInbound>,
    url: String,
}

async fn member(member_id: u64) -> Member {
    let board = Switchboard::default();
    let (raft, inbound) = board.mailbox("raft_inbound", 256);
    let (transport, messages) = board.mailbox("peer_transport", 1024);
    let identity = Identity { cluster_id: 1, member_id };
    let tick = Duration::from_millis(100);
    let settings = PeerSettings::new(identity, "3.7.0", tick, 10 * tick);
    let metrics = PeerMetrics::new(&Registry::new()).expect("the names are free");
    let edges = PeerEdges {
        raft: raft.clone(),
        transport: transport.clone(),
        status: Published::new(PeerStatus::default()),
        snapshots: Arc::new(Nothing),
    };
    PeerTransport::new(settings.clone(), edges, messages, metrics.clone()).start();
    let service_edges = ServiceEdges {
        raft,
        transport: transport.clone(),
        view: Published::new(Store::default().view(1, 1, Arc::default())),
        questions: Arc::new(Nothing),
    };
    let service = PeerService::new(settings, service_edges, metrics);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let server = tonic::transport::Server::builder()
        .initial_stream_window_size(2 << 20)
        .initial_connection_window_size(8 << 20)
        .add_service(service.server());
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Member { transport, inbound, url }
}

fn message(kind: MessageType, from: u64, index: u64) -> Message {
    Message { msg_type: kind.into(), from, to: 3 - from, index, term: 3, ..Message::default() }
}

async fn send(to: &Inlet<PeerMessage>, message: Message) {
    to.send(PeerMessage::Send(vec![message])).await.expect("the transport lives");
}

async fn follow(mut follower: Member) {
    while let Some(batch) = follower.inbound.next().await {
        for inbound in batch {
            let RaftInbound::Step(messages) = inbound else { continue };
            for append in messages {
                let answer = message(MessageType::MsgAppendResponse, 2, append.index);
                send(&follower.transport, answer).await;
            }
        }
    }
}

async fn run(batches: u64, entries: u64, window: u64) {
    let (mut leader, follower) = (member(1).await, member(2).await);
    let urls = [(1, leader.url.clone()), (2, follower.url.clone())];
    let info = |(id, url)| (id, MemberInfo { id, peer_urls: vec![url], ..MemberInfo::default() });
    let cluster = ClusterState { members: urls.map(info).into(), ..ClusterState::default() };
    for side in [&leader, &follower] {
        let members = PeerMessage::Members(Arc::new(cluster.clone()));
        side.transport.send(members).await.expect("the transport lives");
    }
    actix::spawn(follow(follower));
    let entry = Entry { term: 3, data: Bytes::from(vec![7; 300]), ..Entry::default() };
    let (cpu, clock) = (cpu_time(), Instant::now());
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < batches {
        while sent < batches && sent < acknowledged + window {
            let mut append = message(MessageType::MsgAppend, 1, sent);
            append.entries = vec![entry.clone(); usize::try_from(entries).unwrap_or(1)];
            send(&leader.transport, append).await;
            sent += 1;
        }
        for inbound in leader.inbound.next().await.expect("the service lives") {
            if let RaftInbound::Step(messages) = inbound {
                acknowledged += messages.len() as u64;
            }
        }
    }
    let (cpu, clock) = (cpu_time() - cpu, clock.elapsed());
    println!(
        "{batches} batches of {entries} entries and their answers: {:.0} batches a second, \
         {:.1} us of CPU each, {:.2} us an entry",
        batches as f64 / clock.as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / batches as f64,
        cpu.as_secs_f64() * 1e6 / (batches * entries) as f64
    );
}

fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse().expect("a number"));
    let batches = args.next().unwrap_or(50_000);
    let entries = args.next().unwrap_or(8);
    let window = args.next().unwrap_or(64);
    actix::System::new().block_on(run(batches, entries, window));
}
