//! One client's connection: to one member at a time, to the next when that one fails.

use std::rc::Rc;
use std::time::Duration;

use prost::Message;
use tokio::time::timeout;
use tonic::Code;

use crate::grpc::{CallError, Endpoint, Inbound, Link, Outbound, Rpc};

/// How long an attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two attempts that failed.
const CONNECT_PAUSE: Duration = Duration::from_millis(50);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nothing was sent.
    Unconnected,
    /// The server refused: the call certainly did nothing, and never will.
    Refused(String),
    /// The call may take effect, now or later, or not.
    Unknown(String),
    /// The server answered with something that cannot be right.
    Wrong(String),
}

/// A client's way to the members.
#[derive(Debug)]
pub(crate) struct Session {
    endpoints: Rc<[Endpoint]>,
    member: usize,
    connection: Option<Rpc>,
    call_timeout: Duration,
}

impl Session {
    /// A session that begins at a member.
    pub(crate) fn new(endpoints: &Rc<[Endpoint]>, member: usize, call_timeout: Duration) -> Self {
        let (endpoints, member) = (Rc::clone(endpoints), member % endpoints.len());
        Self { endpoints, member, connection: None, call_timeout }
    }

    /// The member this session is at.
    pub(crate) fn member(&self) -> usize {
        self.member
    }

    /// Goes to another member.
    pub(crate) fn go_to(&mut self, member: usize) {
        self.member = member % self.endpoints.len();
        self.connection = None;
    }

    /// Goes to the next member.
    pub(crate) fn go_on(&mut self) {
        self.go_to(self.member + 1);
    }

    /// Gives up the connection; the next call makes a new one to the same member.
    pub(crate) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Connects, if there is no connection.
    ///
    /// # Errors
    /// When the member does not answer.
    pub(crate) async fn connect(&mut self) -> Result<&mut Rpc, Failure> {
        if self.connection.is_none() {
            let dial = Link::connect(self.endpoints[self.member].clone());
            match timeout(CONNECT_TIMEOUT, dial).await {
                Ok(Ok(link)) => self.connection = Some(Rpc::new(&link)),
                Ok(Err(_)) | Err(_) => tokio::time::sleep(CONNECT_PAUSE).await,
            }
        }
        self.connection.as_mut().ok_or(Failure::Unconnected)
    }

    /// One call. [`Session::connect`] comes first, so that what fails here may have been sent.
    ///
    /// # Errors
    /// When there is no answer in time, or not a good one.
    pub(crate) async fn call<Q: Message, A: Message + Default>(
        &mut self,
        path: &'static str,
        request: &Q,
    ) -> Result<A, Failure> {
        let call_timeout = self.call_timeout;
        let rpc = self.connect().await?;
        let route = rpc.route(path);
        match timeout(call_timeout, rpc.unary(&route, request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(_) => {
                self.connection = None;
                Err(Failure::Unknown("no answer in time".into()))
            }
        }
    }

    /// Opens a stream.
    ///
    /// # Errors
    /// When the member does not answer.
    pub(crate) async fn open<A: Message + Default>(
        &mut self,
        path: &'static str,
    ) -> Result<(Outbound, Inbound<A>), Failure> {
        let call_timeout = self.call_timeout;
        let rpc = self.connect().await?;
        let route = rpc.route(path);
        match timeout(call_timeout, rpc.open(&route)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.failed(&error)),
            Err(_) => {
                self.connection = None;
                Err(Failure::Unknown("no stream in time".into()))
            }
        }
    }

    fn failed(&mut self, error: &CallError) -> Failure {
        if error.lost_connection() {
            self.connection = None;
        }
        classify(error)
    }
}

/// What an error says about the call's effect. Only codes a server gives before it proposes
/// anything are certain; all others leave the question open.
fn classify(error: &CallError) -> Failure {
    let text = error.to_string();
    match error {
        // The text names ports and system errors: too many different ones to be counted.
        CallError::Connection(_) => Failure::Unknown("connection lost".into()),
        CallError::WrongAnswer(_) => Failure::Unknown(text),
        CallError::Status { code, .. } => match code {
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::OutOfRange
            | Code::ResourceExhausted
            | Code::Unimplemented
            | Code::PermissionDenied
            | Code::Unauthenticated => Failure::Refused(text),
            _ => Failure::Unknown(text),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_codes_from_before_the_proposal_are_certain() {
        let status = |code| CallError::Status { code, message: "m".into() };
        for code in [Code::ResourceExhausted, Code::InvalidArgument, Code::FailedPrecondition] {
            assert!(matches!(classify(&status(code)), Failure::Refused(_)), "{code:?}");
        }
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Unknown, Code::Internal] {
            assert!(matches!(classify(&status(code)), Failure::Unknown(_)), "{code:?}");
        }
        let lost = classify(&CallError::Connection("reset".into()));
        assert_eq!(lost, Failure::Unknown("connection lost".into()));
        let cut_off = classify(&CallError::WrongAnswer("w".into()));
        assert!(matches!(cut_off, Failure::Unknown(_)));
    }
}
