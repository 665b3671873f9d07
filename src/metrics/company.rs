//! Figures read off the company at the moment somebody asks for them.

use castd_actors::{Company, MailboxStats, RaftStatus, View};
use castd_proto::etcdserverpb::AlarmType;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::families::{Family, Shape};

const HAS_LEADER: Shape = Shape::gauge("etcd_server_has_leader", "1 if there is a leader.");
const IS_LEADER: Shape = Shape::gauge("etcd_server_is_leader", "1 if this member leads.");
const IS_LEARNER: Shape = Shape::gauge("etcd_server_is_learner", "1 if this member learns.");
const LEADER_CHANGES: Shape =
    Shape::counter("etcd_server_leader_changes_seen_total", "Changes of the leader seen.");
const SLOW_READ_INDEXES: Shape = Shape::counter(
    "etcd_server_slow_read_indexes_total",
    "Rounds of read indexes that were asked again because no answer came.",
);
const REFUSED_APPENDS: Shape = Shape::counter(
    "castd_raft_refused_appends_total",
    "Messages with entries that were not taken because too many wait for the disk and the store.",
);
const COMMITTED: Shape =
    Shape::gauge("etcd_server_proposals_committed_total", "The last committed log index.");
const APPLIED: Shape =
    Shape::gauge("etcd_server_proposals_applied_total", "The last applied log index.");
const QUOTA: Shape = Shape::gauge("etcd_server_quota_backend_bytes", "The space quota in bytes.");
const SERVER_ID: Shape = Shape::gauge("etcd_server_id", "1 for this member's id, in hexadecimal.");
const SERVER_VERSION: Shape =
    Shape::gauge("etcd_server_version", "1 for the etcd version this member speaks.");
const CLUSTER_VERSION: Shape =
    Shape::gauge("etcd_cluster_version", "1 for the version the cluster speaks.");
const ALARMS: Shape =
    Shape::gauge("etcd_debugging_server_alarms", "1 for every alarm that is raised.");
const DB_SIZE: Shape =
    Shape::gauge("etcd_mvcc_db_total_size_in_bytes", "Bytes the store takes on disk.");
const DB_IN_USE: Shape = Shape::gauge(
    "etcd_mvcc_db_total_size_in_use_in_bytes",
    "Bytes of the store on disk that are in use.",
);
const KEYS: Shape = Shape::gauge("etcd_debugging_mvcc_keys_total", "Keys in the store.");
const REVISION: Shape =
    Shape::gauge("etcd_debugging_mvcc_current_revision", "The store's revision.");
const COMPACTED: Shape =
    Shape::gauge("etcd_debugging_mvcc_compact_revision", "The last compaction's revision.");
const DEPTH: Shape = Shape::gauge("castd_mailbox_depth", "Messages that wait in a mailbox.");
const CAPACITY: Shape =
    Shape::gauge("castd_mailbox_capacity", "Messages that a mailbox holds at most.");
const MESSAGES: Shape =
    Shape::counter("castd_mailbox_messages_total", "Messages taken from a mailbox.");
const BATCHES: Shape =
    Shape::counter("castd_mailbox_batches_total", "Batches taken from a mailbox.");
const REFUSED: Shape =
    Shape::counter("castd_mailbox_refused_total", "Messages a full mailbox refused.");
const BUSY: Shape =
    Shape::counter("castd_mailbox_busy_seconds_total", "Seconds spent on a mailbox's messages.");

const SHAPES: [Shape; 23] = [
    HAS_LEADER,
    IS_LEADER,
    IS_LEARNER,
    LEADER_CHANGES,
    SLOW_READ_INDEXES,
    COMMITTED,
    APPLIED,
    QUOTA,
    SERVER_ID,
    SERVER_VERSION,
    CLUSTER_VERSION,
    ALARMS,
    DB_SIZE,
    DB_IN_USE,
    KEYS,
    REVISION,
    COMPACTED,
    DEPTH,
    CAPACITY,
    MESSAGES,
    BATCHES,
    REFUSED,
    BUSY,
];

/// Shows the company's own account of itself: its view, its raft, its mailboxes.
pub struct CompanyCollector {
    company: Company,
    quota_bytes: i64,
    version: String,
    descs: Vec<Desc>,
}

impl CompanyCollector {
    /// For a member that speaks etcd's `version`, with a space quota of `quota_bytes`.
    ///
    /// # Errors
    /// Never, as long as the names above are well formed.
    pub fn new(company: Company, version: &str, quota_bytes: i64) -> prometheus::Result<Self> {
        let descs = SHAPES.iter().map(Shape::desc).collect::<prometheus::Result<_>>()?;
        Ok(Self { company, quota_bytes, version: version.to_owned(), descs })
    }

    fn identity(&self, view: &View) -> Vec<MetricFamily> {
        let id = format!("{:x}", self.company.identity().member_id);
        let mut cluster = Family::new(CLUSTER_VERSION);
        if let Some(version) = &view.cluster().version {
            // As etcd's: without the patch.
            let (minor, _patch) = version.rsplit_once('.').unwrap_or((version, ""));
            cluster = cluster.with(&[("cluster_version", minor)], 1.0);
        }
        vec![
            Family::new(SERVER_ID).with(&[("server_id", &id)], 1.0).done(),
            Family::new(SERVER_VERSION).with(&[("server_version", &self.version)], 1.0).done(),
            cluster.done(),
        ]
    }
}

impl Collector for CompanyCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let view = self.company.view();
        let mut families = raft(&self.company.raft(), self.company.is_learner());
        families.extend(self.identity(&view));
        families.extend(store(&view));
        families.extend(mailboxes(&self.company.mailboxes()));
        families.push(QUOTA.value(self.quota_bytes as f64));
        // The text format has no place for a family without values.
        families.retain(|family| !family.get_metric().is_empty());
        families
    }
}

fn raft(raft: &RaftStatus, is_learner: bool) -> Vec<MetricFamily> {
    vec![
        HAS_LEADER.value(flag(raft.leader != 0)),
        IS_LEADER.value(flag(raft.is_leader)),
        IS_LEARNER.value(flag(is_learner)),
        LEADER_CHANGES.value(raft.leader_changes as f64),
        SLOW_READ_INDEXES.value(raft.slow_read_indexes as f64),
        REFUSED_APPENDS.value(raft.refused_appends as f64),
        COMMITTED.value(raft.committed as f64),
    ]
}

fn store(view: &View) -> Vec<MetricFamily> {
    let alarms = view.cluster().alarms.iter().fold(Family::new(ALARMS), |family, alarm| {
        let kind = AlarmType::try_from(alarm.0).map_or("UNKNOWN", |kind| kind.as_str_name());
        family.with(&[("server_id", &format!("{:x}", alarm.1)), ("alarm_type", kind)], 1.0)
    });
    vec![
        alarms.done(),
        DB_SIZE.value(view.db_size() as f64),
        DB_IN_USE.value(view.db_size_in_use() as f64),
        KEYS.value(view.keys() as f64),
        REVISION.value(view.revision() as f64),
        COMPACTED.value(view.compact_revision() as f64),
        // raft's own account of it comes a moment after the answers.
        APPLIED.value(view.applied_index() as f64),
    ]
}

fn mailboxes(all: &[std::sync::Arc<MailboxStats>]) -> Vec<MetricFamily> {
    type Figure = fn(&MailboxStats) -> f64;
    let figures: [(Shape, Figure); 6] = [
        (DEPTH, |stats| stats.depth() as f64),
        (CAPACITY, |stats| stats.capacity as f64),
        (MESSAGES, |stats| stats.taken() as f64),
        (BATCHES, |stats| stats.batches() as f64),
        (REFUSED, |stats| stats.refused() as f64),
        (BUSY, |stats| stats.busy().as_secs_f64()),
    ];
    figures
        .into_iter()
        .map(|(shape, figure)| {
            all.iter()
                .fold(Family::new(shape), |family, stats| {
                    family.with(&[("mailbox", stats.name.as_str())], figure(stats))
                })
                .done()
        })
        .collect()
}

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}
