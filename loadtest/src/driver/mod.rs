//! Runs a workload: threads, clients, pacing, the measured window, and what is counted in it.
//!
//! Owns: one thread with a local runtime for each share of the connections.
//! Receives: a [`Work`] that says what a call is, and a [`Plan`] that says how many and when.
//! Sends: a [`Measured`] back: latencies by kind of call, errors by text, CPU and memory.
//! Never does: any work of its own between two calls of a client beyond two clock readings.

mod client;
mod pacing;
mod plan;
mod recorder;
mod run;
mod shared;
mod window;

pub(crate) use pacing::{Schedule, Slots};
pub(crate) use plan::{Pace, Plan};
pub(crate) use recorder::Recorder;
pub(crate) use run::{Measured, measure};
pub(crate) use window::Window;

use std::rc::Rc;

use crate::grpc::{CallError, Rpc};

/// A client: makes one call after another.
pub(crate) trait Caller: 'static {
    /// Makes one call and says what it was.
    async fn call(&mut self) -> Result<Done, CallError>;

    /// The handle the calls go through, to have it connected again.
    fn rpc(&self) -> &Rpc;
}

/// What one successful call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    /// Index into [`Work::KINDS`].
    pub(crate) kind: usize,
    /// Keys read or written by it.
    pub(crate) items: u64,
}

impl Done {
    /// A call of the given kind that touched one key.
    pub(crate) fn one(kind: usize) -> Self {
        Self { kind, items: 1 }
    }
}

/// Which thread of how many a room or a client is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// Index of the thread.
    pub(crate) thread: usize,
    /// Number of threads.
    pub(crate) threads: usize,
}

/// A kind of load.
pub(crate) trait Work: Send + Sync {
    /// Names of the kinds of calls it makes.
    const KINDS: &'static [&'static str];
    /// What the clients of one thread share.
    type Room: 'static;
    /// A client of it.
    type Caller: Caller;
    /// What a thread knows at the end beyond latencies.
    type Harvest: Send + 'static;

    /// Prepares what one thread's clients share. It may take its time.
    fn room(&self, share: Share) -> Self::Room;

    /// The run is about to start: the window is set.
    fn starts(&self, _window: Window) {}

    /// Makes client number `client` (counted over all threads).
    fn caller(&self, room: &Rc<Self::Room>, client: usize, rpc: Rpc) -> Self::Caller;

    /// Takes from a thread's room what is to be kept.
    fn harvest(&self, room: &Self::Room) -> Self::Harvest;
}
