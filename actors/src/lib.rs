//! The company of actors: everything of a castd member behind its network faces.
//!
//! | room | its actor |
//! |---|---|
//! | [`raft_node`] | raft: elections, replication, read indexes |
//! | [`wal_writer`] | the raft log on disk, one fsync for a group |
//! | [`apply_loop`] | committed entries become operations, in order |
//! | [`mvcc`] | keys in all their revisions; publishes immutable views |
//! | [`lease_manager`] | when leases end |
//! | [`watch_hub`] | every change to everyone who watches |
//! | [`compactor`] | gives up old history and frees it, piece by piece |
//! | [`checkpointer`] | a sealed copy of the state on disk, in sled |
//! | [`peer_transport`] | the way to other members |
//!
//! [`company`] starts them and is their door; [`snapshot`] is how a state travels
//! between members; [`shared`] is what they have in
//! common: mailboxes, supervision, errors. Actors share no memory that changes:
//! they send messages over bounded edges, and immutable views.

pub mod apply_loop;
pub mod checkpointer;
pub mod cluster;
pub mod compactor;
pub mod company;
pub mod lease_manager;
pub mod mvcc;
pub mod peer_transport;
pub mod proposer;
pub mod raft_node;
pub mod shared;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod snapshot;
pub mod wal_writer;
pub mod watch_hub;

pub use cluster::{ClusterState, MemberInfo};
pub use company::{Company, LeaseInfo};
pub use mvcc::{Applied, HashKv, Outcome, View};
pub use raft_node::RaftStatus;
pub use shared::{Code, Error, MailboxStats};
pub use wal_writer::Identity;
pub use watch_hub::{Chunk, StreamRequest, WatchHandle};
