//! The log's figures, under etcd's names.

use prometheus::{Gauge, Histogram, HistogramOpts, Registry, exponential_buckets};

/// How long writes and syncs of the log take and how much is written. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WalMetrics {
    /// Seconds of each fdatasync.
    pub fsync_seconds: Histogram,
    /// Seconds of each write, without the sync.
    pub write_seconds: Histogram,
    /// Bytes of records written since the start. A gauge, because it is one in etcd.
    pub write_bytes: Gauge,
}

impl WalMetrics {
    /// Makes the metrics and registers them in `registry`.
    ///
    /// # Errors
    /// When the registry already has metrics of these names.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let histogram = |name: &str, help: &str| {
            let buckets = exponential_buckets(0.001, 2.0, 14)?;
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let fsync_seconds = histogram(
            "etcd_disk_wal_fsync_duration_seconds",
            "Time taken by each fdatasync of the write-ahead log.",
        )?;
        let write_seconds = histogram(
            "etcd_disk_wal_write_duration_seconds",
            "Time taken by each write to the write-ahead log, without its sync.",
        )?;
        let write_bytes = Gauge::new(
            "etcd_disk_wal_write_bytes_total",
            "Bytes of records written to the write-ahead log.",
        )?;
        registry.register(Box::new(write_bytes.clone()))?;
        Ok(Self { fsync_seconds, write_seconds, write_bytes })
    }
}
