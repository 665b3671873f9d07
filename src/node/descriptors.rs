//! The file descriptors of the process, and how many of them clients may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::CONNECTIONS_MAX;

/// Descriptors that clients leave to the member itself: the log, snapshots, its listeners
/// and whoever asks for metrics. As many as etcd keeps.
const RESERVED: u64 = 150;

/// What they leave to each other member besides: three connections each way, and twice as
/// many that broke and have not been missed yet.
const RESERVED_PER_MEMBER: u64 = 18;

/// Raises the limit to what the process may raise it to, as Go's runtime does for etcd.
/// Gives the limit that is in force then; `None` when there is none.
pub(super) fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "failed to raise the limit of file descriptors");
            current
        }
    }
}

/// How many connections clients may have in a cluster of this many members.
///
/// # Errors
/// When the limit leaves none.
pub(super) fn client_connections(limit: Option<u64>, members: usize) -> Result<usize, String> {
    let others = u64::try_from(members.saturating_sub(1)).unwrap_or(u64::MAX);
    let reserved = RESERVED.saturating_add(others.saturating_mul(RESERVED_PER_MEMBER));
    let limit = limit.unwrap_or(u64::MAX);
    let left = usize::try_from(limit.saturating_sub(reserved)).unwrap_or(usize::MAX);
    match left {
        0 => Err(format!(
            "file descriptor limit of the process is too low: {limit}, of which the member needs \
             {reserved}; please set it higher"
        )),
        left => Ok(left.min(CONNECTIONS_MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_the_members_leave() {
        assert_eq!(client_connections(Some(1024), 1), Ok(874), "what etcd gives");
        assert_eq!(client_connections(Some(1024), 3), Ok(838));
        assert_eq!(client_connections(Some(1 << 30), 3), Ok(60_000));
        assert_eq!(client_connections(None, 3), Ok(60_000));
        assert_eq!(client_connections(Some(187), 3), Ok(1));
        let error = client_connections(Some(186), 3).unwrap_err();
        assert!(error.contains("186") && error.contains("too low"), "{error}");
    }
}
