//! The company of actors.
pub mod apply_loop;
pub mod checkpointer;
pub mod cluster;
pub mod company;
pub mod compactor;
pub mod lease_manager;
pub mod mvcc;
pub mod peer_transport;
pub mod proposer;
pub mod raft_node;
pub mod shared;
pub mod wal_writer;
pub mod watch_hub;
