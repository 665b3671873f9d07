//! The shell of RaftNode: an actix actor that feeds its core and carries out
//! what comes back.

use std::time::Duration;

use actix::{Actor, AsyncContext, Context, StreamHandler};

use super::core::RaftCore;
use super::messages::{RaftCompletion, RaftInbound, RaftMessage, RaftStatus};
use super::settings::{Accepted, Effects};
use crate::apply_loop::{ApplyMessage, Install};
use crate::peer_transport::{PeerMessage, PeerStatus};
use crate::shared::{FatalReport, Inlet, Outlet, Published, Refused, fail_stop};
use crate::snapshot::Spool;
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
    /// Which members can be reached; looked at with every tick.
    pub reachable: Published<PeerStatus>,
    /// The status is shown here.
    pub status: Published<RaftStatus>,
}

/// The actor; see the module's text.
pub struct RaftNode {
    core: RaftCore,
    edges: RaftEdges,
    tick: Duration,
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
        Self { core, edges, tick, requests, inbound, completions: Some(completions), fatal }
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
        if !effects.messages.is_empty() {
            // A message to a peer may always be lost: raft sends it again.
            let _ = self.edges.peers.try_send(PeerMessage::Send(effects.messages));
        }
    }

    fn tick(&mut self) {
        let reachable = self.edges.reachable.get();
        self.step(|core, _| {
            core.set_active(reachable.active_since.keys().copied());
            core.tick();
        });
    }

    fn to_wal(&self, message: WalMessage) {
        let sent = self.edges.wal.try_send(message);
        assert!(sent.is_ok(), "the WAL's mailbox holds the whole window: {sent:?}");
    }
}

fn install(Accepted { index, term, state }: Accepted<Spool>) -> ApplyMessage {
    ApplyMessage::Install(Install { index, term, spool: state })
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
        context.run_interval(self.tick, |node, _| node.tick());
        self.step(|_, _| {});
    }
}

impl StreamHandler<Vec<RaftMessage>> for RaftNode {
    fn handle(&mut self, batch: Vec<RaftMessage>, _: &mut Self::Context) {
        self.step(|core, _| core.request(batch));
    }

    /// The last request's sender is gone: nothing more will be asked, but what
    /// was must still be finished.
    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<Vec<RaftInbound>> for RaftNode {
    fn handle(&mut self, batch: Vec<RaftInbound>, _: &mut Self::Context) {
        self.step(|core, effects| core.inbound(batch, effects));
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<Vec<RaftCompletion>> for RaftNode {
    fn handle(&mut self, batch: Vec<RaftCompletion>, _: &mut Self::Context) {
        self.step(|core, effects| {
            for completion in batch {
                core.complete(completion, effects);
            }
        });
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}
