//! The file descriptors of the process, and how many of them go to connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::ConnectionsMax;

/// Descriptors that clients leave to the member itself, to whoever asks for metrics, and to
/// members to come. As many as etcd keeps.
const RESERVED: u64 = 150;

/// Of these, those who ask for metrics have so many,
const METRICS: usize = 32;

/// and members who call so many; the log, snapshots and listeners have the rest.
const PEERS: usize = 54;

/// What clients leave to each other member besides: three connections each way, and twice as
/// many that broke and have not been missed yet.
const RESERVED_PER_MEMBER: u64 = 18;

/// Of these, the member calls with three, and with three more while those break.
const PEERS_PER_MEMBER: usize = 12;

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

/// How many connections there may be in a cluster that has this many members now. What is
/// left when clients have all of theirs is for the others, who then need not be as sparing.
///
/// # Errors
/// When the limit leaves none to clients.
pub(super) fn connections(limit: Option<u64>, members: usize) -> Result<ConnectionsMax, String> {
    let most = ConnectionsMax::MOST;
    let others = members.saturating_sub(1);
    let for_others = RESERVED_PER_MEMBER.saturating_mul(u64::try_from(others).unwrap_or(u64::MAX));
    let reserved = RESERVED.saturating_add(for_others);
    let limit = limit.unwrap_or(u64::MAX);
    let left = usize::try_from(limit.saturating_sub(reserved)).unwrap_or(usize::MAX);
    if left == 0 {
        return Err(format!(
            "file descriptor limit of the process is too low: {limit}, of which the member needs \
             {reserved}; please set it higher"
        ));
    }
    let half = left.saturating_sub(most.clients) / 2;
    let peers = PEERS.saturating_add(PEERS_PER_MEMBER.saturating_mul(others));
    Ok(ConnectionsMax {
        clients: left.min(most.clients),
        metrics: METRICS.saturating_add(half).min(most.metrics),
        peers: peers.saturating_add(half).min(most.peers.max(peers)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(limit: u64, members: usize) -> (usize, usize, usize) {
        let ConnectionsMax { clients, metrics, peers } =
            connections(Some(limit), members).expect("it is enough");
        (clients, metrics, peers)
    }

    #[test]
    fn clients_get_what_the_members_leave() {
        assert_eq!(given(1024, 1), (874, 32, 54), "clients have what etcd gives");
        assert_eq!(given(1024, 3), (838, 32, 78));
        assert_eq!(given(187, 3), (1, 32, 78));
        let error = connections(Some(186), 3).unwrap_err();
        assert!(error.contains("186") && error.contains("too low"), "{error}");
    }

    #[test]
    fn the_others_get_what_clients_leave() {
        assert_eq!(given(60_150, 1), (60_000, 32, 54));
        assert_eq!(given(60_250, 1), (60_000, 82, 104));
        assert_eq!(given(1 << 30, 3), (60_000, 1024, 1024));
        assert_eq!(connections(None, 3), Ok(ConnectionsMax::MOST));
        let ConnectionsMax { peers, .. } = connections(None, 1000).unwrap();
        assert!(peers >= 3 * 999, "every member has its three");
    }

    /// Whatever the limit, the member keeps what it needs for its log and its own calls.
    #[test]
    fn all_of_them_leave_something() {
        for (limit, members) in [(187, 3), (1024, 1), (60_250, 9), (65_536, 5), (1 << 20, 3)] {
            let (clients, metrics, peers) = given(limit, members);
            let taken = u64::try_from(clients + metrics + peers + 6 * (members - 1)).unwrap();
            assert!(limit - taken >= 64, "{limit}, {members} members: {taken} are taken");
        }
    }
}
