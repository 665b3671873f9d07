//! WatchHub: brings every change to everyone who watches.
//!
//! The hub is cut into shards; a stream is served by one of them. A shard owns its
//! streams and their watchers. It receives batches of changes from Mvcc and
//! requests from the faces, and sends encoded responses, a chunk at a time, into
//! each stream's short channel. It never waits for one, and keeps no responses for
//! one that is full: such a stream costs *positions*.
//!
//! ```text
//!  stream ── cohort ── cohort     watchers of a stream that watch the same range in
//!               │         │       the same way and are equally far: one position
//!             group     group     a distinct range, and its latest events
//!                \       /
//!               range index       key -> groups
//! ```
//! A batch's changes are put into the logs of the groups they concern, encoded
//! once, and the cohorts of these groups get in line at their streams. Streams that
//! have something to be told and room for it take turns of one chunk. A cohort
//! reads on in its group's log; when it is too far behind for that, a piece of
//! history from the store in each turn. Streams stand in one line for the one and
//! in another for the other, so that history delays nobody who is up to date.
//!
//! Promises, per watcher: events come in the order of revisions, each once,
//! those of one revision together, none is left out; `created` comes first. A
//! stream keeps at most [`STREAM_CHUNKS`] chunks and one response, whatever its
//! client does. A chunk is larger than usual when one response is, and then
//! nothing follows until all that came before is taken.

mod actor;
mod cohort;
mod core;
mod encode;
mod group;
mod handle;
mod lines;
mod metrics;
mod range_index;
mod requests;
mod serve;
mod slots;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::{Buf, Bytes};
use castd_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use prost::Message;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::Sender;

pub use actor::{HubEdges, WatchHub};
pub use core::{HubCore, HubSettings, Outbox, Room};
pub use encode::EventBlock;
pub use handle::{WatchDoor, WatchHandle};
pub use metrics::HubMetrics;

use crate::mvcc::{EventBatch, View};

/// Tells streams apart.
pub type StreamId = u64;

/// Chunks that may wait in one stream's channel.
pub const STREAM_CHUNKS: usize = 4;

/// Requests of one stream that may be asked together.
pub const REQUESTS_TOGETHER: usize = 64;

/// How often a stream may ask before it is answered.
pub const STREAM_ASKS: usize = 8;

/// Bytes in front of each response: gRPC's flag (not compressed) and length.
const PREFIX_BYTES: usize = 5;

/// Responses of one stream, encoded and framed as gRPC sends them, ready to be
/// written one after the other.
#[derive(Clone, Debug, Default)]
pub struct Chunk {
    /// The bytes. Where one part ends says nothing: a response may go on in the next.
    pub parts: Vec<Bytes>,
    /// Responses in them.
    pub responses: u32,
}

impl Chunk {
    /// The responses themselves; `None` when the parts are not whole responses,
    /// which no chunk of the hub's is.
    pub fn decode(&self) -> Option<Vec<WatchResponse>> {
        let mut bytes = Bytes::from(self.parts.concat());
        let mut responses = Vec::with_capacity(self.responses as usize);
        while !bytes.is_empty() {
            let length = bytes.get(1..PREFIX_BYTES)?.try_into().ok()?;
            let end = PREFIX_BYTES.checked_add(u32::from_be_bytes(length) as usize)?;
            let message = bytes.get(PREFIX_BYTES..end)?;
            responses.push(WatchResponse::decode(message).ok()?);
            bytes.advance(end);
        }
        Some(responses)
    }

    /// Bytes of the responses, without their frames.
    pub fn message_bytes(&self) -> usize {
        let all: usize = self.parts.iter().map(Bytes::len).sum();
        all.saturating_sub(self.responses as usize * PREFIX_BYTES)
    }
}

/// What WatchHub takes.
#[derive(Debug)]
pub enum HubMessage {
    /// The store changed.
    Events(EventBatch),
    /// The store was replaced by a newer state of the same history: events up
    /// to there are read from it.
    Replaced(Arc<View>),
    /// A stream was opened; its responses go here.
    Open {
        /// The new stream.
        stream: StreamId,
        /// Its channel. Boxed, because a channel has places for more than it takes,
        /// and there are many channels.
        chunks: Sender<Box<Chunk>>,
    },
    /// A stream asks for something.
    Requests {
        /// The stream.
        stream: StreamId,
        /// What it asks, at most [`REQUESTS_TOGETHER`].
        requests: Vec<StreamRequest>,
        /// Given back when the answers have left, so that a client that does not
        /// read its answers cannot make the hub hold them.
        asking: OwnedSemaphorePermit,
    },
    /// A stream has ended.
    Close {
        /// The stream.
        stream: StreamId,
    },
}

/// What a stream can ask for.
#[derive(Clone, Debug)]
pub enum StreamRequest {
    /// Begin to watch.
    Create(WatchCreateRequest),
    /// Stop the watcher with this id.
    Cancel(i64),
    /// Tell how far all watchers of the stream are.
    Progress,
}
