//! PeerTransport: the way to the other members.
//!
//! Owns the links to peers. Receives raft messages from RaftNode. A cluster of
//! one member has no peers, and this version starts no other: a message that
//! comes here all the same is dropped, as a network may, and counted.

mod messages;

use actix::{Actor, AsyncContext, Context, StreamHandler};
use prometheus::IntCounter;

use crate::shared::Outlet;

pub use messages::{PeerMessage, PeerStatus};

/// The actor; see the module's text.
#[derive(Debug)]
pub struct PeerTransport {
    messages: Option<Outlet<PeerMessage>>,
    undeliverable: IntCounter,
}

impl PeerTransport {
    /// The actor over its mailbox.
    pub fn new(messages: Outlet<PeerMessage>, undeliverable: IntCounter) -> Self {
        Self { messages: Some(messages), undeliverable }
    }
}

impl Actor for PeerTransport {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.add_stream(self.messages.take().expect("an actor starts once"));
    }
}

impl StreamHandler<Vec<PeerMessage>> for PeerTransport {
    fn handle(&mut self, batch: Vec<PeerMessage>, _: &mut Self::Context) {
        for message in batch {
            if let PeerMessage::Send(messages) = message {
                self.undeliverable.inc_by(messages.len() as u64);
            }
        }
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}
