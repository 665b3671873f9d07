//! Everything that can go wrong with the log on disk.

use std::io;
use std::path::{Path, PathBuf};

/// Why the log could not be created, opened, written or synced. None of them may be retried.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The file system has no room for a new segment or record.
    #[error("no space left on device while {action} WAL file {}", path.display())]
    NoSpace {
        /// What was being done.
        action: &'static str,
        /// The file or directory it was done to.
        path: PathBuf,
    },
    /// The operating system refused an operation on a file of the log.
    #[error("{action} WAL file {} failed: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or directory it was done to.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// Data that was acknowledged, or must have been synced, is damaged or missing.
    #[error("WAL file {} is damaged at offset {offset}: {detail}", path.display())]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// Where the first bad record starts, in bytes.
        offset: u64,
        /// What is wrong there and what it means.
        detail: String,
    },
    /// The log was written by a newer program.
    #[error(
        "WAL file {} has format version {found}, this program reads up to version {supported}: \
         use a newer castd",
        path.display()
    )]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The newest version this program knows.
        supported: u32,
    },
    /// A segment between the first and the last is not there.
    #[error("WAL segment {sequence:016x} is missing from {}", dir.display())]
    MissingSegment {
        /// The directory of the log.
        dir: PathBuf,
        /// The sequence of the missing segment.
        sequence: u64,
    },
    /// Every record is whole, but the log ends before an index that is known to be committed.
    #[error(
        "WAL file {} ends at offset {offset} with index {last}, but {needed_by} needs index \
         {needed}: acknowledged entries are gone",
        path.display()
    )]
    EndsTooEarly {
        /// The last segment.
        path: PathBuf,
        /// Where its records end, in bytes.
        offset: u64,
        /// The last index in the log.
        last: u64,
        /// The index that must be there.
        needed: u64,
        /// Who counts on it.
        needed_by: &'static str,
    },
    /// The log begins behind the index that the sealed state needs next.
    #[error(
        "the WAL in {} begins at index {first}, but the sealed state ends at {after}: the entries \
         between them are gone",
        dir.display()
    )]
    StartsTooLate {
        /// The directory of the log.
        dir: PathBuf,
        /// The first index in the log.
        first: u64,
        /// The last index in the sealed state.
        after: u64,
    },
    /// `create` was asked for a directory that holds a log already.
    #[error("a WAL exists in {}", .0.display())]
    Exists(PathBuf),
    /// `open` was asked for a directory that holds no log.
    #[error("there is no WAL in {}", .0.display())]
    NotFound(PathBuf),
    /// The caller broke raft's rules: a gap before an entry, or a committed entry overwritten.
    #[error("refused to write to the WAL: {0}")]
    OutOfOrder(String),
    /// A value could not be encoded.
    #[error("encoding a WAL record failed: {0}")]
    Encode(String),
    /// The log's thread panicked; the panic hook has printed why.
    #[error("the thread that writes the WAL panicked")]
    Panicked,
    /// The thread that prepares segments is gone.
    #[error("the thread that prepares WAL segments has stopped")]
    KeeperGone,
}

impl WalError {
    /// Wraps an operating-system error, and names a full disk for what it is.
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return Self::NoSpace { action, path };
        }
        Self::Io { action, path, source }
    }

    /// Damage at `offset` of the file at `path`.
    pub(super) fn damaged(path: &Path, offset: u64, detail: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_path_buf(), offset, detail: detail.into() }
    }
}
