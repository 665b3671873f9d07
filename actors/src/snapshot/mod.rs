//! Snapshots on their way between members: a view as a stream of bytes, and
//! such a stream on the receiver's disk.
//!
//! Owns the format of the stream and the file it waits in. An [`Exporter`] asks
//! Mvcc for a view and the [`Export`] cuts it into pieces; a [`SpoolWriter`]
//! puts the pieces together on the receiver's disk and checks every byte as it
//! comes; the [`Spool`] is what can be installed. Never decides who gets a
//! snapshot or when one is installed, and never keeps one beyond this run.

mod export;
mod spool;
mod stream;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::through_a_stream;

pub use export::{Export, Exporter};
#[cfg(any(test, feature = "sim"))]
pub(crate) use spool::SpoolFile;
pub use spool::{Spool, SpoolWriter, remove_leftovers};
pub use stream::{SnapshotError, fuzz_stream};
