//! raft messages.
