//! The shell of the watch hub's only shard.

use std::collections::BTreeMap;
use std::sync::Arc;

use castd_actors::Chunk;
use castd_actors::company::HubParts;
use castd_actors::mvcc::EventBatch;
use castd_actors::shared::Outlet;
use castd_actors::watch_hub::{
    HubCore, HubEdges, HubMessage, Outbox, Room, STREAM_CHUNKS, StreamId,
};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Sender;

struct Outgoing {
    chunks: Sender<Box<Chunk>>,
    asking: Vec<OwnedSemaphorePermit>,
    /// The room it waits for.
    awaited: Option<Room>,
}

#[derive(Default)]
struct Streams(BTreeMap<StreamId, Outgoing>);

fn places(room: Room) -> usize {
    match room {
        Room::Any => 1,
        Room::All => STREAM_CHUNKS,
    }
}

impl Outbox for Streams {
    fn has_room(&self, stream: StreamId, room: Room) -> bool {
        let outgoing = self.0.get(&stream);
        outgoing.is_none_or(|to| to.chunks.capacity() >= places(room) || to.chunks.is_closed())
    }

    fn send(&mut self, stream: StreamId, chunk: Chunk) {
        if let Some(outgoing) = self.0.get(&stream) {
            let sent = outgoing.chunks.try_send(Box::new(chunk));
            assert!(
                sent.is_ok() || outgoing.chunks.is_closed(),
                "the hub sends where there is room"
            );
        }
    }

    fn await_room(&mut self, stream: StreamId, room: Room) {
        if let Some(outgoing) = self.0.get_mut(&stream) {
            outgoing.awaited = Some(room);
        }
    }

    fn answered(&mut self, stream: StreamId) {
        if let Some(outgoing) = self.0.get_mut(&stream) {
            outgoing.asking.clear();
        }
    }
}

/// The hub with its mailboxes.
pub(crate) struct Hub {
    core: HubCore,
    edges: HubEdges,
    streams: Streams,
    events: Outlet<HubMessage>,
    requests: Outlet<HubMessage>,
    more: bool,
}

impl Hub {
    pub(crate) fn new(parts: HubParts) -> Self {
        let HubParts { settings, edges, metrics, shards } = parts;
        let core = HubCore::new(settings, edges.view.get(), metrics);
        let (events, requests) = shards.into_iter().next().expect("a hub has a shard");
        Self { core, edges, streams: Streams::default(), events, requests, more: false }
    }

    /// Whether there is anything to do.
    pub(crate) fn has_work(&self) -> bool {
        self.more || self.events.waiting() > 0 || self.requests.waiting() > 0 || self.has_room()
    }

    fn has_room(&self) -> bool {
        self.streams.0.iter().any(|(stream, outgoing)| {
            outgoing.awaited.is_some_and(|room| self.streams.has_room(*stream, room))
        })
    }

    /// Takes what waits and serves streams; gives the batches of events that came.
    pub(crate) fn turn(&mut self) -> Vec<EventBatch> {
        let mut batches = Vec::new();
        self.core.set_term(self.edges.raft.get().term);
        self.core.set_compact_revision(self.edges.view.get().compact_revision());
        let events = self.events.take_waiting().into_iter();
        let messages: Vec<HubMessage> =
            events.chain(self.requests.take_waiting()).flatten().collect();
        for message in messages {
            if let HubMessage::Events(batch) = &message {
                batches.push(batch.clone());
            }
            self.handle(message);
        }
        self.find_room();
        // What a step of the shell serves before it looks around again.
        self.more = (0..64).all(|_| self.core.turn(&mut self.streams) > 0);
        self.core.show();
        batches
    }

    fn handle(&mut self, message: HubMessage) {
        match message {
            HubMessage::Events(batch) => self.core.events(&batch),
            HubMessage::Replaced(view) => self.core.replace(Arc::clone(&view)),
            HubMessage::Open { stream, chunks } => {
                let outgoing = Outgoing { chunks, asking: Vec::new(), awaited: None };
                self.streams.0.insert(stream, outgoing);
                self.core.open(stream);
            }
            HubMessage::Requests { stream, requests, asking } => {
                let Some(outgoing) = self.streams.0.get_mut(&stream) else { return };
                outgoing.asking.push(asking);
                let newest = self.edges.view.get().revision();
                self.core.ask(stream, &requests, newest, &mut self.streams);
            }
            HubMessage::Close { stream } => {
                self.streams.0.remove(&stream);
                self.core.close(stream);
            }
        }
    }

    fn find_room(&mut self) {
        let streams = &self.streams;
        let found = streams.0.iter().filter(|(stream, outgoing)| {
            outgoing.awaited.is_some_and(|room| streams.has_room(**stream, room))
        });
        let found: Vec<StreamId> = found.map(|(stream, _)| *stream).collect();
        for stream in found {
            if let Some(outgoing) = self.streams.0.get_mut(&stream) {
                outgoing.awaited = None;
            }
            self.core.room(stream);
        }
    }

    /// Tells silent watchers that asked for it how far they are.
    pub(crate) fn notify_progress(&mut self) {
        self.core.notify_progress();
        self.more = true;
    }
}
