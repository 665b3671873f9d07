//! The shell of LeaseManager.

use std::time::Duration;

use actix::{Actor, AsyncContext, Context, StreamHandler};
use castd_proto::castdpb::request::Op;
use castd_proto::castdpb::{LeaseCheckpoint, Question, answer, lease_checkpoint, question};
use castd_proto::etcdserverpb::LeaseRevokeRequest;
use tokio::sync::oneshot;

use super::core::TICKS_PER_SECOND;
use super::renewals::{Renewals, Role, Step, Work};
use super::{LeaseCore, LeaseMessage, LeaseMetrics};
use crate::peer_transport::PeerMessage;
use crate::proposer::Proposer;
use crate::raft_node::{RaftMessage, RaftStatus, ReadReply};
use crate::shared::{
    Clock, Error, FatalReport, Inlet, Outlet, Planted, Published, Waiting, fail_stop, is_planted,
};

const NAME: &str = "lease_manager";
/// How often ends are looked for, as often as etcd does.
pub const TICK: Duration = Duration::from_millis(1000 / TICKS_PER_SECOND as u64);
/// How soon keep-alives that found nobody to ask are looked at again.
const RETRY: Duration = Duration::from_millis(50);
/// The pause between two steps of a promotion, for consensus.
const STEP_PAUSE: Duration = Duration::from_millis(5);
/// Leases in one answer to [`LeaseMessage::List`].
pub const LIST_PIECE: usize = 8192;

/// What LeaseManager needs of the others.
#[derive(Debug)]
pub struct LeaseEdges {
    /// Revocations and checkpoints are proposed here.
    pub proposer: Proposer,
    /// Tells whether this member leads.
    pub raft: Published<RaftStatus>,
    /// Confirms that it does.
    pub raft_requests: Inlet<RaftMessage>,
    /// The way to the leader.
    pub peers: Inlet<PeerMessage>,
    /// LeaseManager's own mailbox.
    pub own: Inlet<LeaseMessage>,
}

type KeepAliveReply = oneshot::Sender<Result<i64, Error>>;

/// The actor; see the module's text.
pub struct LeaseManager {
    core: LeaseCore,
    renewals: Renewals<KeepAliveReply>,
    edges: LeaseEdges,
    clock: Clock,
    messages: Option<Outlet<LeaseMessage>>,
    metrics: LeaseMetrics,
    fatal: FatalReport,
    retrying: bool,
    stepping: bool,
}

impl LeaseManager {
    /// The actor over its cores and mailbox. `clock` is the cores' clock.
    pub fn new(
        core: LeaseCore,
        renewals: Renewals<KeepAliveReply>,
        edges: LeaseEdges,
        clock: Clock,
        messages: Outlet<LeaseMessage>,
        metrics: LeaseMetrics,
        fatal: FatalReport,
    ) -> Self {
        Self {
            core,
            renewals,
            edges,
            clock,
            messages: Some(messages),
            metrics,
            fatal,
            retrying: false,
            stepping: false,
        }
    }

    /// Handles what waits in the mailbox, for who gives the actor its turns without
    /// actix; false when nothing does.
    pub fn turn(&mut self, context: &mut impl Waiting<Self>) -> bool {
        let batch = self.messages.as_mut().and_then(Outlet::take_waiting);
        batch.map(|batch| self.take(batch, context)).is_some()
    }

    /// Messages that wait.
    pub fn waiting(&self) -> usize {
        self.messages.as_ref().map_or(0, Outlet::waiting)
    }

    fn take(&mut self, batch: Vec<LeaseMessage>, context: &mut impl Waiting<Self>) {
        self.run(context, |manager, context| {
            manager.follow_leadership();
            batch.into_iter().for_each(|message| manager.handle(message));
            manager.step(context);
            manager.renew(context);
        });
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Runs what comes from outside; a panic in it ends the process.
    fn run<W: Waiting<Self>>(&mut self, context: &mut W, what: impl FnOnce(&mut Self, &mut W)) {
        let fatal = FatalReport::clone(&self.fatal);
        fail_stop(NAME, &fatal, || what(self, context));
    }

    fn follow_leadership(&mut self) -> Role {
        let status = self.edges.raft.get();
        let term = status.is_leader.then_some(status.term);
        self.core.lead(term, self.now_ms());
        match (term, status.leader) {
            (Some(term), _) => Role::Leader(term),
            (None, 0) => Role::Leaderless,
            (None, leader) => Role::Follower(leader),
        }
    }

    /// A beat: what is due is ended, noted, asked for. It comes every [`TICK`].
    pub fn tick(&mut self, context: &mut impl Waiting<Self>) {
        self.run(context, |manager, context| {
            manager.follow_leadership();
            manager.step(context);
            manager.core.tick();
            manager.expire(context);
            manager.checkpoint(context);
            manager.renew(context);
        });
    }

    /// Has the core do what it is given time for, a step at a time.
    fn step<W: Waiting<Self>>(&mut self, context: &mut W) {
        if self.stepping || !self.core.has_work() {
            return;
        }
        self.stepping = true;
        context.after(STEP_PAUSE, |manager, context| {
            manager.stepping = false;
            manager.run(context, |manager, context| {
                manager.core.step();
                manager.step(context);
            });
        });
    }

    fn expire<W: Waiting<Self>>(&mut self, context: &mut W) {
        for id in self.core.expired(self.now_ms()) {
            let by_follower = is_planted(Planted::LeaseEndedByFollower).then_some(0);
            let Some(term) = self.core.term().or(by_follower) else { return };
            tracing::debug!(lease = format!("{id:016x}"), "lease expired");
            let revoke = Op::LeaseRevoke(LeaseRevokeRequest { id });
            self.propose(context, term, revoke, move |manager, context, outcome| match outcome {
                // The change that tells of the end is on its way. Meanwhile
                // there may be more to end.
                Ok(()) => {
                    manager.metrics.expired.inc();
                    manager.expire(context);
                }
                Err(Error::LeaseNotFound) => manager.expire(context),
                Err(_) => manager.core.revoke_failed(id),
            });
        }
    }

    fn checkpoint(&mut self, context: &mut impl Waiting<Self>) {
        let notes = self.core.checkpoints(self.now_ms());
        let Some(term) = self.core.term() else { return };
        if notes.is_empty() {
            return;
        }
        let leases = notes.into_iter().map(|(id, remaining_ttl_s)| remaining(id, remaining_ttl_s));
        let checkpoint = Op::LeaseCheckpoint(LeaseCheckpoint { leases: leases.collect() });
        self.propose(context, term, checkpoint, |_, _, outcome| {
            if let Err(error) = outcome {
                // The next one is due in minutes.
                tracing::warn!(%error, "leases' remaining time could not be noted");
            }
        });
    }

    /// Proposes what only the leader of `term` may decide.
    fn propose<W: Waiting<Self>>(
        &self,
        context: &mut W,
        term: u64,
        op: Op,
        then: impl FnOnce(&mut Self, &mut W, Result<(), Error>) + 'static,
    ) {
        let proposer = self.edges.proposer.clone();
        let proposal = async move { proposer.propose_in_term(term, op).await.map(|_| ()) };
        context.when(proposal, |manager, context, outcome| {
            manager.run(context, |manager, context| then(manager, context, outcome));
        });
    }

    /// Answers the keep-alives that can be answered, and has done what the
    /// others wait for.
    fn renew<W: Waiting<Self>>(&mut self, context: &mut W) {
        let role = self.follow_leadership();
        let now_ms = self.now_ms();
        let Work { answers, renewed, steps } = self.renewals.work(&mut self.core, role, now_ms);
        self.metrics.renewed.inc_by(renewed);
        answer_all(answers);
        for step in steps {
            match step {
                Step::Confirm { ticket } => self.confirm(context, ticket),
                Step::Uncheckpoint { ticket, term, ids } => {
                    self.uncheckpoint(context, ticket, term, &ids);
                }
                Step::Forward { ticket, to, ids } => self.forward(context, ticket, to, ids),
            }
        }
        if self.renewals.waits() && !self.retrying {
            self.retrying = true;
            context.after(RETRY, |manager, context| {
                manager.retrying = false;
                manager.run(context, Self::renew::<W>);
            });
        }
    }

    fn confirm(&self, context: &mut impl Waiting<Self>, ticket: u64) {
        let (reply, answer) = oneshot::channel();
        let read_index = RaftMessage::ReadIndex(ReadReply(reply));
        // Refused, it drops the reply: that is an answer, too.
        let _ = self.edges.raft_requests.try_send(read_index);
        let own = self.edges.own.clone();
        let confirming = async move {
            let came = matches!(answer.await, Ok(Ok(())));
            // Closed, it is our own end.
            let _ = own.send(LeaseMessage::Confirmed { ticket, came }).await;
        };
        context.when(confirming, |_, _, ()| {});
    }

    fn uncheckpoint(&self, context: &mut impl Waiting<Self>, ticket: u64, term: u64, ids: &[i64]) {
        let leases = ids.iter().map(|id| remaining(*id, 0)).collect();
        let checkpoint = Op::LeaseCheckpoint(LeaseCheckpoint { leases });
        self.propose(context, term, checkpoint, move |manager, context, outcome| {
            manager.renewals.uncheckpointed(ticket, outcome.is_ok(), &mut manager.core);
            manager.renew(context);
        });
    }

    fn forward(&self, context: &mut impl Waiting<Self>, ticket: u64, to: u64, ids: Vec<i64>) {
        let question = question::Question::KeepAlive(question::KeepAlive { ids });
        let question = Question { question: Some(question) };
        let (reply, answer) = oneshot::channel();
        let _ = self.edges.peers.try_send(PeerMessage::Ask { to, question, reply });
        let asking = async move {
            match answer.await.unwrap_or(Err(Error::Stopped))?.answer {
                Some(answer::Answer::KeepAlive(answer)) => Ok(answer.ttl_s),
                _ => Err(Error::NotLeader),
            }
        };
        context.when(asking, move |manager, context, answer| {
            manager.run(context, |manager, context| {
                let now_ms = manager.now_ms();
                answer_all(manager.renewals.forwarded(ticket, answer, now_ms));
                manager.renew(context);
            });
        });
    }

    fn handle(&mut self, message: LeaseMessage) {
        let now_ms = self.now_ms();
        match message {
            LeaseMessage::Changed(changes) => {
                for change in changes {
                    self.metrics.changed(&change);
                    self.core.change(change, now_ms);
                }
            }
            LeaseMessage::Reset(leases) => self.core.reset(leases, now_ms),
            LeaseMessage::KeepAlive { id, from_peer, reply } => {
                if let Err(reply) = self.renewals.add(id, from_peer, reply, now_ms) {
                    let _ = reply.send(Err(Error::TooManyRequests));
                }
            }
            LeaseMessage::TimeToLive { id, reply } => {
                let answer = match self.core.term() {
                    Some(_) => Ok(self.core.time_to_live(id, now_ms)),
                    None => Err(Error::NotLeader),
                };
                let _ = reply.send(answer);
            }
            LeaseMessage::List { after, reply } => {
                let _ = reply.send(self.core.list(after, LIST_PIECE));
            }
            LeaseMessage::Confirmed { ticket, came } => {
                self.renewals.confirmed(ticket, came, now_ms);
            }
        }
    }
}

/// Answers; a client that has gone hears nothing, and its lease has its time
/// all the same.
fn answer_all(answers: Vec<(KeepAliveReply, Result<i64, Error>)>) {
    for (reply, answer) in answers {
        let _ = reply.send(answer);
    }
}

fn remaining(id: i64, remaining_ttl_s: i64) -> lease_checkpoint::Remaining {
    lease_checkpoint::Remaining { id, remaining_ttl_s }
}

impl Actor for LeaseManager {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.add_stream(self.messages.take().expect("an actor starts once"));
        context.run_interval(TICK, Self::tick);
    }
}

impl StreamHandler<Vec<LeaseMessage>> for LeaseManager {
    fn handle(&mut self, batch: Vec<LeaseMessage>, context: &mut Self::Context) {
        self.take(batch, context);
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

#[cfg(test)]
#[path = "actor_tests.rs"]
mod tests;
