//! Checkpointer: keeps a sealed copy of the state on disk, so that the log before it
//! may go.
//!
//! **Owns** the directory `member/snap`: a list of immutable *volumes* (one small sled
//! database each) and the *manifest* that names them. **Receives** [`SealJob`]s: an
//! immutable view of the state at one applied index. **Sends** [`Sealed`] when a copy
//! that covers this index is durable and has been read back, or the [`StoreError`] that
//! prevented it. **Never** writes to a volume that the manifest names, never names a
//! volume it has not read back, never serves reads, and knows nothing of what is inside
//! a block.
//!
//! ```text
//!   member/snap/manifest                    names the volumes; replaced by rename
//!   member/snap/vol-00000000000000a3/db     a sled log file    } written once, fsynced,
//!   member/snap/vol-00000000000000a3/conf   its configuration  } read back, then named
//!   member/snap/stage/                      scratch of this process, swept at start
//! ```
//!
//! sled's own flush does not survive a power cut, and it writes to a database by merely
//! opening it. So sled never touches the sealed files: it builds a volume in memory,
//! whose bytes we write and sync ourselves, and it reads a volume from a private copy
//! (see `stage`). A crash at any moment leaves the last manifest and all it names, plus
//! perhaps volumes that nobody names, which the next start sweeps away.

mod actor;
pub(crate) mod block;
pub(crate) mod core;
mod error;
mod manifest;
mod messages;
mod metrics;
mod paced;
pub(crate) mod place;
mod sled_store;
mod sled_volumes;
mod stage;
pub(crate) mod store;
pub(crate) mod volume;

#[cfg(test)]
mod tests;

pub use actor::{Checkpointer, CheckpointerLink, CheckpointerOptions, SealRefused, Sealer, sealer};
pub use block::fuzz_block;
pub use error::StoreError;
pub use manifest::fuzz_manifest;
pub use messages::{
    BlockSource, BlockVisitor, CheckpointEvents, CheckpointMessage, CheckpointStore, LoadVisitor,
    LoadedMeta, Reclaim, RevisionKey, SealJob, Sealed,
};
pub use metrics::CheckpointMetrics;
pub use sled_store::{SledStore, SledStoreOptions};
