//! The shell of RaftNode: an actix actor that feeds its core and carries out
//! what comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, StreamHandler};

use super::core::RaftCore;
use super::messages::{RaftCompletion, RaftInbound, RaftMessage, RaftStatus};
use super::metrics::RaftMetrics;
use super::settings::{Accepted, Effects};
use crate::apply_loop::{ApplyMessage, Install};
use crate::peer_transport::{PeerMessage, PeerStatus};
use crate::shared::{Beat, FatalReport, Inlet, Outlet, Published, Refused, beats, fail_stop};
use crate::snapshot::Arrived;
use crate::wal_writer::{WalHandle, WalMessage};

const NAME: &str = "raft_node";

/// Where RaftNode sends to, and where it is heard.
#[derive(Debug)]
pub struct RaftEdges {
    /// The log on disk.
    pub wal: WalHandle,
    /// Committed entries go here.
    pub apply: Inlet<ApplyMessage>,
    /// Messages to peers go here.
    pub peers: Inlet<PeerMessage>,
    /// Which members can be reached; looked at with every tick and request.
    pub reachable: Published<PeerStatus>,
    /// The status is shown here.
    pub status: Published<RaftStatus>,
    /// The figures.
    pub metrics: RaftMetrics,
}

/// The actor; see the module's text.
pub struct RaftNode {
    core: RaftCore,
    edges: RaftEdges,
    tick: Duration,
    /// What the core knows of the links.
    reachable: Arc<PeerStatus>,
    ticked: Instant,
    requests: Option<Outlet<RaftMessage>>,
    inbound: Option<Outlet<RaftInbound>>,
    completions: Option<Outlet<RaftCompletion>>,
    fatal: FatalReport,
}

impl RaftNode {
    /// The actor over its core and mailboxes. `tick` is the heartbeat interval.
    pub fn new(
        core: RaftCore,
        edges: RaftEdges,
        tick: Duration,
        requests: Outlet<RaftMessage>,
        inbound: Outlet<RaftInbound>,
        completions: Outlet<RaftCompletion>,
        fatal: FatalReport,
    ) -> Self {
        let (requests, inbound) = (Some(requests), Some(inbound));
        let (completions, ticked) = (Some(completions), Instant::now());
        let reachable = Arc::default();
        Self { core, edges, tick, reachable, ticked, requests, inbound, completions, fatal }
    }

    /// Runs `input` on the core and carries out everything that follows. A
    /// panic on the way ends the process.
    fn step(&mut self, input: impl FnOnce(&mut RaftCore, &mut Effects)) {
        let fatal = FatalReport::clone(&self.fatal);
        fail_stop(NAME, &fatal, || {
            let mut effects = Effects::default();
            input(&mut self.core, &mut effects);
            self.core.process(&mut effects);
            self.carry_out(effects);
        });
    }

    fn carry_out(&mut self, effects: Effects) {
        if let Some(status) = effects.status {
            self.edges.status.set(status.into());
        }
        if let Some(reason) = effects.fatal {
            (self.fatal)(NAME, reason);
        }
        if let Some(marker) = effects.marker {
            self.to_wal(WalMessage::Snapshot(marker));
        }
        for append in effects.appends {
            self.to_wal(WalMessage::Append(append));
        }
        if let Some(index) = effects.release {
            self.to_wal(WalMessage::Release { index });
        }
        let committed = effects.committed.into_iter().map(ApplyMessage::Committed);
        for message in committed.chain(effects.install.map(install)) {
            let sent = self.edges.apply.try_send(message);
            // An edge as large as its window takes every message; one that is
            // closed belongs to an actor whose end is the process's.
            let full = matches!(sent, Err(Refused::Full(_)));
            assert!(!full, "ApplyLoop's mailbox holds the whole window");
        }
        if effects.messages.is_empty() {
            return;
        }
        // A message to a peer may be lost; raft has to know, so that it does not
        // wait for what never left.
        let sent = self.edges.peers.try_send(PeerMessage::Send(effects.messages));
        if let Err(Refused::Full(PeerMessage::Send(messages))) = sent {
            self.core.lost(&messages);
        }
    }

    /// What raft has to do before anything happens.
    pub fn begin(&mut self) {
        self.step(|_, _| {});
    }

    /// Handles what waits in each mailbox, for who gives the actor its turns without
    /// actix; false when nothing does.
    pub fn turn(&mut self) -> bool {
        let requests = self.requests.as_mut().and_then(Outlet::take_waiting);
        let inbound = self.inbound.as_mut().and_then(Outlet::take_waiting);
        let completions = self.completions.as_mut().and_then(Outlet::take_waiting);
        let any = requests.is_some() || inbound.is_some() || completions.is_some();
        requests.into_iter().for_each(|batch| self.take_requests(batch));
        inbound.into_iter().for_each(|batch| self.take_inbound(batch));
        completions.into_iter().for_each(|batch| self.take_completions(batch));
        any
    }

    /// Index and term of every entry of the log that is not compacted, for who looks at
    /// a simulated member.
    #[cfg(feature = "sim")]
    pub fn log_terms(&self) -> Vec<(u64, u64)> {
        self.core.log_terms()
    }

    /// Messages that wait.
    pub fn waiting(&self) -> usize {
        let requests = self.requests.as_ref().map_or(0, Outlet::waiting);
        let inbound = self.inbound.as_ref().map_or(0, Outlet::waiting);
        requests + inbound + self.completions.as_ref().map_or(0, Outlet::waiting)
    }

    fn take_requests(&mut self, batch: Vec<RaftMessage>) {
        self.note_reachable();
        self.step(|core, _| core.request(batch));
    }

    fn take_inbound(&mut self, batch: Vec<RaftInbound>) {
        self.step(|core, effects| core.inbound(batch, effects));
    }

    fn take_completions(&mut self, batch: Vec<RaftCompletion>) {
        self.step(|core, effects| {
            for completion in batch {
                core.complete(completion, effects);
            }
        });
    }

    /// A heartbeat interval has passed.
    pub fn tick(&mut self) {
        self.note_lateness();
        self.note_reachable();
        self.step(|core, _| core.tick());
    }

    fn note_reachable(&mut self) {
        let reachable = self.edges.reachable.get();
        if Arc::ptr_eq(&reachable, &self.reachable) {
            return;
        }
        // A link that broke and came back between two looks has been lost, too.
        let before = &self.reachable.active_since;
        let stood = reachable.active_since.iter().filter(|(id, at)| before.get(*id) == Some(*at));
        self.core.set_active(stood.map(|(id, _)| *id));
        self.core.set_active(reachable.active_since.keys().copied());
        self.reachable = reachable;
    }

    /// A leader whose beats come late loses its followers, and its operator
    /// wants to know why.
    fn note_lateness(&mut self) {
        let took = self.ticked.elapsed();
        self.ticked = Instant::now();
        let status = self.edges.status.get();
        if took > 2 * self.tick && status.is_leader && status.voters > 1 {
            self.edges.metrics.late_heartbeats.inc();
            tracing::warn!(
                heartbeat_interval = ?self.tick,
                ?took,
                "sent heartbeats too late: this member, the leader, is overloaded"
            );
        }
    }

    fn to_wal(&self, message: WalMessage) {
        let sent = self.edges.wal.try_send(message);
        assert!(sent.is_ok(), "the WAL's mailbox holds the whole window: {sent:?}");
    }
}

fn install(Accepted { index, term, state }: Accepted<Arrived>) -> ApplyMessage {
    ApplyMessage::Install(Install { index, term, state })
}

impl Actor for RaftNode {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let requests = self.requests.take().expect("an actor starts once");
        let completions = self.completions.take().expect("an actor starts once");
        let inbound = self.inbound.take().expect("an actor starts once");
        context.add_stream(requests);
        context.add_stream(inbound);
        context.add_stream(completions);
        // The last one: what has come meanwhile is looked at before a beat.
        context.add_stream(beats(self.tick));
        self.begin();
    }
}

impl StreamHandler<Vec<RaftMessage>> for RaftNode {
    fn handle(&mut self, batch: Vec<RaftMessage>, _: &mut Self::Context) {
        self.take_requests(batch);
    }

    /// The last request's sender is gone: nothing more will be asked, but what
    /// was must still be finished.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<Vec<RaftInbound>> for RaftNode {
    fn handle(&mut self, batch: Vec<RaftInbound>, _: &mut Self::Context) {
        self.take_inbound(batch);
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<Beat> for RaftNode {
    fn handle(&mut self, _: Beat, _: &mut Self::Context) {
        self.tick();
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<Vec<RaftCompletion>> for RaftNode {
    fn handle(&mut self, batch: Vec<RaftCompletion>, _: &mut Self::Context) {
        self.take_completions(batch);
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}
