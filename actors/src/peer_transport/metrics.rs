//! PeerTransport's figures, under etcd's names. Members go by their ids in hexadecimal. Who
//! has a link goes by its id, too; all other callers together go by one name, since anyone
//! can call, by as many ids as there are.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, exponential_buckets,
};

use crate::shared::Published;

/// The name of all callers that go by no id.
const UNKNOWN: &str = "unknown";
/// The names of a link's lanes.
const LANES: [&str; 3] = ["urgent", "bulk", "snapshot"];

/// The figures of every link; clones count into the same ones.
#[derive(Clone, Debug)]
pub struct PeerMetrics {
    active: IntGaugeVec,
    known: IntGaugeVec,
    disconnected: IntCounterVec,
    sent_bytes: IntCounterVec,
    received_bytes: IntCounterVec,
    send_failures: IntCounterVec,
    receive_failures: IntCounterVec,
    round_trip: HistogramVec,
    snapshots_sent: SnapshotVecs,
    snapshots_received: SnapshotVecs,
    dropped: IntCounterVec,
    restarts: IntCounter,
    undeliverable: IntCounter,
    /// Who goes by its id.
    known_callers: Published<BTreeSet<u64>>,
}

impl PeerMetrics {
    /// Makes the figures and registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauges = |name: &str, help: &str| {
            registered(registry, IntGaugeVec::new(Opts::new(name, help), &["Local", "Remote"])?)
        };
        let counter = |name: &str, help: &str| registered(registry, IntCounter::new(name, help)?);
        let round_trip = HistogramOpts::new(
            "etcd_network_peer_round_trip_time_seconds",
            "Seconds from a probe to its answer.",
        )
        .buckets(exponential_buckets(0.0001, 2.0, 16)?);
        Ok(Self {
            active: gauges("etcd_network_active_peers", "Members whose links work.")?,
            known: gauges(
                "etcd_network_known_peers",
                "Members of the cluster, this one included.",
            )?,
            disconnected: counters(
                "etcd_network_disconnected_peers_total",
                "Links that broke.",
                &["Local", "Remote"],
            )?,
            sent_bytes: counters(
                "etcd_network_peer_sent_bytes_total",
                "Bytes of raft messages that were sent.",
                &["To"],
            )?,
            received_bytes: counters(
                "etcd_network_peer_received_bytes_total",
                "Bytes of raft messages that came.",
                &["From"],
            )?,
            send_failures: counters(
                "etcd_network_peer_sent_failures_total",
                "Raft messages that could not be sent.",
                &["To"],
            )?,
            receive_failures: counters(
                "etcd_network_peer_received_failures_total",
                "Streams of raft messages that broke, and messages that were not for this member.",
                &["From"],
            )?,
            round_trip: registered(registry, HistogramVec::new(round_trip, &["To"])?)?,
            snapshots_sent: SnapshotVecs::new(registry, "send", "To")?,
            snapshots_received: SnapshotVecs::new(registry, "receive", "From")?,
            dropped: counters(
                "castd_peer_messages_dropped_total",
                "Raft messages dropped because their lane was full or down.",
                &["To", "Lane"],
            )?,
            restarts: counter(
                "castd_peer_link_restarts_total",
                "Links that ended by themselves and were started again.",
            )?,
            undeliverable: counter(
                "castd_peer_messages_undeliverable_total",
                "Raft messages for members that this one has no link to.",
            )?,
            known_callers: Published::new(BTreeSet::new()),
        })
    }

    /// The figures of the link from `local` to `remote`.
    pub(super) fn link(&self, local_id: u64, remote_id: u64) -> LinkFigures {
        let (local, remote) = (format!("{local_id:x}"), format!("{remote_id:x}"));
        let pair = [local.as_str(), remote.as_str()];
        let one = [remote.as_str()];
        let [urgent, bulk, snapshot] = LANES;
        let dropped = |lane| self.dropped.with_label_values(&[remote.as_str(), lane]);
        LinkFigures {
            active: self.active.with_label_values(&pair),
            known: self.known(local_id, remote_id),
            disconnected: self.disconnected.with_label_values(&pair),
            sent_bytes: self.sent_bytes.with_label_values(&one),
            send_failures: self.send_failures.with_label_values(&one),
            round_trip: self.round_trip.with_label_values(&one),
            snapshots: self.snapshots_sent.of(&remote),
            dropped_urgent: dropped(urgent),
            dropped_bulk: dropped(bulk),
            dropped_snapshots: dropped(snapshot),
        }
    }

    /// Whether `remote` is a member, as far as `local` knows; it may be itself.
    pub(super) fn known(&self, local: u64, remote: u64) -> IntGauge {
        self.known.with_label_values(&[format!("{local:x}"), format!("{remote:x}")])
    }

    /// From now on, these go by their ids when they call.
    pub(super) fn know(&self, callers: BTreeSet<u64>) {
        self.known_callers.set(Arc::new(callers));
    }

    /// What there is of the link from `local` to `remote`, and of its calls, goes.
    pub(super) fn forget(&self, local: u64, remote: u64) {
        let (local, remote) = (format!("{local:x}"), format!("{remote:x}"));
        let pair = [local.as_str(), remote.as_str()];
        let one = [remote.as_str()];
        // What was never counted is not there to be removed.
        let _ = self.active.remove_label_values(&pair);
        let _ = self.known.remove_label_values(&pair);
        let _ = self.disconnected.remove_label_values(&pair);
        let _ = self.sent_bytes.remove_label_values(&one);
        let _ = self.received_bytes.remove_label_values(&one);
        let _ = self.send_failures.remove_label_values(&one);
        let _ = self.receive_failures.remove_label_values(&one);
        let _ = self.round_trip.remove_label_values(&one);
        self.snapshots_sent.forget(&remote);
        self.snapshots_received.forget(&remote);
        for lane in LANES {
            let _ = self.dropped.remove_label_values(&[remote.as_str(), lane]);
        }
    }

    /// The figures of what comes from `from`.
    pub(super) fn caller(&self, from: u64) -> CallerFigures {
        let counter = |all: &IntCounterVec| CallerCounter {
            from,
            all: all.clone(),
            known_callers: self.known_callers.clone(),
            own: OnceLock::new(),
        };
        let is_known = self.known_callers.get().contains(&from);
        let name = if is_known { format!("{from:x}") } else { UNKNOWN.to_owned() };
        CallerFigures {
            received_bytes: counter(&self.received_bytes),
            receive_failures: counter(&self.receive_failures),
            snapshots: self.snapshots_received.of(&name),
        }
    }

    /// A link ended by itself.
    pub(super) fn restarted(&self) {
        self.restarts.inc();
    }

    /// A message is for a member without a link.
    pub(super) fn undeliverable(&self) {
        self.undeliverable.inc();
    }
}

/// The figures of one link.
#[derive(Clone, Debug)]
pub(super) struct LinkFigures {
    pub(super) active: IntGauge,
    pub(super) known: IntGauge,
    pub(super) disconnected: IntCounter,
    pub(super) sent_bytes: IntCounter,
    pub(super) send_failures: IntCounter,
    pub(super) round_trip: Histogram,
    pub(super) snapshots: SnapshotFigures,
    pub(super) dropped_urgent: IntCounter,
    pub(super) dropped_bulk: IntCounter,
    pub(super) dropped_snapshots: IntCounter,
}

/// The figures of one caller.
#[derive(Clone, Debug)]
pub(super) struct CallerFigures {
    pub(super) received_bytes: CallerCounter,
    pub(super) receive_failures: CallerCounter,
    pub(super) snapshots: SnapshotFigures,
}

/// Counts for a caller, by its id as soon as it is known: a member may call before this
/// one has its list of members.
#[derive(Clone, Debug)]
pub(super) struct CallerCounter {
    from: u64,
    all: IntCounterVec,
    known_callers: Published<BTreeSet<u64>>,
    own: OnceLock<IntCounter>,
}

impl CallerCounter {
    pub(super) fn inc(&self) {
        self.inc_by(1);
    }

    pub(super) fn inc_by(&self, more: u64) {
        if let Some(own) = self.own.get() {
            return own.inc_by(more);
        }
        if self.known_callers.get().contains(&self.from) {
            let own = || self.all.with_label_values(&[&format!("{:x}", self.from)]);
            return self.own.get_or_init(own).inc_by(more);
        }
        self.all.with_label_values(&[UNKNOWN]).inc_by(more);
    }
}

#[derive(Clone, Debug)]
struct SnapshotVecs {
    success: IntCounterVec,
    failures: IntCounterVec,
    inflight: IntGaugeVec,
    seconds: HistogramVec,
}

impl SnapshotVecs {
    fn new(registry: &Registry, way: &str, label: &str) -> Result<Self, prometheus::Error> {
        let name = |what: &str| format!("etcd_network_snapshot_{way}_{what}");
        let counters = |what: &str, help: &str| {
            registered(registry, IntCounterVec::new(Opts::new(name(what), help), &[label])?)
        };
        let inflight = Opts::new(name("inflights_total"), "Snapshots on their way.");
        let seconds = HistogramOpts::new(
            name("total_duration_seconds"),
            "Seconds that the way of a snapshot took.",
        )
        .buckets(exponential_buckets(0.1, 2.0, 10)?);
        Ok(Self {
            success: counters("success", "Snapshots that arrived.")?,
            failures: counters("failures", "Snapshots that did not arrive.")?,
            inflight: registered(registry, IntGaugeVec::new(inflight, &[label])?)?,
            seconds: registered(registry, HistogramVec::new(seconds, &[label])?)?,
        })
    }

    fn of(&self, member: &str) -> SnapshotFigures {
        SnapshotFigures {
            success: self.success.with_label_values(&[member]),
            failures: self.failures.with_label_values(&[member]),
            inflight: self.inflight.with_label_values(&[member]),
            seconds: self.seconds.with_label_values(&[member]),
        }
    }

    fn forget(&self, member: &str) {
        // What was never counted is not there to be removed.
        let _ = self.success.remove_label_values(&[member]);
        let _ = self.failures.remove_label_values(&[member]);
        let _ = self.inflight.remove_label_values(&[member]);
        let _ = self.seconds.remove_label_values(&[member]);
    }
}

/// The figures of snapshots to or from one member.
#[derive(Clone, Debug)]
pub(super) struct SnapshotFigures {
    pub(super) success: IntCounter,
    pub(super) failures: IntCounter,
    pub(super) inflight: IntGauge,
    pub(super) seconds: Histogram,
}

impl SnapshotFigures {
    /// Counts a snapshot from now until the guard is told how it ended; one that is
    /// dropped before counts as failed.
    pub(super) fn begin(&self) -> SnapshotGuard {
        self.inflight.inc();
        SnapshotGuard { figures: self.clone(), since: std::time::Instant::now(), arrived: false }
    }
}

/// A snapshot on its way.
#[derive(Debug)]
pub(super) struct SnapshotGuard {
    figures: SnapshotFigures,
    since: std::time::Instant,
    arrived: bool,
}

impl SnapshotGuard {
    /// The snapshot arrived.
    pub(super) fn arrived(mut self) {
        self.arrived = true;
    }
}

impl Drop for SnapshotGuard {
    fn drop(&mut self) {
        self.figures.inflight.dec();
        if self.arrived {
            self.figures.success.inc();
            self.figures.seconds.observe(self.since.elapsed().as_secs_f64());
        } else {
            self.figures.failures.inc();
        }
    }
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
