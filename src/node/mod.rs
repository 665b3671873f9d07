//! A member from its configuration to its end.
//!
//! Owns: the data directory's lock, the order of start and stop, the process's
//! signals. Starts the company of actors, then the network faces. Never
//! decides anything about data.

mod data_dir;
mod identity;
mod options;
mod probe;
mod run;

pub use data_dir::{DataDir, DataDirError};
pub use identity::{bootstrap, member_id};
pub use probe::probe;
pub use run::{RunError, run};
