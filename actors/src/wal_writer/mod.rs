//! The raft log on disk: the truth of a member.
//!
//! **Owns** the directory `member/wal`: segments of a fixed size, their records and their spares.
//! **Receives** batches of raft entries and hard states, snapshot markers, releases
//! ([`WalMessage`]), over one bounded channel.
//! **Sends** the number of the last ready that is durable, or the error that ended it
//! ([`WalEvents`]).
//! **Never** retries a write or an fsync that failed, never acknowledges what an fsync does not
//! cover, never hands back a log with a hole.
//!
//! # What is on disk
//! A segment is a file `<sequence>-<first index>.wal` (both as 16 hex digits) that was written
//! from end to end and synced before it got its name, so that a sync of new records changes no
//! file metadata. Segments that are released become spares and are overwritten.
//!
//! Each record has a header of 24 bytes and a payload, and starts at a multiple of 8:
//!
//! | bytes | meaning |
//! |---|---|
//! | 0-3 | length of the payload |
//! | 4 | kind: 1 metadata, 2 entries, 3 hard state, 4 snapshot marker |
//! | 5-7 | the low 24 bits of the segment's sequence |
//! | 8-11 | the *epoch*: how often the segment had been opened before |
//! | 12-15 | where the record's *group* starts, in units of 8 bytes |
//! | 16-19 | CRC32C of the payload |
//! | 20-23 | CRC32C of the segment's sequence, the file offset and the 20 bytes in front |
//!
//! Numbers are little-endian. Sequence and offset are in the header's CRC, so old bytes of a recycled
//! segment can never pass for new ones. The epoch does the same for what a torn write left
//! behind the end of the log: whoever opens the log writes and syncs a hard state of the next
//! epoch first, and behind it only records of that epoch count. The first record of a segment is its metadata: format
//! version, cluster, member, sequence, the segment's size, the index the next entry will have,
//! and the *chain* (a checksum over all checksums) of the segment before it. After it comes the
//! hard state as it was when the segment began.
//!
//! # What recovery promises
//! A *group* is what one fdatasync covers. All that lies before a group's start was synced
//! before the group was written, and a segment is synced before its successor gets its name.
//! So a bad record is damage to acknowledged data, and the log is refused with the name of the
//! file and the offset, when any of these holds:
//!
//! - a valid record further on in the segment belongs to a group that starts behind it;
//! - another segment follows (its metadata has the chain that this one must end with);
//! - the file is shorter than its metadata says;
//! - what remains ends before the commit index of the hard state, or before the index that the
//!   sealed state needs.
//!
//! In every other case it is the tail of a group whose fdatasync never returned: it is cut,
//! overwritten with zeros, synced, and reported as [`TailCut`].
//!
//! **The limit of this**: damage inside the *last* group of the log looks exactly like a torn
//! write, whether or not its fdatasync had returned. It is told apart only if the hard state in
//! an earlier group, or the sealed state, already counts on the entries that are gone. All
//! groups but the last are safe from being dropped without an error.

mod actor;
mod codec;
mod error;
mod keeper;
mod log;
mod messages;
mod metrics;
mod record;
mod recovery;
mod replay;
mod segment;
mod writer;

#[cfg(test)]
mod tests;

pub use actor::{WalHandle, WalWriter, spawn, writer};
pub use error::WalError;
#[cfg(any(test, feature = "sim"))]
pub(crate) use keeper::{Keeper, Pool, Spare};
pub use log::Wal;
pub use messages::{
    Append, Identity, Recovered, SnapshotMarker, TailCut, WalEvents, WalMessage, WalOptions,
};
pub use metrics::WalMetrics;
pub use recovery::{create, exists, fuzz_segment, open, open_behind};
#[cfg(any(test, feature = "sim"))]
pub(crate) use recovery::{create_on, exists_on, open_behind_on, open_on};
