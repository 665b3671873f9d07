//! Figures of what the store did, under etcd's names.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::local::LocalHistogram;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntGauge, Registry, exponential_buckets,
};

use super::messages::OperationName;
use super::record::Record;
use super::store::Writes;
use crate::shared::Error;

/// The figures.
#[derive(Debug)]
pub struct MvccMetrics {
    puts: IntCounter,
    deletes: IntCounter,
    pub(super) txns: IntCounter,
    pub(super) slow_applies: IntCounter,
    put_bytes: IntGauge,
    /// 1 while a snapshot takes the store's place.
    pub(super) installing: IntGauge,
    pub(super) applies: ApplyTimes,
    pub(super) compaction: CompactionMetrics,
    pub(super) defrag: DefragMetrics,
}

impl MvccMetrics {
    /// Makes the figures and registers them.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let put_bytes = IntGauge::new(
            "etcd_debugging_mvcc_total_put_size_in_bytes",
            "Bytes of keys and values put since the start.",
        )?;
        let installing = IntGauge::new(
            "etcd_server_snapshot_apply_in_progress_total",
            "1 while a snapshot from another member takes the store's place.",
        )?;
        Ok(Self {
            installing: register(registry, installing)?,
            puts: counter(registry, "etcd_mvcc_put_total", "Puts applied by this member.")?,
            deletes: counter(
                registry,
                "etcd_mvcc_delete_total",
                "Deletions applied by this member.",
            )?,
            txns: counter(registry, "etcd_mvcc_txn_total", "Transactions applied by this member.")?,
            slow_applies: counter(
                registry,
                "etcd_server_slow_apply_total",
                "Batches that took longer to apply than they should.",
            )?,
            put_bytes: register(registry, put_bytes)?,
            applies: ApplyTimes::new(registry)?,
            compaction: CompactionMetrics::new(registry)?,
            defrag: DefragMetrics::new(registry)?,
        })
    }

    pub(super) fn wrote(&self, writes: Writes) {
        self.puts.inc_by(writes.puts);
        self.deletes.inc_by(writes.deletes);
    }

    pub(super) fn observe(&self, records: &[Record]) {
        let bytes: usize = records.iter().map(|record| record.key.len() + record.value.len()).sum();
        self.put_bytes.add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// How long operations took to apply, by what they are and whether they
/// succeeded. They are summed up outside of the shared figures until the end of
/// a batch, which keeps an operation's share to some nanoseconds.
#[derive(Debug)]
pub(super) struct ApplyTimes {
    seconds: HistogramVec,
    /// A series comes to be with its first operation.
    batch: [[Option<LocalHistogram>; 2]; OperationName::ALL.len()],
}

impl ApplyTimes {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let options = HistogramOpts::new(
            "etcd_server_apply_duration_seconds",
            "Seconds to apply an operation, by what it is and whether it succeeded.",
        );
        let options = options.buckets(exponential_buckets(0.0001, 2.0, 20)?);
        let seconds = HistogramVec::new(options, &["version", "op", "success"])?;
        let batch = [const { [const { None }; 2] }; OperationName::ALL.len()];
        Ok(Self { seconds: register(registry, seconds)?, batch })
    }

    /// An operation took this long. To compact what is compacted already counts
    /// as a success, as in etcd.
    pub(super) fn observe<T>(
        &mut self,
        name: OperationName,
        outcome: &Result<T, Error>,
        took: Duration,
    ) {
        let success = matches!(outcome, Ok(_) | Err(Error::Compacted));
        let seconds = &self.seconds;
        let series = self.batch[name as usize][usize::from(success)].get_or_insert_with(|| {
            let op = OperationName::ALL[name as usize].1;
            let success = if success { "true" } else { "false" };
            seconds.with_label_values(&["v3", op, success]).local()
        });
        series.observe(took.as_secs_f64());
    }

    /// Shows what the batch added.
    pub(super) fn flush(&self) {
        self.batch.iter().flatten().flatten().for_each(LocalHistogram::flush);
    }
}

/// Figures of freeing what compaction gave up.
#[derive(Debug)]
pub(super) struct CompactionMetrics {
    keys: IntCounter,
    last: IntGauge,
    pause_ms: Histogram,
    index_pause_ms: Histogram,
    total_ms: Histogram,
}

impl CompactionMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let last = IntGauge::new(
            "etcd_debugging_mvcc_db_compaction_last",
            "When the last compaction was finished, in seconds since 1970; 0 when none was.",
        )?;
        Ok(Self {
            keys: counter(
                registry,
                "etcd_debugging_mvcc_db_compaction_keys_total",
                "Records that compaction found dead.",
            )?,
            last: register(registry, last)?,
            pause_ms: histogram(
                registry,
                "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
                "Milliseconds that writes waited for one piece of compaction.",
                (1.0, 13),
            )?,
            index_pause_ms: histogram(
                registry,
                "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
                "Milliseconds that writes waited for one piece of compacting the index.",
                (0.5, 14),
            )?,
            total_ms: histogram(
                registry,
                "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
                "Milliseconds from a compaction to the end of its work.",
                (100.0, 14),
            )?,
        })
    }

    /// A piece of work took this long; `of_index` when deleted keys were taken
    /// out of the index in it.
    pub(super) fn piece(&self, of_index: bool, took: Duration) {
        self.pause_ms.observe(millis(took));
        if of_index {
            self.index_pause_ms.observe(millis(took));
        }
    }

    pub(super) fn buried(&self, records: u64) {
        self.keys.inc_by(records);
    }

    /// A compaction's work is done, this long after it was asked for.
    pub(super) fn finished(&self, took: Duration) {
        self.total_ms.observe(millis(took));
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last.set(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    }
}

/// Figures of defragmentation.
#[derive(Debug)]
pub(super) struct DefragMetrics {
    pub(super) inflight: IntGauge,
    pub(super) seconds: Histogram,
}

impl DefragMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let inflight =
            IntGauge::new("etcd_disk_defrag_inflight", "1 while the store is defragmented.")?;
        Ok(Self {
            inflight: register(registry, inflight)?,
            seconds: histogram(
                registry,
                "etcd_disk_backend_defrag_duration_seconds",
                "Seconds to defragment the store.",
                (0.1, 13),
            )?,
        })
    }
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

/// A histogram with this first bucket and this many, each twice the one before.
fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    (first, count): (f64, usize),
) -> Result<Histogram, prometheus::Error> {
    let options = HistogramOpts::new(name, help).buckets(exponential_buckets(first, 2.0, count)?);
    register(registry, Histogram::with_opts(options)?)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    register(registry, IntCounter::new(name, help)?)
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_at_their_numbers() {
        for (number, (name, _)) in OperationName::ALL.iter().enumerate() {
            assert_eq!(*name as usize, number);
        }
    }

    #[test]
    fn times_are_kept_by_operation_and_success() {
        let mut times = ApplyTimes::new(&Registry::new()).unwrap();
        let took = Duration::from_micros(150);
        times.observe(OperationName::Put, &Ok(()), took);
        times.observe(OperationName::Put, &Err::<(), _>(Error::NoSpace), took);
        times.observe(OperationName::Compaction, &Err::<(), _>(Error::Compacted), took);
        times.flush();
        let count =
            |op, success| times.seconds.with_label_values(&["v3", op, success]).get_sample_count();
        assert_eq!((count("Put", "true"), count("Put", "false")), (1, 1));
        assert_eq!((count("Compaction", "true"), count("Compaction", "false")), (1, 0));
    }
}
