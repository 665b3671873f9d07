//! Snapshots on their way between members: a view as a stream of bytes, and
//! such a stream as a state again.
//!
//! Owns the format of the stream. An [`Exporter`] asks Mvcc for a view and the
//! [`Export`] cuts it into pieces; an [`Arriving`] checks every byte as it comes
//! and builds the state from it, and an [`Arrived`] is what can be installed.
//! Never decides who gets a snapshot or when one is installed, and never writes
//! one to disk: it is durable when the checkpointer has sealed it.

mod arrival;
mod export;
mod stream;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::through_a_stream;

pub use arrival::{Arrived, Arriving};
pub use export::{Export, Exporter};
pub use stream::{SnapshotError, fuzz_stream};
