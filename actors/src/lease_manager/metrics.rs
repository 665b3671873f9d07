//! LeaseManager's figures, under etcd's names.

use prometheus::{Histogram, HistogramOpts, IntCounter, Registry, exponential_buckets};

use crate::mvcc::LeaseChange;

/// The figures.
#[derive(Clone, Debug)]
pub struct LeaseMetrics {
    granted: IntCounter,
    revoked: IntCounter,
    pub(super) renewed: IntCounter,
    pub(super) expired: IntCounter,
    ttl_seconds: Histogram,
}

impl LeaseMetrics {
    /// Makes the figures and registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let ttl = HistogramOpts::new(
            "etcd_debugging_lease_ttl_total",
            "Seconds that leases were granted for.",
        );
        let ttl_seconds = Histogram::with_opts(ttl.buckets(exponential_buckets(1.0, 2.0, 24)?))?;
        registry.register(Box::new(ttl_seconds.clone()))?;
        Ok(Self {
            granted: counter("etcd_debugging_lease_granted_total", "Leases granted.")?,
            revoked: counter("etcd_debugging_lease_revoked_total", "Leases revoked.")?,
            renewed: counter("etcd_debugging_lease_renewed_total", "Leases kept alive.")?,
            expired: counter(
                "etcd_debugging_server_lease_expired_total",
                "Leases that this member ended because their time was over.",
            )?,
            ttl_seconds,
        })
    }

    pub(super) fn changed(&self, change: &LeaseChange) {
        match change {
            LeaseChange::Granted { ttl_s, .. } => {
                self.granted.inc();
                self.ttl_seconds.observe(*ttl_s as f64);
            }
            LeaseChange::Revoked { .. } => self.revoked.inc(),
            LeaseChange::Remaining { .. } => {}
        }
    }
}
