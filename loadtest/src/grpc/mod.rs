//! The cheapest client that still speaks gRPC: messages framed straight onto HTTP/2 streams.
//!
//! Owns: connections to the servers under load and the framing of calls.
//! Receives: encoded-on-the-spot prost messages from the workloads.
//! Sends: HTTP/2 frames through `h2`.
//! Never does: retries, balancing, deadlines, TLS. A load generator that shares two cores
//! with the server it measures must not spend them on services it does not use, which is why
//! the generated clients' layers (boxed bodies, buffers of 8 KiB a call, a channel's worker
//! task) are not in the path.

mod error;
mod frames;
mod link;
mod rpc;

pub(crate) use error::CallError;
pub(crate) use frames::Cutter;
pub(crate) use link::{Endpoint, Link, Windows};
pub(crate) use rpc::{Chunks, Inbound, Outbound, Route, Rpc};
