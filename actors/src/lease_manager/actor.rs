//! The shell of LeaseManager.

use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, StreamHandler, WrapFuture};
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
use crate::shared::{Error, FatalReport, Inlet, Outlet, Published, fail_stop};

const NAME: &str = "lease_manager";
/// How often ends are looked for, as often as etcd does.
const TICK: Duration = Duration::from_millis(1000 / TICKS_PER_SECOND as u64);
/// How soon keep-alives that found nobody to ask are looked at again.
const RETRY: Duration = Duration::from_millis(50);

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
    started: Instant,
    messages: Option<Outlet<LeaseMessage>>,
    metrics: LeaseMetrics,
    fatal: FatalReport,
    retrying: bool,
}

impl LeaseManager {
    /// The actor over its cores and mailbox. `started` is the zero of the
    /// cores' clock.
    pub fn new(
        core: LeaseCore,
        renewals: Renewals<KeepAliveReply>,
        edges: LeaseEdges,
        started: Instant,
        messages: Outlet<LeaseMessage>,
        metrics: LeaseMetrics,
        fatal: FatalReport,
    ) -> Self {
        let messages = Some(messages);
        Self { core, renewals, edges, started, messages, metrics, fatal, retrying: false }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Runs what comes from outside; a panic in it ends the process.
    fn run(
        &mut self,
        context: &mut Context<Self>,
        what: impl FnOnce(&mut Self, &mut Context<Self>),
    ) {
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

    fn tick(&mut self, context: &mut Context<Self>) {
        self.follow_leadership();
        self.core.tick();
        self.expire(context);
        self.checkpoint(context);
        self.renew(context);
    }

    fn expire(&mut self, context: &mut Context<Self>) {
        for id in self.core.expired(self.now_ms()) {
            let Some(term) = self.core.term() else { return };
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

    fn checkpoint(&mut self, context: &mut Context<Self>) {
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
    fn propose(
        &self,
        context: &mut Context<Self>,
        term: u64,
        op: Op,
        then: impl FnOnce(&mut Self, &mut Context<Self>, Result<(), Error>) + 'static,
    ) {
        let proposer = self.edges.proposer.clone();
        let proposal = async move { proposer.propose_in_term(term, op).await.map(|_| ()) };
        context.spawn(proposal.into_actor(self).map(|outcome, manager, context| {
            manager.run(context, |manager, context| then(manager, context, outcome));
        }));
    }

    /// Answers the keep-alives that can be answered, and has done what the
    /// others wait for.
    fn renew(&mut self, context: &mut Context<Self>) {
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
            context.run_later(RETRY, |manager, context| {
                manager.retrying = false;
                manager.run(context, Self::renew);
            });
        }
    }

    fn confirm(&self, context: &mut Context<Self>, ticket: u64) {
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
        context.spawn(confirming.into_actor(self));
    }

    fn uncheckpoint(&self, context: &mut Context<Self>, ticket: u64, term: u64, ids: &[i64]) {
        let leases = ids.iter().map(|id| remaining(*id, 0)).collect();
        let checkpoint = Op::LeaseCheckpoint(LeaseCheckpoint { leases });
        self.propose(context, term, checkpoint, move |manager, context, outcome| {
            manager.renewals.uncheckpointed(ticket, outcome.is_ok(), &mut manager.core);
            manager.renew(context);
        });
    }

    fn forward(&self, context: &mut Context<Self>, ticket: u64, to: u64, ids: Vec<i64>) {
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
        context.spawn(asking.into_actor(self).map(move |answer, manager, context| {
            manager.run(context, |manager, context| {
                let now_ms = manager.now_ms();
                answer_all(manager.renewals.forwarded(ticket, answer, now_ms));
                manager.renew(context);
            });
        }));
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
            LeaseMessage::List { reply } => {
                let _ = reply.send(self.core.list());
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
        context.run_interval(TICK, |manager, context| manager.run(context, Self::tick));
    }
}

impl StreamHandler<Vec<LeaseMessage>> for LeaseManager {
    fn handle(&mut self, batch: Vec<LeaseMessage>, context: &mut Self::Context) {
        self.run(context, |manager, context| {
            manager.follow_leadership();
            batch.into_iter().for_each(|message| manager.handle(message));
            manager.renew(context);
        });
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}
