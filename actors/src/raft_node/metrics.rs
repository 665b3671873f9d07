//! RaftNode's figures, under etcd's names.

use prometheus::{IntCounter, Registry};

/// The figures.
#[derive(Clone, Debug)]
pub struct RaftMetrics {
    pub(super) late_heartbeats: IntCounter,
}

impl RaftMetrics {
    /// Makes the figures and registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let late_heartbeats = IntCounter::new(
            "etcd_server_heartbeat_send_failures_total",
            "Heartbeats that this member, leading, sent too late.",
        )?;
        registry.register(Box::new(late_heartbeats.clone()))?;
        Ok(Self { late_heartbeats })
    }
}
