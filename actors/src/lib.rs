//! The company of actors.
#![allow(unused)]
pub mod mvcc;
pub mod shared;
pub mod wal_writer;
