//! etcd's errors: every text and code that clients match on, in one table.

/// gRPC status codes by name, as numbers on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs, reason = "the names are gRPC's own")]
pub enum Code {
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

macro_rules! errors {
    ($($name:ident, $code:ident, $text:literal;)*) => {
        /// An error that a client sees. Names, texts and codes are those of
        /// etcd 3.7's `rpctypes`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
        pub enum Error {
            $(#[doc = concat!("`", $text, "`")] #[error($text)] $name,)*
        }

        impl Error {
            /// The gRPC code that goes with the text.
            pub fn code(self) -> Code {
                match self {
                    $(Error::$name => Code::$code,)*
                }
            }

            /// Every error of the table.
            pub const ALL: &'static [Error] = &[$(Error::$name,)*];

            /// The error with exactly this text, as another member wrote it.
            pub fn from_text(text: &str) -> Option<Error> {
                match text {
                    $($text => Some(Error::$name),)*
                    _ => None,
                }
            }
        }
    };
}

errors! {
    EmptyKey, InvalidArgument, "etcdserver: key is not provided";
    KeyNotFound, InvalidArgument, "etcdserver: key not found";
    ValueProvided, InvalidArgument, "etcdserver: value is provided";
    LeaseProvided, InvalidArgument, "etcdserver: lease is provided";
    TooManyOps, InvalidArgument, "etcdserver: too many operations in txn request";
    DuplicateKey, InvalidArgument, "etcdserver: duplicate key given in txn request";
    InvalidClientApiVersion, InvalidArgument, "etcdserver: invalid client api version";
    InvalidSortOption, InvalidArgument, "etcdserver: invalid sort option";
    Compacted, OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    FutureRevision, OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    NoSpace, ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    LeaseNotFound, NotFound, "etcdserver: requested lease not found";
    LeaseExists, FailedPrecondition, "etcdserver: lease already exists";
    LeaseTtlTooLarge, OutOfRange, "etcdserver: too large lease TTL";
    WatchCanceled, Canceled, "etcdserver: watch canceled";
    MemberExists, FailedPrecondition, "etcdserver: member ID already exist";
    PeerUrlExists, FailedPrecondition, "etcdserver: Peer URLs already exists";
    // As TooManyRequests, of which see below.
    MemberNotEnoughStarted, Unknown, "etcdserver: re-configuration failed due to not enough started members";
    MemberBadUrls, InvalidArgument, "etcdserver: given member URLs are invalid";
    MemberNotFound, NotFound, "etcdserver: member not found";
    MemberNotLearner, FailedPrecondition, "etcdserver: can only promote a learner member";
    LearnerNotReady, FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader";
    TooManyLearners, FailedPrecondition, "etcdserver: too many learner members in cluster";
    ClusterIdMismatch, FailedPrecondition, "etcdserver: cluster ID mismatch";
    RequestTooLarge, InvalidArgument, "etcdserver: request is too large";
    // etcd maps this one through its client's error type, which carries no
    // gRPC status: on the wire the code is Unknown.
    TooManyRequests, Unknown, "etcdserver: too many requests";
    NoLeader, Unavailable, "etcdserver: no leader";
    NotLeader, FailedPrecondition, "etcdserver: not leader";
    LeaderChanged, Unavailable, "etcdserver: leader changed";
    NotCapable, FailedPrecondition, "etcdserver: not capable";
    Stopped, Unavailable, "etcdserver: server stopped";
    Timeout, Unavailable, "etcdserver: request timed out";
    TimeoutLeaderFailed, Unavailable, "etcdserver: request timed out, possibly due to previous leader failure";
    TimeoutConnectionLost, Unavailable, "etcdserver: request timed out, possibly due to connection lost";
    TimeoutWaitAppliedIndex, Unavailable, "etcdserver: request timed out, waiting for the applied index took too long";
    // Not in etcd's table: what is not goes out with its text and code Unknown.
    TimeoutLeaderTransfer, Unknown, "etcdserver: request timed out, leader transfer took too long";
    Unhealthy, Unavailable, "etcdserver: unhealthy cluster";
    Corrupt, DataLoss, "etcdserver: corrupt cluster";
    AuthNotEnabled, FailedPrecondition, "etcdserver: authentication is not enabled";
    NotSupportedForLearner, FailedPrecondition, "etcdserver: rpc not supported for learner";
    BadLeaderTransferee, FailedPrecondition, "etcdserver: bad leader transferee";
    Canceled, Canceled, "etcdserver: request canceled";
    // What Go says of a time limit. A proposal for which there was no leader
    // ends so: it is certain not to be applied, and etcd's client tries again.
    NeverProposed, DeadlineExceeded, "context deadline exceeded";
    DeadlineExceeded, DeadlineExceeded, "etcdserver: context deadline exceeded";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_distinct() {
        let mut texts: Vec<String> = Error::ALL.iter().map(ToString::to_string).collect();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), Error::ALL.len());
    }

    #[test]
    fn an_error_is_found_by_its_text() {
        for error in Error::ALL {
            assert_eq!(Error::from_text(&error.to_string()), Some(*error));
        }
        assert_eq!(Error::from_text("etcdserver: no"), None);
    }

    #[test]
    fn two_errors_carry_no_status_on_the_wire() {
        assert_eq!(Error::MemberNotEnoughStarted.code(), Code::Unknown);
        assert_eq!(Error::TooManyRequests.code(), Code::Unknown);
    }
}
