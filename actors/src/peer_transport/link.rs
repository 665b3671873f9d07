//! A link: everything that goes to one other member.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use castd_proto::castdpb::{Answer, Question};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinSet;

use super::deliver::DeliverLane;
use super::messages::PeerMessage;
use super::metrics::LinkFigures;
use super::pacing::SharedRate;
use super::queue::{LaneReceiver, LaneSender, lane_queue};
use super::settings::PeerSettings;
use super::snapshot_lane::{Parting, SnapshotLane, SnapshotSource};
use super::wire::Caller;
use crate::raft_node::RaftInbound;
use crate::shared::{Error, Inlet, Published};

/// Messages that may wait for the urgent lane, and their bytes.
const URGENT: (usize, usize) = (4096, 16 << 20);
/// The same for the bulk lane.
const BULK: (usize, usize) = (4096, 64 << 20);
/// Questions that may wait.
const ASKS: usize = 256;

/// What every part of a link knows.
#[derive(Clone)]
pub(super) struct LinkBasics {
    pub(super) peer: u64,
    /// Tells the links there were to this member apart.
    pub(super) serial: u64,
    /// Where the member is looked for, in turn.
    pub(super) addresses: Published<Vec<String>>,
    pub(super) settings: Arc<PeerSettings>,
    pub(super) caller: Caller,
    pub(super) figures: LinkFigures,
    pub(super) losses: Losses,
    /// All snapshots that leave share it.
    pub(super) snapshot_rate: SharedRate,
    pub(super) transport: Inlet<PeerMessage>,
    /// Wakes a lane that waits between two attempts.
    pub(super) wake: Arc<Notify>,
}

/// PeerTransport's end of a link. Dropping it ends the link.
#[derive(Debug)]
pub(super) struct LinkDoor {
    pub(super) serial: u64,
    /// The URLs the cluster has for the member.
    pub(super) urls: Vec<String>,
    addresses: Published<Vec<String>>,
    pub(super) urgent: LaneSender,
    pub(super) bulk: LaneSender,
    pub(super) snapshots: mpsc::Sender<Parting>,
    pub(super) asks: mpsc::Sender<Asked>,
    pub(super) wake: Arc<Notify>,
    pub(super) figures: LinkFigures,
    pub(super) losses: Losses,
    _alive: oneshot::Sender<()>,
}

impl LinkDoor {
    /// The cluster has other URLs for the member. What is connected stays so:
    /// the member moves when it is started again, and may be found where it was
    /// until then.
    pub(super) fn moved(&mut self, urls: Vec<String>) {
        let old = std::mem::replace(&mut self.urls, urls);
        let mut addresses = self.urls.clone();
        addresses.extend(old.into_iter().filter(|url| !self.urls.contains(url)));
        self.addresses.set(addresses.into());
        self.wake.notify_waiters();
    }

    /// Whether the link has ended by itself.
    pub(super) fn is_dead(&self) -> bool {
        self.urgent.is_closed()
    }
}

/// Starts a link on the current arbiter.
pub(super) fn start(basics: LinkBasics, source: Arc<dyn SnapshotSource>) -> LinkDoor {
    let (urgent, urgent_queue) = lane_queue(URGENT.0, URGENT.1);
    let (bulk, bulk_queue) = lane_queue(BULK.0, BULK.1);
    let (snapshots, snapshot_queue) = mpsc::channel(1);
    let (asks, ask_queue) = mpsc::channel(ASKS);
    let (alive, ended) = oneshot::channel();
    let door = LinkDoor {
        serial: basics.serial,
        urls: basics.addresses.get().to_vec(),
        addresses: basics.addresses.clone(),
        urgent,
        bulk,
        snapshots,
        asks,
        wake: Arc::clone(&basics.wake),
        figures: basics.figures.clone(),
        losses: basics.losses.clone(),
        _alive: alive,
    };
    let parts = Parts {
        urgent: urgent_queue,
        bulk: bulk_queue,
        snapshots: snapshot_queue,
        asks: ask_queue,
        ended,
        source,
    };
    Link { basics, parts: Some(parts) }.start();
    door
}

struct Parts {
    urgent: LaneReceiver,
    bulk: LaneReceiver,
    snapshots: mpsc::Receiver<Parting>,
    asks: mpsc::Receiver<Asked>,
    ended: oneshot::Receiver<()>,
    source: Arc<dyn SnapshotSource>,
}

/// The actor: it owns the lanes' tasks, and they end with it. A lane that ends, ends the
/// link, and PeerTransport starts another.
struct Link {
    basics: LinkBasics,
    parts: Option<Parts>,
}

impl Actor for Link {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let Parts { urgent, bulk, snapshots, asks, ended, source } =
            self.parts.take().expect("an actor starts once");
        let mut lanes = JoinSet::new();
        lanes.spawn_local(DeliverLane::urgent(self.basics.clone(), urgent, asks).run());
        lanes.spawn_local(DeliverLane::bulk(self.basics.clone(), bulk).run());
        lanes.spawn_local(SnapshotLane::new(self.basics.clone(), snapshots, source).run());
        // The set lives in this future, so the lanes end when the actor does.
        let watch = async move {
            tokio::select! {
                _ = ended => None,
                end = lanes.join_next() => end,
            }
        };
        context.spawn(watch.into_actor(self).map(|end, link, context| {
            if let Some(Err(error)) = end {
                let peer = format!("{:x}", link.basics.peer);
                tracing::error!({ "remote-peer-id" = peer, %error }, "a peer's link failed");
            }
            context.stop();
        }));
    }
}

/// Tells raft that messages to a member are being lost, once in a tick.
#[derive(Clone, Debug)]
pub(super) struct Losses {
    peer: u64,
    raft: Inlet<RaftInbound>,
    tick: Duration,
    start: Instant,
    /// When raft may be told again, in nanoseconds from `start`.
    next_ns: Arc<AtomicU64>,
}

impl Losses {
    pub(super) fn new(peer: u64, raft: Inlet<RaftInbound>, tick: Duration) -> Self {
        Self { peer, raft, tick, start: Instant::now(), next_ns: Arc::new(AtomicU64::new(0)) }
    }

    /// A message was lost.
    pub(super) fn tell(&self) {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let now = self.start.elapsed();
        if ns(now) < self.next_ns.load(Relaxed) {
            return;
        }
        // When raft is too busy to hear it, the next loss tells it.
        if self.raft.try_send(RaftInbound::Unreachable(self.peer)).is_ok() {
            self.next_ns.store(ns(now + self.tick), Relaxed);
        }
    }
}

/// A question on its way. It is answered once, whatever becomes of the link.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) question: Question,
    reply: Option<oneshot::Sender<Result<Answer, Error>>>,
}

impl Asked {
    pub(super) fn new(question: Question, reply: oneshot::Sender<Result<Answer, Error>>) -> Self {
        Self { question, reply: Some(reply) }
    }

    /// Answers; an asker that went away hears nothing.
    pub(super) fn answer(mut self, outcome: Result<Answer, Error>) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(outcome);
        }
    }

    /// The question will not be asked.
    pub(super) fn refuse(self) {
        self.answer(Err(Error::NoLeader));
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(Err(Error::Timeout));
        }
    }
}
