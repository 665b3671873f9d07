//! The one error type of the checkpoint store.

use std::io;
use std::path::{Path, PathBuf};

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("checkpoint: cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The manifest is not what was written.
    #[error(
        "checkpoint manifest {} is damaged: {reason}; restore a snapshot into a new data \
         directory, or remove this member from its cluster and add it again as a new one",
        path.display()
    )]
    ManifestDamaged {
        /// The manifest.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The manifest was written by a later castd.
    #[error(
        "checkpoint manifest {} has format {found}, and this castd knows up to {supported}: \
         start the newer castd that wrote it",
        path.display()
    )]
    NewerFormat {
        /// The manifest.
        path: PathBuf,
        /// The format in the file.
        found: u32,
        /// The newest format this program reads.
        supported: u32,
    },
    /// A sealed volume is missing or not what was written.
    #[error(
        "checkpoint volume {}{} is damaged: {reason}; restore a snapshot into a new data \
         directory, or remove this member from its cluster and add it again as a new one",
        volume.display(),
        block.map(|n| format!(", block {n}")).unwrap_or_default()
    )]
    VolumeDamaged {
        /// The volume's directory, or the file in it where that is known.
        volume: PathBuf,
        /// The piece of a block in it, counted from 0, where that is known.
        block: Option<u32>,
        /// What is wrong with it.
        reason: String,
    },
    /// sled returned an error or panicked over bytes that are as they were sealed, or
    /// while it built a new volume.
    #[error(
        "checkpoint volume {}: sled failed: {reason}; if this happens at start, restore a \
         snapshot into a new data directory, or remove this member from its cluster and \
         add it again as a new one",
        volume.display()
    )]
    Engine {
        /// The volume's directory.
        volume: PathBuf,
        /// sled's error or panic text.
        reason: String,
    },
    /// The caller broke the contract of [`BlockSource`](super::BlockSource) or
    /// [`SealJob`](super::SealJob), or refuses a block it was given.
    #[error("checkpoint: {0}")]
    Caller(String),
    /// A test cut the seal short here.
    #[cfg(test)]
    #[error("cut short by a test")]
    Cut,
}

impl StoreError {
    /// For `map_err`: names the action and the path that an I/O error belongs to.
    pub(crate) fn io<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn damaged(volume: &Path, block: Option<u32>, reason: impl Into<String>) -> Self {
        Self::VolumeDamaged { volume: volume.to_owned(), block, reason: reason.into() }
    }
}
