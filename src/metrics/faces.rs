//! Figures of what the faces do on a client's behalf: proposals, reads, health checks.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry, exponential_buckets,
};

use super::{counter, gauge, register};

/// What kind of request took its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are those of the requests")]
pub enum RequestKind {
    Range,
    ReadonlyTxn,
    Put,
    DeleteRange,
    Txn,
    Compaction,
    LeaseGrant,
    LeaseRevoke,
    Alarm,
}

impl RequestKind {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Range, "Range"),
        (Self::ReadonlyTxn, "ReadonlyTxn"),
        (Self::Put, "Put"),
        (Self::DeleteRange, "DeleteRange"),
        (Self::Txn, "Txn"),
        (Self::Compaction, "Compaction"),
        (Self::LeaseGrant, "LeaseGrant"),
        (Self::LeaseRevoke, "LeaseRevoke"),
        (Self::Alarm, "Alarm"),
    ];
}

/// Counters and histograms of the faces.
pub struct FaceMetrics {
    requests: Vec<[Histogram; 2]>,
    range_seconds: [Histogram; 2],
    /// Proposals that wait for their outcome.
    pub proposals_pending: IntGauge,
    /// Proposals that got none.
    pub proposals_failed: IntCounter,
    read_indexes_failed: IntCounter,
    /// Ranges read by this member.
    pub ranges: IntCounter,
    /// Answers `true` of `/health`.
    pub health_success: IntCounter,
    /// Answers `false` of `/health`.
    pub health_failures: IntCounter,
    health_last: IntGaugeVec,
    health_total: IntCounterVec,
    /// Streams that broke, by direction and API.
    pub stream_failures: IntCounterVec,
    /// Seconds it took to hash the store at a revision.
    pub hash_revision_seconds: Histogram,
    /// Seconds it took to hash all of the store.
    pub hash_seconds: Histogram,
}

impl FaceMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let checks =
            prometheus::opts!("etcd_server_healthcheck", "The last health checks' results.");
        let totals =
            prometheus::opts!("etcd_server_healthchecks_total", "Health checks by their result.");
        let streams =
            prometheus::opts!("etcd_network_server_stream_failures_total", "Streams that broke.");
        Ok(Self {
            requests: requests(registry)?,
            range_seconds: range_seconds(registry)?,
            proposals_pending: gauge(
                registry,
                "etcd_server_proposals_pending",
                "Proposals that wait to be committed.",
            )?,
            proposals_failed: counter(
                registry,
                "etcd_server_proposals_failed_total",
                "Proposals that failed.",
            )?,
            read_indexes_failed: counter(
                registry,
                "etcd_server_read_indexes_failed_total",
                "Read indexes that failed.",
            )?,
            ranges: counter(registry, "etcd_mvcc_range_total", "Ranges read by this member.")?,
            health_success: counter(
                registry,
                "etcd_server_health_success",
                "Health checks that succeeded.",
            )?,
            health_failures: counter(
                registry,
                "etcd_server_health_failures",
                "Health checks that failed.",
            )?,
            health_last: register(registry, IntGaugeVec::new(checks, &["type", "name"])?)?,
            health_total: register(
                registry,
                IntCounterVec::new(totals, &["type", "name", "status"])?,
            )?,
            stream_failures: register(registry, IntCounterVec::new(streams, &["Type", "API"])?)?,
            hash_revision_seconds: hash_seconds(
                registry,
                "etcd_mvcc_hash_rev_duration_seconds",
                "Seconds to hash the store at a revision.",
            )?,
            hash_seconds: hash_seconds(
                registry,
                "etcd_mvcc_hash_duration_seconds",
                "Seconds to hash the store.",
            )?,
        })
    }

    /// A request of this kind was answered, well or not, after this time.
    pub fn request(&self, kind: RequestKind, success: bool, took: Duration) {
        self.requests[kind as usize][usize::from(success)].observe(took.as_secs_f64());
    }

    /// A range was looked up, well or not, in this time: what came before is not in it.
    pub fn range(&self, success: bool, took: Duration) {
        self.range_seconds[usize::from(success)].observe(took.as_secs_f64());
    }

    /// A linearizable read could not be confirmed.
    pub fn read_index_failed(&self) {
        self.read_indexes_failed.inc();
    }

    /// The check `name` of the endpoint `endpoint` had this result.
    pub fn health_check(&self, endpoint: &str, name: &str, success: bool) {
        let status = if success { "success" } else { "error" };
        self.health_last.with_label_values(&[endpoint, name]).set(i64::from(success));
        self.health_total.with_label_values(&[endpoint, name, status]).inc();
    }
}

fn requests(registry: &Registry) -> prometheus::Result<Vec<[Histogram; 2]>> {
    let options = HistogramOpts::new(
        "etcd_server_request_duration_seconds",
        "Seconds until a request was answered, by kind.",
    )
    .buckets(exponential_buckets(0.001, 2.0, 14)?);
    let vec = register(registry, HistogramVec::new(options, &["type", "success"])?)?;
    Ok(RequestKind::ALL
        .iter()
        .map(|(_, name)| ["false", "true"].map(|success| vec.with_label_values(&[*name, success])))
        .collect())
}

fn range_seconds(registry: &Registry) -> prometheus::Result<[Histogram; 2]> {
    let options =
        HistogramOpts::new("etcd_server_range_duration_seconds", "Seconds to look up a range.")
            .buckets(exponential_buckets(0.0001, 2.0, 20)?);
    let vec = register(registry, HistogramVec::new(options, &["success"])?)?;
    Ok(["false", "true"].map(|success| vec.with_label_values(&[success])))
}

fn hash_seconds(registry: &Registry, name: &str, help: &str) -> prometheus::Result<Histogram> {
    let options = HistogramOpts::new(name, help).buckets(exponential_buckets(0.01, 2.0, 15)?);
    register(registry, Histogram::with_opts(options)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_stand_at_their_numbers() {
        for (number, (kind, _)) in RequestKind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, number);
        }
    }
}
