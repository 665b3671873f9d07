//! The shell of Compactor.

use std::time::Duration;

use super::{CompactorMessage, Schedule};
use crate::mvcc::{Answer, MvccMessage, View};
use crate::proposer::Proposer;
use crate::raft_node::RaftStatus;
use crate::shared::{Clock, Outlet, Published, ThreadInlet, Waiting};
use actix::{Actor, AsyncContext, Context, StreamHandler};
use castd_proto::castdpb::request::Op;
use castd_proto::etcdserverpb::CompactionRequest;

/// How often the schedule is looked at.
pub const LOOK: Duration = Duration::from_secs(1);

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
    clock: Clock,
    scrubbing: bool,
    /// History was given up again while a piece was under way.
    again: bool,
    messages: Option<Outlet<CompactorMessage>>,
}

impl Compactor {
    /// The actor over its mailbox. `clock` is the schedule's clock.
    pub fn new(
        schedule: Schedule,
        pace: ScrubPace,
        edges: CompactorEdges,
        clock: Clock,
        messages: Outlet<CompactorMessage>,
    ) -> Self {
        let messages = Some(messages);
        Self { schedule, pace, edges, clock, scrubbing: false, again: false, messages }
    }

    /// Goes on with what an earlier run left undone.
    pub fn begin(&mut self, context: &mut impl Waiting<Self>) {
        self.scrub(context);
    }

    /// Handles what waits in the mailbox, for who gives the actor its turns without
    /// actix; false when nothing does.
    pub fn turn(&mut self, context: &mut impl Waiting<Self>) -> bool {
        let woken = self.messages.as_mut().and_then(Outlet::take_waiting).is_some();
        if woken {
            self.scrub(context);
        }
        woken
    }

    /// Messages that wait.
    pub fn waiting(&self) -> usize {
        self.messages.as_ref().map_or(0, Outlet::waiting)
    }

    /// Compacts when the schedule says so. It comes every [`LOOK`].
    pub fn look(&mut self, context: &mut impl Waiting<Self>) {
        let now_ms = self.clock.now_ms();
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
        context.when(compact, |_, _, ()| {});
    }

    fn scrub<W: Waiting<Self>>(&mut self, context: &mut W) {
        if self.scrubbing {
            self.again = true;
            return;
        }
        let (progress, answer) = Answer::new(None);
        let message = MvccMessage::Scrub { records: self.pace.records, progress };
        self.scrubbing = true;
        // A full mailbox means that writes come first; the pause follows either way.
        let sent = self.edges.mvcc.try_send(message).is_ok();
        let piece = async move { sent && answer.await.is_ok_and(|progress| progress.done) };
        context.when(piece, |compactor, context, done| match done {
            true => compactor.scrubbed(context, true),
            false => {
                let pause = compactor.pace.pause;
                context.after(pause, |compactor, context| compactor.scrubbed(context, false));
            }
        });
    }

    fn scrubbed<W: Waiting<Self>>(&mut self, context: &mut W, done: bool) {
        self.scrubbing = false;
        if !done || std::mem::take(&mut self.again) {
            self.scrub(context);
        }
    }
}

impl Actor for Compactor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.add_stream(self.messages.take().expect("an actor starts once"));
        if self.schedule.is_on() {
            context.run_interval(LOOK, Self::look);
        }
        self.begin(context);
    }
}

impl StreamHandler<Vec<CompactorMessage>> for Compactor {
    fn handle(&mut self, _: Vec<CompactorMessage>, context: &mut Self::Context) {
        self.scrub(context);
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}
