//! WatchHub: brings every change to everyone who watches.
//!
//! Owns the watchers and the streams they share. Receives batches of changes
//! from Mvcc and requests from the faces. Sends responses into each stream's
//! bounded channel and never waits for one: a stream that is full makes its
//! watchers *lag*, which costs a position in history and nothing else. A
//! lagging watcher reads on from the immutable view, a bounded piece at a time
//! and only when its stream has room, until it has caught up.
//!
//! Promises, per watcher: events come in the order of revisions, each once,
//! those of one revision together, none is left out; `created` comes first.

mod actor;
mod core;
mod handle;
mod matcher;
mod metrics;
#[cfg_attr(not(test), expect(dead_code, reason = "the hub finds its groups with it"))]
mod range_index;
mod respond;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use castd_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use prost::Message;
use tokio::sync::mpsc::{OwnedPermit, Sender};

pub use actor::{HubEdges, WatchHub};
pub use core::{HubCore, HubSettings, Outbox};
pub use handle::{WatchDoor, WatchHandle};
pub use metrics::HubMetrics;

use crate::mvcc::{EventBatch, View};

/// Tells streams apart.
pub type StreamId = u64;

/// Responses that may wait in one stream's channel.
pub const STREAM_RESPONSES: usize = 32;

/// Requests of one stream that may be asked together.
pub const REQUESTS_TOGETHER: usize = 64;

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
    /// One response.
    pub fn of(response: &WatchResponse) -> Self {
        let length = response.encoded_len();
        let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
        bytes.put_u8(0);
        bytes.put_u32(u32::try_from(length).expect("a response is far below 4 GiB"));
        response.encode_raw(&mut bytes);
        Self { parts: vec![bytes.freeze()], responses: 1 }
    }

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

    /// Their bytes, frames included.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(Bytes::is_empty)
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
        /// Its channel.
        responses: Sender<Chunk>,
    },
    /// A stream asks for something. The slot in its own channel, taken before
    /// asking, is where the answer goes: a client that does not read its
    /// answers cannot make the hub hold them.
    Request {
        /// The stream.
        stream: StreamId,
        /// What it asks.
        request: StreamRequest,
        /// Room for the answer.
        slot: OwnedPermit<Chunk>,
    },
    /// A stream has ended.
    Close {
        /// The stream.
        stream: StreamId,
    },
}

/// What a stream can ask for.
#[derive(Debug)]
pub enum StreamRequest {
    /// Begin to watch.
    Create(WatchCreateRequest),
    /// Stop the watcher with this id.
    Cancel(i64),
    /// Tell how far all watchers of the stream are.
    Progress,
}
