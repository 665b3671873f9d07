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
mod respond;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use castd_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
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
        responses: Sender<WatchResponse>,
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
        slot: OwnedPermit<WatchResponse>,
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
