//! The hub's figures, under etcd's names.

use prometheus::{IntCounter, IntGauge, Registry};

/// The figures.
#[derive(Clone, Debug)]
pub struct HubMetrics {
    pub(super) streams: IntGauge,
    pub(super) watchers: IntGauge,
    pub(super) slow: IntGauge,
    pub(super) pending: IntGauge,
    pub(super) events: IntCounter,
}

impl HubMetrics {
    /// Makes the figures and registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let events = IntCounter::new(
            "etcd_debugging_mvcc_events_total",
            "Events sent to watchers of this member.",
        )?;
        registry.register(Box::new(events.clone()))?;
        Ok(Self {
            streams: gauge("etcd_debugging_mvcc_watch_stream_total", "Open watch streams.")?,
            watchers: gauge("etcd_debugging_mvcc_watcher_total", "Watchers.")?,
            slow: gauge("etcd_debugging_mvcc_slow_watcher_total", "Watchers that lag.")?,
            pending: gauge(
                "etcd_debugging_mvcc_pending_events_total",
                "Revisions that lagging watchers have still to look at, summed up.",
            )?,
            events,
        })
    }
}

/// What lagging watchers have still to read, kept up at every change because
/// counting them would be a walk through all.
#[derive(Debug)]
pub(super) struct Backlog {
    slow: IntGauge,
    pending: IntGauge,
    watchers: i64,
    /// The sum of the first revisions that each must see.
    next_sum: i64,
    /// The newest revision.
    revision: i64,
}

impl Backlog {
    /// Nobody lags at `revision`.
    pub(super) fn new(metrics: &HubMetrics, revision: i64) -> Self {
        let (slow, pending) = (metrics.slow.clone(), metrics.pending.clone());
        Self { slow, pending, watchers: 0, next_sum: 0, revision }
    }

    /// There are changes up to `revision` now.
    pub(super) fn advance(&mut self, revision: i64) {
        self.revision = revision;
        self.show();
    }

    /// A watcher that must see everything from `next` on begins to lag.
    pub(super) fn enter(&mut self, next: i64) {
        self.watchers += 1;
        self.next_sum += next;
        self.show();
    }

    /// A watcher that was at `next` lags no more, or is gone.
    pub(super) fn leave(&mut self, next: i64) {
        self.watchers -= 1;
        self.next_sum -= next;
        self.show();
    }

    /// A watcher that lags has come from one revision to another.
    pub(super) fn advance_one(&mut self, from: i64, to: i64) {
        self.next_sum += to - from;
        self.show();
    }

    fn show(&self) {
        self.slow.set(self.watchers);
        self.pending.set(self.watchers * (self.revision + 1) - self.next_sum);
    }
}
