//! What a simulation of a whole cluster needs of a member: a disk in memory that loses power,
//! and a member's data on it.
//!
//! Owns nothing of a running member and takes no part in one: production code does not know
//! that this room is here. Nothing in it depends on time, on threads or on addresses; what is
//! left to chance is decided by a seed.

mod data_dir;
mod disk;
mod inode;
mod volumes;

#[cfg(test)]
mod tests;

pub use data_dir::open;
pub use disk::SimDisk;
