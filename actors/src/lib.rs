//! The company of actors.

pub mod checkpointer;
