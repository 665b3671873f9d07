//! Why a call failed, in the words a report tallies.

use tonic::{Code, Status};

/// The failure of one call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    /// The server answered with a status other than OK.
    #[error("{code:?}: {message}")]
    Status {
        /// The gRPC code.
        code: Code,
        /// The server's text.
        message: String,
    },
    /// The connection or the stream broke; a new connection may help.
    #[error("connection: {0}")]
    Connection(String),
    /// The server answered OK, with something that cannot be right.
    #[error("wrong answer: {0}")]
    WrongAnswer(String),
}

impl CallError {
    /// Whether the connection has to be made anew before another call makes sense.
    pub(crate) fn lost_connection(&self) -> bool {
        matches!(self, Self::Connection(_))
    }
}

impl From<h2::Error> for CallError {
    fn from(error: h2::Error) -> Self {
        Self::Connection(error.to_string())
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::Status { code: status.code(), message: status.message().to_owned() }
    }
}

impl From<prost::DecodeError> for CallError {
    fn from(error: prost::DecodeError) -> Self {
        Self::WrongAnswer(format!("undecodable message: {error}"))
    }
}
