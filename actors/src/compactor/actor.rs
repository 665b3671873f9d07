//! The shell of Compactor.

use std::time::{Duration, Instant};

use super::{CompactorMessage, Schedule};
use crate::mvcc::{Answer, MvccMessage, View};
use crate::proposer::Proposer;
use crate::raft_node::RaftStatus;
use crate::shared::{Outlet, Published, ThreadInlet};
use actix::{Actor, ActorFutureExt, AsyncContext, Context, StreamHandler, WrapFuture};
use castd_proto::castdpb::request::Op;
use castd_proto::etcdserverpb::CompactionRequest;

/// How often the schedule is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How fast scrubbing goes.
#[derive(Clone, Copy, Debug)]
pub struct ScrubPace {
    /// Records looked at in one piece.
    pub records: usize,
    /// The pause between pieces.
    pub pause: Duration,
}

/// What Compactor needs of the others.
#[derive(Debug)]
pub struct CompactorEdges {
    /// Compactions are proposed here.
    pub proposer: Proposer,
    /// Pieces of scrubbing go here.
    pub mvcc: ThreadInlet<MvccMessage>,
    /// The newest view.
    pub view: Published<View>,
    /// Tells whether this member leads.
    pub raft: Published<RaftStatus>,
}

/// The actor; see the module's text. It holds nothing that cannot be found
/// again, so it could be started anew at any time.
#[derive(Debug)]
pub struct Compactor {
    schedule: Schedule,
    pace: ScrubPace,
    edges: CompactorEdges,
    started: Instant,
    scrubbing: bool,
    /// History was given up again while a piece was under way.
    again: bool,
    messages: Option<Outlet<CompactorMessage>>,
}

impl Compactor {
    /// The actor over its mailbox. `started` is the zero of the schedule's clock.
    pub fn new(
        schedule: Schedule,
        pace: ScrubPace,
        edges: CompactorEdges,
        started: Instant,
        messages: Outlet<CompactorMessage>,
    ) -> Self {
        let messages = Some(messages);
        Self { schedule, pace, edges, started, scrubbing: false, again: false, messages }
    }

    fn look(&mut self, context: &mut Context<Self>) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let revision = self.edges.view.get().revision();
        let leading = self.edges.raft.get().is_leader;
        let Some(revision) = self.schedule.look(now_ms, revision, leading) else { return };
        let proposer = self.edges.proposer.clone();
        let compact = async move {
            tracing::info!(revision, "starting auto compaction");
            let request = CompactionRequest { revision, physical: false };
            match proposer.propose(Op::Compaction(request)).await {
                Ok(_) => tracing::info!(revision, "completed auto compaction"),
                Err(error) => tracing::warn!(revision, %error, "failed auto compaction"),
            }
        };
        context.spawn(compact.into_actor(self));
    }

    fn scrub(&mut self, context: &mut Context<Self>) {
        if self.scrubbing {
            self.again = true;
            return;
        }
        let (progress, answer) = Answer::new(None);
        let message = MvccMessage::Scrub { records: self.pace.records, progress };
        self.scrubbing = true;
        // A full mailbox means that writes come first; the pause follows either way.
        let sent = self.edges.mvcc.try_send(message).is_ok();
        let pause = self.pace.pause;
        let piece = async move {
            let done = sent && answer.await.is_ok_and(|progress| progress.done);
            if !done {
                tokio::time::sleep(pause).await;
            }
            done
        };
        context.spawn(piece.into_actor(self).map(|done, compactor, context| {
            compactor.scrubbing = false;
            if !done || std::mem::take(&mut compactor.again) {
                compactor.scrub(context);
            }
        }));
    }
}

impl Actor for Compactor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.add_stream(self.messages.take().expect("an actor starts once"));
        if self.schedule.is_on() {
            context.run_interval(LOOK, Self::look);
        }
        // What an earlier run left undone.
        self.scrub(context);
    }
}

impl StreamHandler<Vec<CompactorMessage>> for Compactor {
    fn handle(&mut self, _: Vec<CompactorMessage>, context: &mut Self::Context) {
        self.scrub(context);
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}
