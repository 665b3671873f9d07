//! What the checkpointer counts.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry, exponential_buckets};

use super::Sealed;

/// The checkpointer's metrics; clones count into the same ones.
#[derive(Clone, Debug)]
pub struct CheckpointMetrics {
    seal_seconds: Histogram,
    seals: IntCounter,
    bytes_written: IntCounter,
    volumes: IntGauge,
    disk_bytes: IntGauge,
    failures: IntCounter,
}

impl CheckpointMetrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// When one of the names is taken in this registry.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let seal_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "etcd_disk_backend_commit_duration_seconds",
                "Seconds from the start of a checkpoint seal until it is durable.",
            )
            .buckets(exponential_buckets(0.001, 2.0, 14)?),
        )?;
        let metrics = Self {
            seal_seconds,
            seals: IntCounter::new("castd_checkpoint_seals_total", "Durable checkpoint seals.")?,
            bytes_written: IntCounter::new(
                "castd_checkpoint_bytes_written_total",
                "Bytes that checkpoint seals wrote to disk.",
            )?,
            volumes: IntGauge::new(
                "castd_checkpoint_volumes",
                "Volumes that make up the sealed checkpoint.",
            )?,
            disk_bytes: IntGauge::new(
                "castd_checkpoint_disk_bytes",
                "Bytes that the sealed checkpoint takes on disk.",
            )?,
            failures: IntCounter::new(
                "castd_checkpoint_failures_total",
                "Checkpoint seals that failed.",
            )?,
        };
        registry.register(Box::new(metrics.seal_seconds.clone()))?;
        registry.register(Box::new(metrics.seals.clone()))?;
        registry.register(Box::new(metrics.bytes_written.clone()))?;
        registry.register(Box::new(metrics.volumes.clone()))?;
        registry.register(Box::new(metrics.disk_bytes.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        Ok(metrics)
    }

    pub(super) fn sealed(&self, sealed: &Sealed) {
        self.seal_seconds.observe(sealed.took.as_secs_f64());
        self.seals.inc();
        self.bytes_written.inc_by(sealed.bytes_written);
        self.volumes.set(i64::try_from(sealed.volumes).unwrap_or(i64::MAX));
        self.disk_bytes.set(i64::try_from(sealed.disk_bytes).unwrap_or(i64::MAX));
    }

    pub(super) fn failed(&self) {
        self.failures.inc();
    }
}
