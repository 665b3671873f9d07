//! The hub's figures, under etcd's names.

use prometheus::{IntCounter, IntGauge, Registry};

/// The figures.
#[derive(Clone, Debug)]
pub struct HubMetrics {
    pub(super) streams: IntGauge,
    pub(super) watchers: IntGauge,
    pub(super) slow: IntGauge,
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
            events,
        })
    }
}
