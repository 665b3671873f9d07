//! The shell of ApplyLoop.

use actix::{Actor, AsyncContext, Context, StreamHandler};
use futures::FutureExt;

use super::{ApplyCore, ApplyMessage, Committed, Install, Plan};
use crate::compactor::CompactorMessage;
use crate::mvcc::{ApplyBatch, MvccMessage, OperationKind};
use crate::peer_transport::PeerMessage;
use crate::raft_node::RaftCompletion;
use crate::shared::{FatalReport, Inlet, Outlet, Refused, ThreadInlet, fail_stop};

const NAME: &str = "apply_loop";

/// Where ApplyLoop sends to.
#[derive(Debug)]
pub struct ApplyEdges {
    /// Batches of operations go here.
    pub mvcc: ThreadInlet<MvccMessage>,
    /// Woken when history was given up.
    pub compactor: Inlet<CompactorMessage>,
    /// Told which changes of the membership to carry out.
    pub raft: Inlet<RaftCompletion>,
    /// Told where the members are reached.
    pub peers: Inlet<PeerMessage>,
}

/// The actor; see the module's text.
pub struct ApplyLoop {
    core: ApplyCore,
    edges: ApplyEdges,
    messages: Option<Outlet<ApplyMessage>>,
    fatal: FatalReport,
}

impl ApplyLoop {
    /// The actor over its core and mailbox.
    pub fn new(
        core: ApplyCore,
        edges: ApplyEdges,
        messages: Outlet<ApplyMessage>,
        fatal: FatalReport,
    ) -> Self {
        Self { core, edges, messages: Some(messages), fatal }
    }

    /// Handles what waits in the mailbox, for who gives the actor its turns without
    /// actix; false when nothing does.
    pub fn turn(&mut self) -> bool {
        let batch = self.messages.as_mut().and_then(Outlet::take_waiting);
        batch.map(|batch| self.take(batch)).is_some()
    }

    /// Messages that wait.
    pub fn waiting(&self) -> usize {
        self.messages.as_ref().map_or(0, Outlet::waiting)
    }

    fn take(&mut self, batch: Vec<ApplyMessage>) {
        let fatal = FatalReport::clone(&self.fatal);
        fail_stop(NAME, &fatal, || {
            let mut together = Vec::new();
            for message in batch {
                match message {
                    ApplyMessage::Committed(committed) => together.push(committed),
                    ApplyMessage::Install(install) => {
                        self.apply(std::mem::take(&mut together));
                        self.install(install);
                    }
                }
            }
            self.apply(together);
        });
    }

    fn apply(&mut self, committed: Vec<Committed>) {
        match self.core.plan(committed) {
            Ok(Some(plan)) => {
                self.tell_of_members(&plan);
                self.hand_on(plan.batch);
            }
            Ok(None) => {}
            Err(error) => (self.fatal)(NAME, error),
        }
    }

    fn tell_of_members(&self, plan: &Plan) {
        if plan.members_changed {
            self.tell_peers();
        }
        if !plan.conf_changes.is_empty() {
            let sent =
                self.edges.raft.try_send(RaftCompletion::ConfChanges(plan.conf_changes.clone()));
            let full = matches!(sent, Err(Refused::Full(_)));
            assert!(!full, "RaftNode's mailbox holds a completion for each batch under way");
        }
    }

    fn tell_peers(&self) {
        let members = PeerMessage::Members(self.core.cluster());
        let peers = self.edges.peers.clone();
        // A burst of raft messages may fill the mailbox for a moment, and
        // this one must not be lost. Those who wait for room keep their order.
        let mut sending = Box::pin(async move { drop(peers.send(members).await) });
        if sending.as_mut().now_or_never().is_none() {
            actix::spawn(sending);
        }
    }

    fn hand_on(&self, batch: ApplyBatch) {
        let compacts =
            batch.operations.iter().any(|op| matches!(op.kind, OperationKind::Compaction(_)));
        self.send_to_mvcc(MvccMessage::Apply(batch));
        if compacts {
            self.wake_compactor();
        }
    }

    /// Goes on from a snapshot's state. What of it is not needed is found as
    /// after a compaction.
    fn install(&mut self, install: Install) {
        self.core = ApplyCore::new(install.state.meta().cluster.clone());
        self.tell_peers();
        self.send_to_mvcc(MvccMessage::Install(install));
        self.wake_compactor();
    }

    fn send_to_mvcc(&self, message: MvccMessage) {
        let sent = self.edges.mvcc.try_send(message);
        assert!(
            !matches!(sent, Err(Refused::Full(_))),
            "Mvcc's mailbox holds RaftNode's whole window and what others may send"
        );
    }

    fn wake_compactor(&self) {
        // A full mailbox means that the compactor is awake anyway.
        let _ = self.edges.compactor.try_send(CompactorMessage::Compacted);
    }
}

impl Actor for ApplyLoop {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.add_stream(self.messages.take().expect("an actor starts once"));
    }
}

impl StreamHandler<Vec<ApplyMessage>> for ApplyLoop {
    fn handle(&mut self, batch: Vec<ApplyMessage>, _: &mut Self::Context) {
        self.take(batch);
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}
