//! Counters of what the store did, under etcd's names.

use prometheus::{IntCounter, IntGauge, Registry};

use super::record::Record;

/// The counters.
#[derive(Clone, Debug)]
pub struct MvccMetrics {
    pub(super) puts: IntCounter,
    pub(super) deletes: IntCounter,
    pub(super) txns: IntCounter,
    pub(super) slow_applies: IntCounter,
    put_bytes: IntGauge,
}

impl MvccMetrics {
    /// Makes the counters and registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let put_bytes = IntGauge::new(
            "etcd_debugging_mvcc_total_put_size_in_bytes",
            "Bytes of keys and values put since the start.",
        )?;
        registry.register(Box::new(put_bytes.clone()))?;
        Ok(Self {
            puts: counter("etcd_mvcc_put_total", "Puts applied by this member.")?,
            deletes: counter("etcd_mvcc_delete_total", "Deletions applied by this member.")?,
            txns: counter("etcd_mvcc_txn_total", "Transactions applied by this member.")?,
            slow_applies: counter(
                "etcd_server_slow_apply_total",
                "Batches that took longer to apply than they should.",
            )?,
            put_bytes,
        })
    }

    pub(super) fn observe(&self, records: &[Record]) {
        let bytes: usize = records.iter().map(|record| record.key.len() + record.value.len()).sum();
        self.put_bytes.add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
