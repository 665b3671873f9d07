//! Log lines as etcd writes them: one JSON object a line with `level`, `ts`, `caller`,
//! `msg` and then the event's fields, or tab-separated columns for people.
//!
//! Owns: the process's `tracing` subscriber and the outputs it writes to. Receives:
//! events of this program's crates at the configured level, of other crates from `warn`
//! up (from `info` up when the level is `debug`). Sends: whole lines, each written to
//! every output before the event returns. Never: buffers a line, or logs a span.
//!
//! Of one level and message no more than the first hundred a second are written, and
//! each hundredth after: a flood of equal lines cannot fill a disk.
//!
//! Conventions for events:
//! - field names are etcd's, and those with dashes stand between braces:
//!   `info!({ "local-member-id" = %id, term }, "became leader")`; an error is `error = %e`;
//! - lists are given as [`Json`], so that they stay lists: `{ "urls" = Json::of(&urls).field() }`;
//! - a field `logger` names a part of the program, as etcd's lines of raft do;
//! - `target: FATAL` makes a line `fatal`: whoever writes it then ends the process.

mod encode;
mod json;
mod layer;
mod level;
mod logger;
mod notice;
mod sampler;
mod settings;
#[cfg(test)]
mod tests;
mod timestamp;

pub use json::Json;
pub use level::Level;
pub(crate) use logger::plain_io_error;
pub use logger::{LogError, Logger, init};
pub use notice::Notice;
pub use settings::{Format, LogConfig, Output};

/// The target of events that end the process: their level is `fatal`.
pub const FATAL: &str = "castd::fatal";

/// The target of events about a broken promise inside the process: their level is
/// `panic`.
pub const PANIC: &str = "castd::panic";
