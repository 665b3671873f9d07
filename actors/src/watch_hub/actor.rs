//! The shell of a WatchHub shard.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, AsyncContext, Context, StreamHandler, WrapFuture};
use futures::stream;
use tokio::sync::mpsc::Sender;
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::core::{HubCore, HubSettings, Outbox, Room};
use super::metrics::{HubMetrics, Timeline};
use super::{Chunk, HubMessage, STREAM_CHUNKS, StreamId};
use crate::mvcc::View;
use crate::raft_node::RaftStatus;
use crate::shared::{Outlet, Published, panic_text};

/// What turns may cost before the mailbox is looked at again.
const TURNS_COST: usize = 64;
/// How often the lag is looked at.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// What a shard needs of the others.
#[derive(Clone, Debug)]
pub struct HubEdges {
    /// The newest view, which may be ahead of the events handed out.
    pub view: Published<View>,
    /// The term that headers show.
    pub raft: Published<RaftStatus>,
}

/// Streams whose channel has room again. Each is in it once at most.
#[derive(Clone, Debug, Default)]
struct Rooms {
    streams: Rc<RefCell<Vec<StreamId>>>,
    some: Rc<Notify>,
}

impl Rooms {
    /// Tells when there is room for a stream, or when it has ended.
    fn watch(&self, stream: StreamId, places: usize, chunks: Sender<Box<Chunk>>) {
        let rooms = self.clone();
        actix::spawn(async move {
            // The places are given back at once: the stream's turn takes one.
            drop(chunks.reserve_many(places).await);
            rooms.streams.borrow_mut().push(stream);
            rooms.some.notify_one();
        });
    }

    async fn next(self) -> Option<(Vec<StreamId>, Self)> {
        self.some.notified().await;
        let streams = self.streams.take();
        Some((streams, self))
    }
}

#[derive(Debug)]
struct Outgoing {
    chunks: Sender<Box<Chunk>>,
    /// Given back when what the stream asked is answered.
    asking: Vec<OwnedSemaphorePermit>,
}

#[derive(Debug, Default)]
struct Streams {
    streams: HashMap<StreamId, Outgoing>,
    rooms: Rooms,
}

impl Outbox for Streams {
    fn has_room(&self, stream: StreamId, room: Room) -> bool {
        let outgoing = self.streams.get(&stream);
        outgoing.is_none_or(|to| to.chunks.capacity() >= places(room) || to.chunks.is_closed())
    }

    fn send(&mut self, stream: StreamId, chunk: Chunk) {
        if let Some(outgoing) = self.streams.get(&stream) {
            // Nobody else sends, so what was room is room; a stream that has ended
            // takes everything, until its close comes.
            let _ = outgoing.chunks.try_send(Box::new(chunk));
        }
    }

    fn await_room(&mut self, stream: StreamId, room: Room) {
        if let Some(outgoing) = self.streams.get(&stream) {
            self.rooms.watch(stream, places(room), outgoing.chunks.clone());
        }
    }

    fn answered(&mut self, stream: StreamId) {
        if let Some(outgoing) = self.streams.get_mut(&stream) {
            outgoing.asking.clear();
        }
    }
}

/// Places in a stream's channel that make up such a room.
fn places(room: Room) -> usize {
    match room {
        Room::Any => 1,
        Room::All => STREAM_CHUNKS,
    }
}

/// The actor; see the module's text.
pub struct WatchHub {
    core: HubCore,
    settings: HubSettings,
    edges: HubEdges,
    streams: Streams,
    progress_interval: Duration,
    outlets: Option<(Outlet<HubMessage>, Outlet<HubMessage>)>,
    /// Its number, as the figures show it.
    shard: String,
    metrics: HubMetrics,
    timeline: Timeline,
    /// More turns are on their way.
    arranged: bool,
}

impl WatchHub {
    /// The shard with this number, over its mailboxes: what Mvcc sends comes by the
    /// first, so that it never waits behind clients, who come by the second.
    pub fn new(
        shard: usize,
        settings: HubSettings,
        edges: HubEdges,
        progress_interval: Duration,
        outlets: (Outlet<HubMessage>, Outlet<HubMessage>),
        metrics: HubMetrics,
    ) -> Self {
        Self {
            core: HubCore::new(settings, edges.view.get(), metrics.clone()),
            settings,
            edges,
            streams: Streams::default(),
            progress_interval,
            outlets: Some(outlets),
            shard: shard.to_string(),
            metrics,
            timeline: Timeline::default(),
            arranged: false,
        }
    }

    /// Runs a step, and the turns that follow from it. A panic ends the streams of
    /// this shard, whose clients go on elsewhere from the last revision they have,
    /// and nothing else: the store is not in here.
    fn step(&mut self, context: &mut Context<Self>, step: impl FnOnce(&mut Self)) {
        let all = || {
            step(self);
            self.take_turns()
        };
        match catch_unwind(AssertUnwindSafe(all)) {
            Ok(false) => {}
            Ok(true) => self.arrange(context),
            Err(panic) => self.begin_anew(&panic_text(panic.as_ref())),
        }
    }

    fn begin_anew(&mut self, panic: &str) {
        let (shard, streams) = (&self.shard, self.streams.streams.len());
        tracing::error!(shard, streams, panic, "a watch shard failed; its streams are ended");
        self.streams.streams.clear();
        self.core = HubCore::new(self.settings, self.edges.view.get(), self.metrics.clone());
    }

    /// Serves streams for a while; whether there are more to serve.
    fn take_turns(&mut self) -> bool {
        let mut left = TURNS_COST;
        let more = loop {
            match self.core.turn(&mut self.streams) {
                0 => break false,
                cost if cost >= left => break true,
                cost => left -= cost,
            }
        };
        self.core.show();
        more
    }

    /// Arranges more turns for when the mailbox has been looked at.
    fn arrange(&mut self, context: &mut Context<Self>) {
        if std::mem::replace(&mut self.arranged, true) {
            return;
        }
        let others_first = tokio::task::yield_now().into_actor(self);
        context.spawn(others_first.map(|(), hub, context| {
            hub.arranged = false;
            hub.step(context, |_| {});
        }));
    }

    /// Takes note of what is known beyond the events handed out.
    fn look_around(&mut self) {
        self.core.set_term(self.edges.raft.get().term);
        self.core.set_compact_revision(self.edges.view.get().compact_revision());
    }

    fn handle(&mut self, message: HubMessage) {
        match message {
            HubMessage::Events(batch) => self.core.events(&batch),
            HubMessage::Replaced(view) => self.core.replace(view),
            HubMessage::Open { stream, chunks } => {
                self.streams.streams.insert(stream, Outgoing { chunks, asking: Vec::new() });
                self.core.open(stream);
            }
            HubMessage::Requests { stream, requests, asking } => {
                let Some(outgoing) = self.streams.streams.get_mut(&stream) else { return };
                outgoing.asking.push(asking);
                let newest = self.edges.view.get().revision();
                self.core.ask(stream, &requests, newest, &mut self.streams);
            }
            HubMessage::Close { stream } => {
                self.streams.streams.remove(&stream);
                self.core.close(stream);
            }
        }
    }

    /// Shows how far behind the last watcher is.
    fn show_lag(&mut self) {
        let next = self.core.revision() + 1;
        let behind = self.core.furthest_behind().unwrap_or(next);
        self.timeline.forget(behind);
        let age = self.timeline.age(behind, Instant::now());
        self.metrics.lag(&self.shard, next - behind, age);
    }
}

impl Actor for WatchHub {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let (events, requests) = self.outlets.take().expect("an actor starts once");
        context.add_stream(events);
        context.add_stream(requests);
        context.add_stream(stream::unfold(self.streams.rooms.clone(), Rooms::next));
        context.run_interval(self.progress_interval, |hub, context| {
            hub.step(context, |hub| hub.core.notify_progress());
        });
        context.run_interval(LAG_INTERVAL, |hub, _| hub.show_lag());
    }
}

impl StreamHandler<Vec<HubMessage>> for WatchHub {
    fn handle(&mut self, batch: Vec<HubMessage>, context: &mut Self::Context) {
        self.step(context, |hub| {
            hub.look_around();
            batch.into_iter().for_each(|message| hub.handle(message));
            hub.timeline.mark(hub.core.revision(), Instant::now());
        });
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

impl StreamHandler<Vec<StreamId>> for WatchHub {
    fn handle(&mut self, with_room: Vec<StreamId>, context: &mut Self::Context) {
        self.step(context, |hub| {
            hub.look_around();
            with_room.into_iter().for_each(|stream| hub.core.room(stream));
        });
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}
