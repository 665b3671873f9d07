//! The shell of WatchHub.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, StreamHandler, WrapFuture};
use castd_proto::etcdserverpb::WatchResponse;
use tokio::sync::mpsc::{OwnedPermit, Sender, error::TrySendError};

use super::core::{HubCore, Outbox};
use super::{Chunk, HubMessage, StreamId, StreamRequest};
use crate::mvcc::View;
use crate::raft_node::RaftStatus;
use crate::shared::{FatalReport, Outlet, Published, fail_stop};

const NAME: &str = "watch_hub";

/// What WatchHub needs of the others.
#[derive(Debug)]
pub struct HubEdges {
    /// The newest view, which may be ahead of the events handed out.
    pub view: Published<View>,
    /// The term that headers show.
    pub raft: Published<RaftStatus>,
}

#[derive(Debug, Default)]
struct Streams(HashMap<StreamId, Sender<Chunk>>);

impl Outbox for Streams {
    fn offer(
        &mut self,
        stream: StreamId,
        response: WatchResponse,
    ) -> Result<(), Box<WatchResponse>> {
        match self.0.get(&stream).map(|sender| sender.try_send(Chunk::of(&response))) {
            Some(Err(TrySendError::Full(_))) => Err(Box::new(response)),
            // A stream that has ended takes everything, until its close comes.
            None | Some(Ok(()) | Err(TrySendError::Closed(_))) => Ok(()),
        }
    }
}

/// The actor; see the module's text.
pub struct WatchHub {
    core: HubCore,
    edges: HubEdges,
    streams: Streams,
    /// Streams that asked how far they are when the hub was behind what a client
    /// can know of already: the revision it must reach first, and the answer's slot.
    progress_asked: Vec<(i64, StreamId, OwnedPermit<Chunk>)>,
    /// Streams for which a turn to catch up is arranged.
    arranged: HashSet<StreamId>,
    progress_interval: Duration,
    messages: Option<Outlet<HubMessage>>,
    fatal: FatalReport,
}

impl WatchHub {
    /// The actor over its core and mailbox.
    pub fn new(
        core: HubCore,
        edges: HubEdges,
        progress_interval: Duration,
        messages: Outlet<HubMessage>,
        fatal: FatalReport,
    ) -> Self {
        Self {
            core,
            edges,
            streams: Streams::default(),
            progress_asked: Vec::new(),
            arranged: HashSet::new(),
            progress_interval,
            messages: Some(messages),
            fatal,
        }
    }

    /// Takes note of what is known beyond the events handed out.
    fn look_around(&mut self) {
        self.core.set_term(self.edges.raft.get().term);
        self.core.set_compact_revision(self.edges.view.get().compact_revision());
    }

    fn handle(&mut self, message: HubMessage, context: &mut Context<Self>) {
        match message {
            HubMessage::Events(batch) => {
                for stream in self.core.events(batch, &mut self.streams) {
                    self.arrange(stream, context);
                }
                self.answer_progress();
            }
            HubMessage::Replaced(view) => {
                for stream in self.core.replace(view) {
                    self.arrange(stream, context);
                }
                self.answer_progress();
            }
            HubMessage::Open { stream, responses } => {
                self.streams.0.insert(stream, responses);
                self.core.open(stream);
            }
            HubMessage::Request { stream, request, slot } => {
                self.answer(stream, request, slot);
                self.arrange(stream, context);
            }
            HubMessage::Close { stream } => self.close(stream),
        }
    }

    fn answer(&mut self, stream: StreamId, request: StreamRequest, slot: OwnedPermit<Chunk>) {
        let response = match request {
            StreamRequest::Create(request) => {
                self.core.create(stream, &request, self.edges.view.get().revision())
            }
            StreamRequest::Cancel(id) => self.core.cancel(stream, id),
            StreamRequest::Progress => {
                let newest = self.edges.view.get().revision();
                self.progress_asked.push((newest, stream, slot));
                return self.answer_progress();
            }
        };
        if let Some(response) = response {
            slot.send(Chunk::of(&response));
        }
    }

    /// Answers those who asked how far they are, once everything that was
    /// acknowledged before they asked has been handed out.
    fn answer_progress(&mut self) {
        let reached = self.core.revision();
        let (due, waiting) = std::mem::take(&mut self.progress_asked)
            .into_iter()
            .partition(|(revision, _, _)| *revision <= reached);
        self.progress_asked = waiting;
        let due: Vec<(i64, StreamId, OwnedPermit<Chunk>)> = due;
        for (_, stream, slot) in due {
            if let Some(response) = self.core.progress(stream) {
                slot.send(Chunk::of(&response));
            }
        }
    }

    /// Arranges a turn to catch up for when the stream has room.
    fn arrange(&mut self, stream: StreamId, context: &mut Context<Self>) {
        if !self.core.lags(stream) || !self.arranged.insert(stream) {
            return;
        }
        let Some(sender) = self.streams.0.get(&stream).cloned() else { return };
        let room = async move {
            // The room is given back at once: the turn itself takes it.
            drop(sender.reserve_owned().await);
            // Others come first: there is always somebody who keeps up.
            tokio::task::yield_now().await;
        };
        context.spawn(room.into_actor(self).map(move |(), hub, context| {
            let fatal = FatalReport::clone(&hub.fatal);
            fail_stop(NAME, &fatal, || {
                hub.arranged.remove(&stream);
                hub.look_around();
                hub.core.catch_up(stream, &mut hub.streams);
                hub.arrange(stream, context);
            });
        }));
    }

    fn close(&mut self, stream: StreamId) {
        self.progress_asked.retain(|(_, asking, _)| *asking != stream);
        self.streams.0.remove(&stream);
        self.core.close(stream);
    }
}

impl Actor for WatchHub {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.add_stream(self.messages.take().expect("an actor starts once"));
        context.run_interval(self.progress_interval, |hub, _| {
            hub.core.notify_progress(&mut hub.streams);
        });
    }
}

impl StreamHandler<Vec<HubMessage>> for WatchHub {
    fn handle(&mut self, batch: Vec<HubMessage>, context: &mut Self::Context) {
        let fatal = FatalReport::clone(&self.fatal);
        fail_stop(NAME, &fatal, || {
            self.look_around();
            batch.into_iter().for_each(|message| self.handle(message, context));
        });
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}
