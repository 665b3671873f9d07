//! What every call needs at hand.

use std::sync::Arc;
use std::time::Duration;

use castd_actors::Company;
use castd_actors::shared::beats;
use futures::StreamExt;
use tokio::sync::{Semaphore, watch};

use super::ids::LeaseIds;
use super::quota::Quota;
use crate::metrics::Metrics;

/// What etcd allows a message beyond the request in it, in bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 512 * 1024;

/// How long the member goes without a leader, in election timeouts, until streams that
/// asked for one are ended.
const LEADERLESS_MAX: u32 = 3;

/// How many long reads are at work at a time: each holds its whole answer in memory.
const HEAVY_MAX: usize = 2;

/// What the operator chose for the faces.
#[derive(Clone, Debug)]
pub struct FaceOptions {
    /// The etcd version this member is compatible with: `3.7.1`.
    pub version: String,
    /// The largest proposal, in bytes. A message may be 512 KiB larger.
    pub max_request_bytes: usize,
    /// The most operations in a transaction.
    pub max_txn_ops: usize,
    /// The store's space quota in bytes: 0 for the default of 2 GiB, negative for none.
    pub quota_backend_bytes: i64,
    /// How long a member waits for a heartbeat before it calls an election.
    pub election_timeout: Duration,
    /// A request that takes longer is logged.
    pub slow_request: Duration,
    /// Keep histograms of handling times for each method.
    pub extensive_metrics: bool,
}

impl FaceOptions {
    /// The longest message that is received, in bytes.
    pub fn max_message_bytes(&self) -> usize {
        self.max_request_bytes.saturating_add(MESSAGE_OVERHEAD_BYTES)
    }

    /// How long a proposal or a read index may take.
    pub fn request_timeout(&self) -> Duration {
        castd_actors::shared::request_timeout(self.election_timeout)
    }
}

impl Default for FaceOptions {
    fn default() -> Self {
        Self {
            version: "3.7.1".to_owned(),
            max_request_bytes: 1536 * 1024,
            max_txn_ops: 128,
            quota_backend_bytes: 0,
            election_timeout: Duration::from_secs(1),
            slow_request: Duration::from_millis(300),
            extensive_metrics: false,
        }
    }
}

/// How far the node has come on its way to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It serves.
    Serving,
    /// It accepts nothing new, ends streams, and answers what was asked.
    Draining,
    /// What is still open is cut.
    Closed,
}

/// The state the faces share: nothing that a client changes.
#[derive(Clone)]
pub struct Faces {
    /// The door of the company.
    pub company: Company,
    /// What the operator chose.
    pub options: FaceOptions,
    /// The faces' figures.
    pub metrics: Arc<Metrics>,
    pub(super) quota: Arc<Quota>,
    pub(super) lease_ids: Arc<LeaseIds>,
    pub(super) heavy: Arc<Semaphore>,
    phase: watch::Receiver<Phase>,
    leaderless: watch::Receiver<u64>,
}

impl Faces {
    /// `phase` tells when the node ends; `leaders` tells streams that the leader is lost.
    pub fn new(
        company: Company,
        options: FaceOptions,
        metrics: Arc<Metrics>,
        phase: watch::Receiver<Phase>,
        leaders: &LeaderWatch,
    ) -> Self {
        let member_id = company.identity().member_id;
        Self {
            quota: Arc::new(Quota::new(options.quota_backend_bytes)),
            lease_ids: Arc::new(LeaseIds::new(member_id, std::time::SystemTime::now())),
            heavy: Arc::new(Semaphore::new(HEAVY_MAX)),
            leaderless: leaders.0.subscribe(),
            company,
            options,
            metrics,
            phase,
        }
    }

    /// The same faces in front of another door of the same company.
    pub fn at(&self, door: Company) -> Self {
        Self { company: door, ..self.clone() }
    }

    /// Follows the node on its way to the end.
    pub fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.clone()
    }

    /// Changes whenever this member has gone without a leader for too long, from now on.
    pub(super) fn leaderless(&self) -> watch::Receiver<u64> {
        from_now(&self.leaderless)
    }
}

/// A receiver for the changes to come. A clone would tell of those that this one has not
/// looked at as well: a stream that begins today is not ended for a leader lost yesterday.
fn from_now<T>(receiver: &watch::Receiver<T>) -> watch::Receiver<T> {
    let mut later = receiver.clone();
    later.mark_unchanged();
    later
}

/// Watches for the member to be without a leader, on behalf of the streams that asked
/// for one. A stream costs more to rebuild than a call: it is ended only after several
/// election timeouts.
pub struct LeaderWatch(watch::Sender<u64>);

impl LeaderWatch {
    /// Nothing is watched before [`run`](Self::run).
    pub fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Looks once every election timeout, until dropped.
    pub async fn run(self, company: Company, election_timeout: Duration) {
        let mut leaderless = 0;
        let mut looks = std::pin::pin!(beats(election_timeout));
        while looks.next().await.is_some() {
            leaderless = if company.raft().leader == 0 { leaderless + 1 } else { 0 };
            if leaderless >= LEADERLESS_MAX {
                self.0.send_modify(|losses| *losses += 1);
            }
        }
    }
}

impl Default for LeaderWatch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_of_the_past_ends_no_stream_of_today() {
        let (losses, watching) = watch::channel(0);
        losses.send_modify(|losses| *losses += 1);
        let stream = from_now(&watching);
        assert!(!stream.has_changed().unwrap());
        losses.send_modify(|losses| *losses += 1);
        assert!(stream.has_changed().unwrap());
    }
}
