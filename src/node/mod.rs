//! A member from its configuration to its end.
//!
//! Owns: the data directory's lock, the order of start and stop, the process's
//! signals. Starts the company of actors, then the network faces. Never
//! decides anything about data.

mod begin;
mod data_dir;
mod descriptors;
mod discovery;
mod options;
mod probe;
mod remote;
mod resolve;
mod run;
mod srv;
mod version;

pub use data_dir::{DataDir, DataDirError};
pub use probe::probe;
pub use run::{Ended, RunError, run};
