//! How the links are to behave.

use std::time::Duration;

use crate::shared::request_timeout;
use crate::wal_writer::Identity;

/// The largest message that is taken off the wire, in bytes, as in etcd: an entry of any
/// size that some member lets its clients write, and what is gathered with it.
pub(super) const FRAME_BYTES_MAX: usize = 512 << 20;

/// How the links to other members are to behave.
#[derive(Clone, Debug)]
pub struct PeerSettings {
    /// Who this member is.
    pub identity: Identity,
    /// The version it says it has, as `3.7.0`.
    pub version: String,
    /// The newest cluster version it can serve, as `3.7.0`.
    pub cluster_version: String,
    /// raft's tick: the loss of messages to a member is reported once in it.
    pub tick: Duration,
    /// How long a connection attempt may take, the other side's consent included.
    pub connect_timeout: Duration,
    /// How long the other side may give no sign of life before its connections are given up
    /// (those of snapshots after `snapshot_stall`).
    pub silence: Duration,
    /// The shortest and the longest pause between connection attempts.
    pub backoff: (Duration, Duration),
    /// How long an answer to a question may take.
    pub ask_timeout: Duration,
    /// How often the round trip to a member is measured.
    pub probe_interval: Duration,
    /// How fast snapshots are sent, all together, in bytes a second.
    pub snapshot_bytes_per_second: u64,
    /// How long a snapshot may make no progress before it is given up.
    pub snapshot_stall: Duration,
}

impl PeerSettings {
    /// The usual settings for a member with this tick (the heartbeat interval) and
    /// election timeout.
    pub fn new(identity: Identity, version: &str, tick: Duration, election: Duration) -> Self {
        Self {
            identity,
            version: version.to_owned(),
            cluster_version: version.to_owned(),
            tick,
            connect_timeout: Duration::from_secs(1) + election.min(Duration::from_secs(4)),
            silence: Self::usual_silence(election),
            backoff: (Duration::from_millis(50), Duration::from_secs(1)),
            ask_timeout: request_timeout(election),
            probe_interval: Duration::from_secs(4),
            snapshot_bytes_per_second: 40 << 20,
            snapshot_stall: Duration::from_secs(30),
        }
    }

    /// The usual [`silence`](Self::silence) with this election timeout.
    pub fn usual_silence(election: Duration) -> Duration {
        // TCP tries again ever more slowly: after a fault of a second or two, a new
        // connection stands before the old one has noticed that it works again.
        (2 * election).max(Duration::from_secs(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_two_elections_and_two_seconds_at_least() {
        let silence = |seconds| PeerSettings::usual_silence(Duration::from_secs(seconds)).as_secs();
        assert_eq!([silence(0), silence(1), silence(5)], [2, 2, 10]);
    }
}
