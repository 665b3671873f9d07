//! Snapshots on their way between members: a view as a stream of bytes, and
//! such a stream on the receiver's disk.
//!
//! Owns the format of the stream and the file it waits in. Never decides who
//! gets a snapshot or when one is installed.

mod spool;

pub use spool::Spool;
