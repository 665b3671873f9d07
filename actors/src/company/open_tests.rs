//! Opening what a crash left, at every point of a beginning and of an install.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use castd_proto::castdpb::MemberChange;
use castd_proto::castdpb::member_change::Kind;
use castd_proto::etcdserverpb::PutRequest;
use prost::Message;
use raft::eraftpb::{Entry, EntryType, HardState};
use raft::{GetEntriesContext, Storage};

use super::open::{Begin, OpenError, Opened, open};
use crate::apply_loop::conf_change;
use crate::checkpointer::{
    CheckpointStore, Reclaim, RevisionKey, SealJob, SledStore, SledStoreOptions,
};
use crate::cluster::{ClusterState, MemberInfo};
use crate::mvcc::{Origin, Store, StoreMeta};
use crate::wal_writer::{self, Append, Identity, SnapshotMarker, Wal, WalError, WalOptions};

const OWN: u64 = 2;
const IDENTITY: Identity = Identity { cluster_id: 9, member_id: OWN };

fn cluster(learners: &[u64]) -> ClusterState {
    let member = |id: u64| {
        let peer_urls = vec![format!("http://127.0.0.1:{id}")];
        let is_learner = learners.contains(&id);
        (id, MemberInfo { id, peer_urls, is_learner, ..MemberInfo::default() })
    };
    let members = [1, OWN, 3].map(member).into();
    ClusterState { members, ..ClusterState::default() }
}

/// A member's directory.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// One in which a member of a new cluster has begun.
    fn begun() -> Self {
        let dir = Self::new();
        drop(dir.open().unwrap());
        dir
    }

    fn snap(&self) -> PathBuf {
        self.0.path().join("snap")
    }

    fn wal(&self) -> WalOptions {
        WalOptions { segment_bytes: 1 << 16, ..WalOptions::new(self.0.path().join("wal")) }
    }

    fn open_as(&self, begin: &Begin, force_new: bool) -> Result<Opened, OpenError> {
        open(self.wal(), &self.snap(), IDENTITY, begin, force_new)
    }

    fn open(&self) -> Result<Opened, OpenError> {
        self.open_as(&Begin::Bootstrap(cluster(&[])), false)
    }

    fn force_new(&self) -> Result<Opened, OpenError> {
        self.open_as(&Begin::Bootstrap(cluster(&[])), true)
    }

    /// Adds to the log what a running member would.
    fn log(&self, entries: Vec<Entry>, hard_state: HardState) {
        append(&mut self.open().unwrap().wal, entries, hard_state);
    }

    /// Seals a state with `puts` changes at an index of term 5.
    fn seal(&self, index: u64, puts: i64, origin: Origin, cluster: &ClusterState) {
        let mut store = Store::default();
        for number in 0..puts {
            let (key, value) = (format!("k{number}").into(), "v".into());
            store.put(PutRequest { key, value, ..PutRequest::default() }).unwrap();
        }
        store.finish_batch();
        let meta = StoreMeta {
            cluster_id: IDENTITY.cluster_id,
            member_id: IDENTITY.member_id,
            revision: store.revision(),
            compact_revision: store.compact_revision(),
            leases: vec![(7, 60, 20)],
            cluster: cluster.clone(),
            origin,
        };
        let job = SealJob {
            applied_index: index,
            applied_term: 5,
            last: RevisionKey { main: store.revision(), sub: u32::MAX },
            meta: meta.to_bytes(),
            compact_revision: store.compact_revision(),
            reclaim: Reclaim::Replace,
            source: Arc::new(store.view(index, 5, Arc::new(cluster.clone()))),
        };
        SledStore::open(&self.snap(), SledStoreOptions::default()).unwrap().seal(&job).unwrap();
    }

    /// A log of 30 entries up to term 4, the last 10 of them not committed, and a
    /// vote in term 5; behind it the state of a snapshot at index 50.
    fn installed(origin: Origin) -> Self {
        let dir = Self::begun();
        dir.log(puts(2..=30, 4), hard_state(5, 3, 20));
        dir.seal(50, 10, origin, &cluster(&[3]));
        dir
    }
}

fn append(wal: &mut Wal, entries: Vec<Entry>, hard_state: HardState) {
    let hard_state = Some(hard_state);
    wal.append(&Append { entries, hard_state, ..Append::default() }).unwrap();
    wal.write().unwrap();
    wal.sync().unwrap();
}

fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit }
}

fn puts(indexes: std::ops::RangeInclusive<u64>, term: u64) -> Vec<Entry> {
    let entry = |index| Entry { index, term, data: vec![1; 9].into(), ..Entry::default() };
    indexes.map(entry).collect()
}

fn change_entry(index: u64, term: u64, change: &MemberChange) -> Entry {
    Entry {
        entry_type: EntryType::EntryConfChange.into(),
        index,
        term,
        data: conf_change(change).unwrap().encode_to_vec().into(),
        ..Entry::default()
    }
}

fn change(kind: Kind, member_id: u64) -> MemberChange {
    let peer_urls = match kind {
        Kind::Add => vec![format!("http://127.0.0.1:{member_id}")],
        Kind::Promote | Kind::Remove => Vec::new(),
    };
    MemberChange { kind: kind.into(), member_id, peer_urls, ..MemberChange::default() }
}

/// First index, last index, hard state, voters and learners of the log.
fn shape(opened: &Opened) -> (u64, u64, HardState, Vec<u64>, Vec<u64>) {
    let state = opened.log.initial_state().unwrap();
    let (first, last) = (opened.log.first_index().unwrap(), opened.log.last_index().unwrap());
    (first, last, state.hard_state, state.conf_state.voters, state.conf_state.learners)
}

fn entries(opened: &Opened) -> Vec<Entry> {
    let (first, last, ..) = shape(opened);
    opened.log.entries(first, last + 1, None, GetEntriesContext::empty(false)).unwrap()
}

/// What the changes in the log make of the members.
fn members_in_the_end(opened: &Opened) -> Vec<(u64, bool)> {
    let mut cluster = opened.cluster.clone();
    for entry in entries(opened).iter().filter(|e| e.entry_type() == EntryType::EntryConfChange) {
        let raft_change = raft::eraftpb::ConfChange::decode(&entry.data[..]).unwrap();
        let change = MemberChange::decode(&raft_change.context[..]).unwrap();
        assert_eq!(raft_change.node_id, change.member_id);
        // Earlier ones may be refused, as they were when they were applied.
        let _ = cluster.change(&change);
    }
    cluster.members.values().map(|member| (member.id, member.is_learner)).collect()
}

fn refusal(opened: Result<Opened, OpenError>) -> String {
    match opened {
        Ok(opened) => panic!("opened at {}", opened.applied),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_new_cluster_begins_behind_an_entry_that_nobody_has_and_a_joiner_before_it() {
    let dir = Dir::new();
    for _ in 0..2 {
        let opened = dir.open().unwrap();
        assert_eq!((opened.applied, opened.applied_term), (1, 1));
        assert_eq!(shape(&opened), (2, 1, hard_state(1, 0, 1), vec![1, 2, 3], vec![]));
    }
    let joining = Dir::new();
    for _ in 0..2 {
        let opened = joining.open_as(&Begin::Join(cluster(&[OWN])), false).unwrap();
        assert_eq!((opened.applied, opened.applied_term), (0, 0));
        assert_eq!(opened.cluster.members.len(), 3, "it knows where the others are");
        assert_eq!(shape(&opened), (1, 0, HardState::default(), vec![], vec![]));
    }
}

#[test]
fn a_beginning_that_was_cut_short_is_taken_up_again() {
    let complete = Dir::begun();
    let expected = shape(&complete.open().unwrap());
    // The first checkpoint is there, and nothing else.
    let dir = Dir::new();
    dir.seal_first();
    assert_eq!(shape(&dir.open().unwrap()), expected);
    // The log is there too, but not restarted.
    let dir = Dir::new();
    dir.seal_first();
    drop(wal_writer::create(dir.wal(), IDENTITY).unwrap());
    assert_eq!(shape(&dir.open().unwrap()), expected);
    // Everything but the word that a log is there.
    let dir = Dir::new();
    dir.seal_first();
    let mut wal = wal_writer::create(dir.wal(), IDENTITY).unwrap();
    wal.restart_durably(&SnapshotMarker { index: 1, term: 1, ..Default::default() }).unwrap();
    drop(wal);
    assert_eq!(shape(&dir.open().unwrap()), expected);
}

impl Dir {
    fn seal_first(&self) {
        let begin = Begin::Bootstrap(cluster(&[]));
        std::fs::create_dir_all(self.snap()).unwrap();
        let mut checkpoints = SledStore::open(&self.snap(), SledStoreOptions::default()).unwrap();
        super::open::seal_first(&mut checkpoints, IDENTITY, &begin).unwrap();
    }
}

#[test]
fn a_log_that_was_lost_is_missed() {
    for dir in [Dir::begun(), Dir::installed(Origin::Installed)] {
        std::fs::remove_dir_all(dir.wal().dir).unwrap();
        let error = refusal(dir.open());
        assert!(error.contains("there is no log in"), "{error}");
    }
}

#[test]
fn a_sealed_snapshot_restarts_the_log_behind_it() {
    let dir = Dir::installed(Origin::Installed);
    for _ in 0..2 {
        let opened = dir.open().unwrap();
        assert_eq!((opened.applied, opened.applied_term), (50, 5));
        assert_eq!(shape(&opened), (51, 50, hard_state(5, 3, 50), vec![1, 2], vec![3]));
        assert_eq!((opened.store.revision(), opened.leases), (11, vec![(7, 60, 20)]));
    }
    dir.log(puts(51..=60, 6), hard_state(6, 0, 55));
    let opened = dir.open().unwrap();
    assert_eq!((opened.applied, opened.log.last_index()), (50, Ok(60)));
    drop(opened);
    // The next seal is one of the log's, behind the marker in the log.
    dir.seal(57, 12, Origin::Log, &cluster(&[]));
    let refused = refusal(dir.open());
    assert!(refused.contains("entry 57 is of term 6"), "{refused}");
}

#[test]
fn a_marker_is_as_good_with_and_without_what_follows_it() {
    let marker = SnapshotMarker { index: 50, term: 5, ..SnapshotMarker::default() };
    // The marker is durable, the hard state behind it is not.
    let dir = Dir::installed(Origin::Installed);
    let (mut wal, _) = wal_writer::open(dir.wal(), 20).unwrap();
    wal.restart_behind(&marker).unwrap();
    wal.write().unwrap();
    wal.sync().unwrap();
    drop(wal);
    let opened = dir.open().unwrap();
    assert_eq!(shape(&opened), (51, 50, hard_state(5, 3, 50), vec![1, 2], vec![3]));
    drop(opened);
    // So it is when entries follow, and when an ordinary checkpoint is newer.
    dir.log(puts(51..=60, 5), hard_state(5, 3, 58));
    dir.seal(55, 12, Origin::Log, &cluster(&[]));
    let opened = dir.open().unwrap();
    assert_eq!(shape(&opened), (56, 60, hard_state(5, 3, 58), vec![1, 2, 3], vec![]));
    drop(opened);
    // A marker that is newer than the checkpoint: the state it stands for is lost.
    let (mut wal, _) = wal_writer::open(dir.wal(), 55).unwrap();
    wal.restart_behind(&SnapshotMarker { index: 90, ..marker }).unwrap();
    wal.write().unwrap();
    drop(wal);
    assert!(matches!(dir.open(), Err(OpenError::Wal(WalError::StartsTooLate { .. }))));
}

#[test]
fn a_state_ahead_of_the_log_that_no_snapshot_explains_is_refused() {
    let dir = Dir::installed(Origin::Log);
    assert!(matches!(dir.open(), Err(OpenError::Wal(WalError::EndsTooEarly { .. }))));
}

#[test]
fn a_snapshot_replaces_entries_that_were_not_committed() {
    let dir = Dir::begun();
    dir.log(puts(2..=80, 4), hard_state(4, 3, 20));
    dir.seal(50, 10, Origin::Installed, &cluster(&[]));
    let opened = dir.open().unwrap();
    assert_eq!((shape(&opened).0, shape(&opened).1), (51, 50));
    assert_eq!(shape(&opened).2, hard_state(5, 0, 50), "the vote was one of an older term");
}

#[test]
fn one_member_of_three_becomes_a_cluster_of_its_own() {
    let dir = Dir::begun();
    let mut log = puts(2..=5, 2);
    log.push(change_entry(6, 2, &change(Kind::Add, 4)));
    log.push(change_entry(7, 3, &change(Kind::Remove, 3)));
    // As far as the disk knows, these were never committed.
    log.extend(puts(8..=8, 3));
    log.push(change_entry(9, 3, &change(Kind::Remove, OWN)));
    log.extend(puts(10..=12, 3));
    dir.log(log, hard_state(4, 1, 7));
    let opened = dir.force_new().unwrap();
    assert_eq!(members_in_the_end(&opened), [(OWN, false)]);
    let found = entries(&opened);
    let added: Vec<(u64, u64)> = found[6..].iter().map(|e| (e.index, e.term)).collect();
    assert_eq!(added, [(8, 3), (9, 4), (10, 4)], "the write stays, 1 and 4 go");
    assert_eq!(shape(&opened).2, hard_state(4, 1, 10));
    drop(opened);
    for again in [dir.force_new().unwrap(), dir.open().unwrap()] {
        assert_eq!(entries(&again), found, "it is durable and done once");
        assert_eq!(shape(&again).2, hard_state(4, 1, 10));
    }
}

#[test]
fn a_learner_gets_a_vote_before_the_others_go() {
    let dir = Dir::new();
    let begin = Begin::Bootstrap(cluster(&[OWN]));
    let opened = dir.open_as(&begin, true).unwrap();
    assert_eq!(members_in_the_end(&opened), [(OWN, false)]);
    let first = &entries(&opened)[0];
    let raft_change = raft::eraftpb::ConfChange::decode(&first.data[..]).unwrap();
    assert_eq!((raft_change.node_id, first.index), (OWN, 2));
}

#[test]
fn an_only_member_loses_nothing_but_a_change_in_doubt() {
    let dir = Dir::new();
    let mut alone = cluster(&[]);
    alone.members.retain(|id, _| *id == OWN);
    let begin = Begin::Bootstrap(alone);
    let mut opened = dir.open_as(&begin, false).unwrap();
    append(&mut opened.wal, puts(2..=6, 2), hard_state(2, 2, 4));
    drop(opened);
    let mut opened = dir.open_as(&begin, true).unwrap();
    assert_eq!((shape(&opened).1, shape(&opened).2), (6, hard_state(2, 2, 4)), "raft commits it");
    let joins = change_entry(7, 2, &change(Kind::Add, 4));
    append(&mut opened.wal, vec![joins], hard_state(2, 2, 5));
    drop(opened);
    for _ in 0..2 {
        let opened = dir.open_as(&begin, true).unwrap();
        let last = entries(&opened).pop().unwrap();
        assert_eq!((last.index, last.term, last.data.len()), (7, 2, 0));
        assert_eq!(members_in_the_end(&opened), [(OWN, false)]);
        assert_eq!(shape(&opened).2, hard_state(2, 2, 7));
    }
}

#[test]
fn who_was_removed_or_has_not_joined_makes_no_new_cluster() {
    let dir = Dir::begun();
    dir.log(vec![change_entry(2, 2, &change(Kind::Remove, OWN))], hard_state(2, 1, 2));
    let error = refusal(dir.force_new());
    assert!(error.contains("was removed from its cluster"), "{error}");
    let joining = Dir::new();
    let error = refusal(joining.open_as(&Begin::Join(cluster(&[OWN])), true));
    assert!(error.contains("has not joined"), "{error}");
}

#[test]
fn a_directory_of_another_member_is_refused() {
    let (one, other) = (Dir::begun(), Dir::new());
    let stranger = Identity { member_id: 3, ..IDENTITY };
    let begin = Begin::Bootstrap(cluster(&[]));
    drop(open(other.wal(), &other.snap(), stranger, &begin, false).unwrap());
    swap(&one.wal().dir, &other.wal().dir);
    let error = refusal(one.open());
    assert!(error.contains("belongs to member 3"), "{error}");
}

fn swap(one: &Path, other: &Path) {
    std::fs::remove_dir_all(one).unwrap();
    std::fs::rename(other, one).unwrap();
}
