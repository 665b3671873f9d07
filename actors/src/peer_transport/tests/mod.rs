//! Members that talk to each other over loopback, in one process.

mod admission;
mod asks;
mod lanes;
mod relay;
mod snapshots;

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr};
use bytes::Bytes;
use castd_proto::castdpb::{Answer, Question};
use futures::StreamExt;
use futures::future::BoxFuture;
use prometheus::Registry;
use raft::eraftpb::{Entry, Message, MessageType};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::TcpListenerStream;

use self::relay::Relay;
use super::*;
use crate::cluster::{ClusterState, MemberInfo};
use crate::mvcc::{Store, View};
use crate::raft_node::RaftInbound;
use crate::shared::{Error, Inlet, Outlet, Published, Switchboard};
use crate::snapshot::Export;
use crate::wal_writer::Identity;

const CLUSTER: u64 = 0xc1;
const A: u64 = 0xa;
const B: u64 = 0xb;

/// Waits for something that is certain to come.
async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it comes in time")
}

/// What a member's source of snapshots does.
enum Next {
    Give(Box<Export>),
    Fail,
    Panic,
}

struct Source(Published<Next>);

impl SnapshotSource for Source {
    fn export(&self) -> BoxFuture<'_, Result<Export, Error>> {
        Box::pin(async {
            match self.0.get().as_ref() {
                Next::Give(export) => Ok(Export::clone(export)),
                Next::Fail => Err(Error::Stopped),
                Next::Panic => panic!("the test wants it"),
            }
        })
    }
}

/// Answers by what it is told to.
struct Oracle(Published<Result<Answer, Error>>);

impl Questions for Oracle {
    fn answer(&self, _: u64, _: Question) -> BoxFuture<'_, Result<Answer, Error>> {
        Box::pin(std::future::ready(self.0.get().as_ref().clone()))
    }
}

fn settings(cluster_id: u64, member_id: u64) -> PeerSettings {
    let identity = Identity { cluster_id, member_id };
    let tick = Duration::from_millis(100);
    PeerSettings {
        connect_timeout: Duration::from_secs(5),
        ..PeerSettings::new(identity, "3.7.0", tick, 10 * tick)
    }
}

/// One member: its transport, its service behind a listener, and its raft, which is the test.
struct Side {
    settings: PeerSettings,
    inbound: Outlet<RaftInbound>,
    came: VecDeque<RaftInbound>,
    transport: Inlet<PeerMessage>,
    notices: mpsc::Receiver<Notice>,
    status: Published<PeerStatus>,
    view: Published<View>,
    source: Published<Next>,
    oracle: Published<Result<Answer, Error>>,
    service: PeerService,
    registry: Registry,
    address: SocketAddr,
    _actor: Addr<PeerTransport>,
}

impl Side {
    async fn start(settings: PeerSettings) -> Self {
        let board = Switchboard::default();
        let (raft, inbound) = board.mailbox("raft_inbound", 64);
        let (transport, messages) = board.mailbox("peer_transport", 1024);
        let (noticing, mut noticed) = board.mailbox("notices", 1024);
        let registry = Registry::new();
        let metrics = PeerMetrics::new(&registry).unwrap();
        let status = Published::new(PeerStatus::default());
        let source = Published::new(Next::Fail);
        let edges = PeerEdges {
            raft: raft.clone(),
            transport: noticing.clone(),
            status: status.clone(),
            snapshots: Arc::new(Source(source.clone())),
        };
        let actor = PeerTransport::new(settings.clone(), edges, messages, metrics.clone()).start();
        // What the actor is told by its links, the test sees first.
        let (show, notices) = mpsc::channel(1024);
        let onward = transport.clone();
        tokio::spawn(async move {
            while let Some(batch) = noticed.next().await {
                for message in batch {
                    let PeerMessage::Notice(notice) = &message else { continue };
                    let shown = notice.clone();
                    onward.send(message).await.unwrap();
                    show.send(shown).await.unwrap();
                }
            }
        });
        let view = Published::new(Store::default().view(1, 1, Arc::default()));
        let oracle = Published::new(Err(Error::NotLeader));
        let service = PeerService::new(
            settings.clone(),
            ServiceEdges {
                raft,
                transport: noticing,
                view: view.clone(),
                questions: Arc::new(Oracle(oracle.clone())),
            },
            metrics,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_service(service.server());
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self {
            settings,
            inbound,
            came: VecDeque::new(),
            transport,
            notices,
            status,
            view,
            source,
            oracle,
            service,
            registry,
            address,
            _actor: actor,
        }
    }

    fn tell(&self, message: PeerMessage) {
        self.transport.try_send(message).unwrap();
    }

    /// Tells the transport that it and the member `id` at `address` make up the cluster.
    fn meet(&self, id: u64, address: SocketAddr) {
        self.meet_at(id, vec![format!("http://{address}")]);
    }

    fn meet_at(&self, id: u64, peer_urls: Vec<String>) {
        let us = self.settings.identity.member_id;
        let member = |id, peer_urls| (id, MemberInfo { id, peer_urls, ..MemberInfo::default() });
        let own_urls = vec![format!("http://{}", self.address)];
        let members = [member(us, own_urls), member(id, peer_urls)].into();
        let cluster = ClusterState { members, ..ClusterState::default() };
        self.tell(PeerMessage::Members(Arc::new(cluster)));
    }

    fn send(&self, messages: Vec<Message>) {
        self.tell(PeerMessage::Send(messages));
    }

    /// What raft is told next.
    async fn hear(&mut self) -> RaftInbound {
        loop {
            if let Some(next) = self.came.pop_front() {
                return next;
            }
            self.came.extend(within(self.inbound.next()).await.expect("the service lives"));
        }
    }

    /// Takes whatever comes for raft, for as long as this is waited for.
    async fn take_everything(&mut self) {
        while self.inbound.next().await.is_some() {}
    }

    /// The next messages for raft, as many as `count`, whatever else it is told.
    async fn hear_messages(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        while messages.len() < count {
            if let RaftInbound::Step(more) = self.hear().await {
                messages.extend(more);
            }
        }
        messages
    }

    /// Waits for a notice that is wanted; others pass.
    async fn notice(&mut self, wanted: impl Fn(&Notice) -> bool) -> Notice {
        loop {
            let notice = within(self.notices.recv()).await.expect("the relay lives");
            if wanted(&notice) {
                return notice;
            }
        }
    }

    async fn up(&mut self) {
        self.notice(|notice| matches!(notice, Notice::Up { .. })).await;
    }

    async fn down(&mut self) {
        self.notice(|notice| matches!(notice, Notice::Down { .. })).await;
    }

    async fn ask(&self, to: u64, question: Question) -> Result<Answer, Error> {
        let (reply, answer) = oneshot::channel();
        self.tell(PeerMessage::Ask { to, question, reply });
        within(answer).await.expect("every question is answered")
    }

    /// Waits until the transport has handled all it was told before.
    async fn settle(&self) {
        assert_eq!(self.ask(u64::MAX, Question::default()).await, Err(Error::NoLeader));
    }

    /// The sum of a counter or gauge over all its labels.
    fn figure(&self, name: &str) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
        let value = |metric: &prometheus::proto::Metric| {
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        };
        metrics.iter().map(value).sum::<f64>() as u64
    }
}

/// A and B; A's way to B can be broken.
async fn pair() -> (Side, Side, Relay) {
    pair_with(settings(CLUSTER, A)).await
}

async fn pair_with(settings_of_a: PeerSettings) -> (Side, Side, Relay) {
    let b = Side::start(settings(CLUSTER, B)).await;
    let a = Side::start(settings_of_a).await;
    let relay = Relay::start(b.address).await;
    a.meet(B, relay.address);
    (a, b, relay)
}

fn message(kind: MessageType, index: u64) -> Message {
    Message { msg_type: kind.into(), from: A, to: B, index, term: 3, ..Message::default() }
}

fn heartbeat(index: u64) -> Message {
    message(MessageType::MsgHeartbeat, index)
}

fn append(index: u64, bytes: usize) -> Message {
    let data = Bytes::from(vec![index as u8; bytes]);
    let entry = Entry { index, term: 3, data, ..Entry::default() };
    Message { entries: vec![entry], ..message(MessageType::MsgAppend, index) }
}

fn indexes(messages: &[Message]) -> Vec<u64> {
    messages.iter().map(|message| message.index).collect()
}
