//! The shell of LeaseManager.

use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, StreamHandler, WrapFuture};
use castd_proto::castdpb::request::Op;
use castd_proto::etcdserverpb::LeaseRevokeRequest;

use super::{LeaseCore, LeaseMessage, LeaseMetrics};
use crate::proposer::Proposer;
use crate::raft_node::RaftStatus;
use crate::shared::{Error, FatalReport, Outlet, Published, fail_stop};

const NAME: &str = "lease_manager";
/// How often ends are looked for, as often as etcd does.
const TICK: Duration = Duration::from_millis(500);

/// What LeaseManager needs of the others.
#[derive(Debug)]
pub struct LeaseEdges {
    /// Revocations are proposed here.
    pub proposer: Proposer,
    /// Tells whether this member leads.
    pub raft: Published<RaftStatus>,
}

/// The actor; see the module's text.
pub struct LeaseManager {
    core: LeaseCore,
    edges: LeaseEdges,
    started: Instant,
    messages: Option<Outlet<LeaseMessage>>,
    metrics: LeaseMetrics,
    fatal: FatalReport,
}

impl LeaseManager {
    /// The actor over its core and mailbox. `started` is the zero of the
    /// core's clock.
    pub fn new(
        core: LeaseCore,
        edges: LeaseEdges,
        started: Instant,
        messages: Outlet<LeaseMessage>,
        metrics: LeaseMetrics,
        fatal: FatalReport,
    ) -> Self {
        Self { core, edges, started, messages: Some(messages), metrics, fatal }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn follow_leadership(&mut self) {
        let leads = self.edges.raft.get().is_leader;
        if leads != self.core.is_leader() {
            self.core.lead(leads, self.now_ms());
        }
    }

    fn tick(&mut self, context: &mut Context<Self>) {
        self.follow_leadership();
        for id in self.core.expired(self.now_ms()) {
            tracing::debug!(lease = format!("{id:016x}"), "lease expired");
            let proposer = self.edges.proposer.clone();
            let revoke =
                async move { proposer.propose(Op::LeaseRevoke(LeaseRevokeRequest { id })).await };
            context.spawn(revoke.into_actor(self).map(move |outcome, manager, context| {
                match outcome {
                    // The change that tells of the end is on its way. Meanwhile
                    // there may be more to end.
                    Ok(_) => {
                        manager.metrics.expired.inc();
                        manager.expire_more(context);
                    }
                    Err(Error::LeaseNotFound) => manager.expire_more(context),
                    Err(_) => manager.core.revoke_failed(id),
                }
            }));
        }
    }

    /// A burst of ends goes on as fast as it is applied, not by the tick.
    fn expire_more(&mut self, context: &mut Context<Self>) {
        let fatal = FatalReport::clone(&self.fatal);
        fail_stop(NAME, &fatal, || self.tick(context));
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
            LeaseMessage::KeepAlive { id, reply } => {
                let answer = match self.core.is_leader() {
                    true => Ok(self.keep_alive(id, now_ms)),
                    false => Err(Error::NoLeader),
                };
                // The client may have gone; the lease has its time all the same.
                let _ = reply.send(answer);
            }
            LeaseMessage::TimeToLive { id, reply } => {
                let _ = reply.send(self.core.time_to_live(id, now_ms));
            }
            LeaseMessage::List { reply } => {
                let _ = reply.send(self.core.list());
            }
        }
    }

    fn keep_alive(&mut self, id: i64, now_ms: u64) -> i64 {
        let granted = self.core.keep_alive(id, now_ms);
        self.metrics.renewed.inc_by(u64::from(granted.is_some()));
        granted.unwrap_or(0)
    }
}

impl Actor for LeaseManager {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.add_stream(self.messages.take().expect("an actor starts once"));
        context.run_interval(TICK, |manager, context| {
            let fatal = FatalReport::clone(&manager.fatal);
            fail_stop(NAME, &fatal, || manager.tick(context));
        });
    }
}

impl StreamHandler<Vec<LeaseMessage>> for LeaseManager {
    fn handle(&mut self, batch: Vec<LeaseMessage>, _: &mut Self::Context) {
        let fatal = FatalReport::clone(&self.fatal);
        fail_stop(NAME, &fatal, || {
            self.follow_leadership();
            batch.into_iter().for_each(|message| self.handle(message));
        });
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}
