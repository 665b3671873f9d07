//! raft's messages: `eraftpb` compiled with the prost that the rest of castd uses.
//!
//! The `raft` crate names a `raft-proto` crate for its messages; the workspace's
//! `[patch.crates-io]` puts this one in that place. The published one pins an older
//! prost and needs a `protoc` on the building machine; this one needs neither, and
//! every `bytes` field is a [`bytes::Bytes`], so that an entry's data is shared between
//! log, network, and application without a copy.
//!
//! Owns: the wire form of raft's log entries, snapshots, and messages, and what `raft`
//! calls on them. Never does: any raft logic beyond classifying a configuration change.

mod confchange;
mod confstate;
mod wire;

pub use crate::confchange::{ConfChangeI, new_conf_change_single};
pub use crate::confstate::conf_state_eq;

/// The messages, with the `get_`/`set_`/`mut_`/`take_`/`has_`/`clear_` accessors `raft` uses.
///
/// Fields are public too; an enum field is an `i32` there and an enum through its accessors.
#[allow(missing_docs, unused_qualifications, clippy::all)]
pub mod eraftpb {
    use crate::wire::wire_message;
    use bytes::Bytes;

    include!(concat!(env!("OUT_DIR"), "/eraftpb.rs"));
    include!(concat!(env!("OUT_DIR"), "/eraftpb_glue.rs"));
}

/// Every message and enum, for a glob import.
pub mod prelude {
    pub use crate::eraftpb::{
        ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2,
        ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot, SnapshotMetadata,
    };
}
