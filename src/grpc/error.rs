//! How a call fails: etcd's error table on one side, gRPC's status on the other.

use castd_actors::Error;
use tonic::{Code, Status};

/// Why a call got no answer.
#[derive(Debug)]
pub enum Failure {
    /// One of the errors clients match on.
    Etcd(Error),
    /// A text outside of that table.
    Other(Status),
}

impl Failure {
    /// For what this version of castd does not do; `what` names the method.
    pub fn not_yet(what: &str) -> Self {
        Self::Other(Status::unimplemented(format!("castd: {what} is not supported yet")))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Etcd(error)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Other(status)
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Etcd(error) => status(error),
            Failure::Other(status) => in_go_words(status),
        }
    }
}

/// The gRPC status of one of etcd's errors.
pub fn status(error: Error) -> Status {
    Status::new(Code::from_i32(error.code() as i32), error.to_string())
}

/// Gives tonic's refusal of an oversize message the code and the words that clients of
/// etcd know; leaves every other status as it is.
pub(super) fn in_go_words(status: Status) -> Status {
    match (status.code(), oversize(status.message())) {
        (Code::OutOfRange, Some(text)) => Status::resource_exhausted(text),
        _ => status,
    }
}

/// The refusal of an oversize message in the words of Go's gRPC library, from tonic's.
fn oversize(text: &str) -> Option<String> {
    let rest = text.strip_prefix("Error, decoded message length too large: found ")?;
    let (found, rest) = rest.split_once(" bytes, the limit is: ")?;
    let limit = rest.strip_suffix(" bytes")?;
    Some(format!("grpc: received message larger than max ({found} vs. {limit})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_keeps_code_and_text() {
        for error in Error::ALL {
            let status = Status::from(Failure::from(*error));
            assert_eq!(status.code() as i32, error.code() as i32);
            assert_eq!(status.message(), error.to_string());
        }
        let status = status(Error::Compacted);
        assert_eq!(status.code(), Code::OutOfRange);
        assert_eq!(status.message(), "etcdserver: mvcc: required revision has been compacted");
    }

    #[test]
    fn an_oversize_message_is_refused_in_the_words_of_grpc_go() {
        let tonic = "Error, decoded message length too large: found 7 bytes, the limit is: 5 bytes";
        let status = in_go_words(Status::out_of_range(tonic));
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(status.message(), "grpc: received message larger than max (7 vs. 5)");
        let other = in_go_words(Status::out_of_range("else"));
        assert_eq!((other.code(), other.message()), (Code::OutOfRange, "else"));
    }
}
