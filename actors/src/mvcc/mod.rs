//! mvcc, being built
pub mod block;
pub mod index;
pub mod log;
pub mod record;
pub mod revision;
