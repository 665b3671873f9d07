//! Why a run could not be made at all.

use std::io;
use std::path::PathBuf;

use crate::grpc::CallError;

/// An error that ends the program; failed calls are counted instead.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// No connection at the start of the run.
    #[error("cannot connect: {0}")]
    Connect(#[source] CallError),
    /// A call that the run depends on failed, for instance while filling.
    #[error("{what}: {source}")]
    Call {
        /// What was being done.
        what: &'static str,
        /// How it failed.
        #[source]
        source: CallError,
    },
    /// The runtime of a thread could not be made.
    #[error("cannot make a runtime: {0}")]
    Runtime(#[source] io::Error),
    /// A thread of the generator ended before its time.
    #[error("a thread of the generator failed")]
    Thread,
    /// The server's process could not be observed.
    #[error("cannot read {path}: {source}")]
    Observe {
        /// What was read.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file could not be read or written.
    #[error("{what} {path}: {source}")]
    File {
        /// What was to be done.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A server under comparison did not start, stop or answer as it must.
    #[error("{server}: {problem}")]
    Server {
        /// The server's name in the comparison.
        server: String,
        /// What went wrong, with the end of its log.
        problem: String,
    },
    /// Only a privileged program may do this.
    #[error(
        "cannot make {what}: {source} (this needs root, and for some faults mkfs.ext4; --network plain does without)"
    )]
    Rights {
        /// What was to be made.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A signal ended the run.
    #[error("interrupted")]
    Interrupted,
    /// Options that contradict each other or cannot be met.
    #[error("{0}")]
    Usage(String),
}
