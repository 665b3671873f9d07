//! A member's data on a disk that loses power, gets full and fails: what was acknowledged is
//! there whenever it is opened, and the state is the one of its index.

use std::sync::Arc;

use castd_proto::etcdserverpb::{CompactionRequest, PutRequest};
use proptest::prelude::*;
use raft::eraftpb::{Entry, HardState};
use raft::{GetEntriesContext, Storage};

use crate::checkpointer::{Reclaim, RevisionKey, SealJob};
use crate::cluster::{ClusterState, MemberInfo};
use crate::company::{Begin, Opened};
use crate::mvcc::{Origin, Store, StoreMeta};
use crate::sim::{SimDisk, open};
use crate::wal_writer::{Append, Identity, SnapshotMarker};

const IDENTITY: Identity = Identity { cluster_id: 9, member_id: 2 };
const SEGMENT_BYTES: u64 = 8 << 10;
const TERM: u64 = 3;

fn cluster() -> ClusterState {
    let members = [1, 2, 3].map(|id| (id, MemberInfo { id, ..MemberInfo::default() })).into();
    ClusterState { members, ..ClusterState::default() }
}

/// The entry at an index, which says what it does: so every state follows from its index.
fn entry(index: u64) -> Entry {
    let data = vec![(index % 251) as u8; (index as usize * 379) % 1500];
    Entry { index, term: TERM, data: data.into(), ..Entry::default() }
}

fn apply(store: &mut Store, entry: &Entry) {
    if entry.index.is_multiple_of(16) {
        let revision = store.revision() - 5;
        store.compact(&CompactionRequest { revision, physical: false }).unwrap();
        while !store.scrub(100).done {}
    } else {
        let key = format!("key/{}", entry.index % 23).into();
        let value = bytes::Bytes::copy_from_slice(&entry.data);
        store.put(PutRequest { key, value, ..PutRequest::default() }).unwrap();
    }
    store.finish_batch();
}

fn state_at(index: u64) -> Store {
    let mut store = Store::default();
    (2..=index).for_each(|index| apply(&mut store, &entry(index)));
    store
}

/// The hash of every revision that can be asked for.
fn hashes(store: &Store) -> Vec<(i64, u32)> {
    let view = store.view(7, 7, Arc::new(cluster()));
    let revisions = store.compact_revision().max(1)..=store.revision();
    revisions.map(|revision| (revision, view.hash_kv(revision).unwrap().hash)).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Append {
        count: u64,
        sync: bool,
    },
    Seal {
        reclaim: Reclaim,
    },
    /// A state from elsewhere replaces this one and the log.
    Install {
        ahead: u64,
    },
    Kill,
    Crash {
        seed: u64,
    },
    /// So many operations succeed; then they fail, until the power is cut.
    FailLater {
        operations: u64,
    },
    /// So many bytes fit, until the process ends.
    Full {
        bytes: u64,
    },
    CrashInOpen {
        operations: u64,
        seed: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let reclaim = prop_oneof![4 => Just(Reclaim::Paced), 1 => Just(Reclaim::All), 1 => Just(Reclaim::Replace)];
    prop_oneof![
        8 => (1u64..12, prop::bool::weighted(0.8))
            .prop_map(|(count, sync)| Step::Append { count, sync }),
        4 => reclaim.prop_map(|reclaim| Step::Seal { reclaim }),
        1 => (1u64..20).prop_map(|ahead| Step::Install { ahead }),
        1 => Just(Step::Kill),
        3 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
        2 => (0u64..40).prop_map(|operations| Step::FailLater { operations }),
        1 => (0u64..30_000).prop_map(|bytes| Step::Full { bytes }),
        2 => (0u64..40, any::<u64>())
            .prop_map(|(operations, seed)| Step::CrashInOpen { operations, seed }),
    ]
}

struct World {
    disk: SimDisk,
    /// `None` while the process is down.
    member: Option<Opened>,
    /// Where the member's store is.
    applied: u64,
    /// The last entry that was written.
    last: u64,
    /// The last entry that is durable, or covered by a durable state.
    durable: u64,
    /// What the last seal that was reported covers.
    sealed: u64,
    /// Failures are due.
    may_fail: bool,
}

impl World {
    fn new() -> Self {
        let disk = SimDisk::new();
        let mut world = Self {
            disk,
            member: None,
            applied: 1,
            last: 1,
            durable: 1,
            sealed: 1,
            may_fail: false,
        };
        world.open();
        world
    }

    fn try_open(&self) -> Result<Opened, crate::company::OpenError> {
        open(&self.disk, SEGMENT_BYTES, IDENTITY, &Begin::Bootstrap(cluster()), false)
    }

    fn open(&mut self) {
        self.disk.lift_limit();
        self.may_fail = false;
        let mut member = self.try_open().unwrap();
        assert!(
            member.applied >= self.sealed,
            "{} was sealed, not {}",
            self.sealed,
            member.applied
        );
        assert_eq!(hashes(&member.store), hashes(&state_at(member.applied)));
        let last = member.log.last_index().unwrap();
        assert!(last >= self.durable, "{} was durable, not {last}", self.durable);
        assert!(last <= self.last.max(member.applied));
        let first = member.log.first_index().unwrap();
        assert_eq!(first, member.applied + 1);
        let context = GetEntriesContext::empty(false);
        let entries = match first > last {
            true => Vec::new(),
            false => member.log.entries(first, last + 1, None, context).unwrap(),
        };
        for (found, index) in entries.iter().zip(first..) {
            assert_eq!(*found, entry(index));
            apply(&mut member.store, found);
        }
        (self.applied, self.sealed) = (last, member.applied);
        (self.last, self.durable) = (last, last);
        self.member = Some(member);
    }

    /// Ends the process when the disk has failed it.
    fn unless_failed<T, E: std::fmt::Debug>(&mut self, result: Result<T, E>) -> Option<T> {
        if let Err(error) = &result {
            assert!(self.may_fail, "{error:?}");
            self.member = None;
        }
        result.ok()
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Append { count, sync } => self.append(count, sync),
            Step::Seal { reclaim } => self.seal(reclaim),
            Step::Install { ahead } => self.install(ahead),
            Step::Kill => {
                self.member = None;
                self.disk.kill();
                self.open();
            }
            Step::Crash { seed } => {
                self.member = None;
                self.disk.crash(seed);
                self.open();
            }
            Step::FailLater { operations } => {
                self.disk.fail_after(operations);
                self.may_fail = true;
            }
            Step::Full { bytes } => {
                self.disk.limit_bytes(bytes);
                self.may_fail = true;
            }
            Step::CrashInOpen { operations, seed } => {
                self.member = None;
                self.disk.kill();
                self.disk.fail_after(operations);
                // Whether it opens or fails on the way: the power goes.
                drop(self.try_open());
                self.disk.crash(seed);
                self.open();
            }
        }
    }

    fn append(&mut self, count: u64, sync: bool) {
        let Some(member) = &mut self.member else { return };
        let entries: Vec<Entry> = (self.last + 1..=self.last + count).map(entry).collect();
        let hard_state = HardState { term: TERM, vote: 1, commit: self.last + count };
        self.last += count;
        let request = Append { entries, hard_state: Some(hard_state), ..Append::default() };
        let wal = &mut member.wal;
        let written = wal.append(&request).and_then(|()| wal.write());
        let done = written.and_then(|_| if sync { wal.sync() } else { Ok(()) });
        if self.unless_failed(done).is_some() && sync {
            self.durable = self.last;
        }
    }

    /// Seals the member's store at an index.
    fn seal_at(&mut self, index: u64, reclaim: Reclaim, origin: Origin) -> Option<()> {
        let member = self.member.as_mut()?;
        let store = &member.store;
        let meta = StoreMeta {
            cluster_id: IDENTITY.cluster_id,
            member_id: IDENTITY.member_id,
            revision: store.revision(),
            compact_revision: store.compact_revision(),
            cluster: cluster(),
            leases: Vec::new(),
            origin,
        };
        let job = SealJob {
            applied_index: index,
            applied_term: if index == 1 { 1 } else { TERM },
            last: RevisionKey { main: store.revision(), sub: u32::MAX },
            meta: meta.to_bytes(),
            compact_revision: store.compact_revision(),
            reclaim,
            source: Arc::new(store.view(index, TERM, Arc::new(cluster()))),
        };
        let sealed = member.checkpoints.seal(&job);
        self.unless_failed(sealed)?;
        self.sealed = index;
        Some(())
    }

    /// Applies and seals what is durable, and releases the log up to there.
    fn seal(&mut self, reclaim: Reclaim) {
        let Some(member) = &mut self.member else { return };
        (self.applied + 1..=self.durable).for_each(|i| apply(&mut member.store, &entry(i)));
        self.applied = self.applied.max(self.durable);
        if self.seal_at(self.applied, reclaim, Origin::Log).is_none() {
            return;
        }
        let Some(member) = &mut self.member else { return };
        let released = member.wal.release(self.sealed);
        self.unless_failed(released);
    }

    fn install(&mut self, ahead: u64) {
        let index = self.last + ahead;
        let Some(member) = &mut self.member else { return };
        member.store = state_at(index);
        self.applied = index;
        if self.seal_at(index, Reclaim::Replace, Origin::Installed).is_none() {
            return;
        }
        (self.last, self.durable) = (index, index);
        let Some(member) = &mut self.member else { return };
        let marker = SnapshotMarker { index, term: TERM, ..SnapshotMarker::default() };
        let restarted = member.wal.restart_durably(&marker);
        self.unless_failed(restarted);
    }

    fn files(&self) -> Vec<(std::path::PathBuf, Option<Vec<u8>>)> {
        let files = self.disk.files("");
        files.into_iter().map(|path| (path.clone(), self.disk.content(&path))).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_history_opens_to_what_was_acknowledged(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let (mut world, mut twin) = (World::new(), World::new());
        for step in &steps {
            world.run(step);
            twin.run(step);
            prop_assert!(world.files() == twin.files(), "the same steps leave the same");
        }
        world.run(&Step::Crash { seed: 1 });
    }
}

#[test]
fn a_beginning_that_was_cut_short_is_taken_up_again() {
    let mut failed = 0;
    for operations in 0..60 {
        for seed in 0..5 {
            let disk = SimDisk::new();
            let begin = Begin::Bootstrap(cluster());
            disk.fail_after(operations);
            let first = open(&disk, SEGMENT_BYTES, IDENTITY, &begin, false);
            failed += u32::from(first.is_err());
            drop(first);
            disk.crash(seed);
            let opened = open(&disk, SEGMENT_BYTES, IDENTITY, &begin, false).unwrap();
            let log = (opened.log.first_index().unwrap(), opened.log.last_index().unwrap());
            assert_eq!((opened.applied, opened.applied_term, log), (1, 1, (2, 1)));
        }
    }
    assert!((50..250).contains(&failed), "{failed}");
}

/// A process that dies while it seals leaves a manifest that is read, but not yet durable.
#[test]
fn a_power_cut_takes_back_nothing_that_was_opened() {
    let mut went_on = 0;
    for operations in 0..40 {
        for seed in 0..12 {
            let mut world = World::new();
            world.run(&Step::Append { count: 20, sync: true });
            world.run(&Step::Seal { reclaim: Reclaim::Paced });
            world.run(&Step::Append { count: 9, sync: true });
            world.run(&Step::FailLater { operations });
            match seed % 2 {
                0 => world.run(&Step::Install { ahead: 9 }),
                _ => world.run(&Step::Seal { reclaim: Reclaim::Replace }),
            }
            let reported = world.sealed;
            world.run(&Step::Kill);
            went_on += u32::from(world.sealed > reported);
            world.run(&Step::Crash { seed });
        }
    }
    assert!(went_on > 0, "no seal ended behind its rename");
}

fn lived(rounds: u64) -> World {
    let mut world = World::new();
    for round in 0..rounds {
        world.run(&Step::Append { count: 8, sync: true });
        world.run(&Step::Seal { reclaim: Reclaim::Paced });
        world.run(&Step::Append { count: 4, sync: true });
        if round.is_multiple_of(3) {
            world.run(&Step::Crash { seed: round });
        }
    }
    world
}

#[test]
fn a_long_life_leaves_no_rubbish() {
    let mut world = lived(20);
    let early = world.disk.bytes();
    for _ in 0..4 {
        (0..20).for_each(|round| {
            world.run(&Step::Append { count: 8, sync: true });
            world.run(&Step::Seal { reclaim: Reclaim::Paced });
            world.run(&Step::Crash { seed: round });
        });
    }
    assert!(world.disk.bytes() < 2 * early, "{} after {early}", world.disk.bytes());
}

#[test]
fn a_flipped_bit_in_the_sealed_state_is_found_and_one_in_the_log_invents_nothing() {
    let mut world = lived(5);
    world.run(&Step::Append { count: 30, sync: true });
    world.run(&Step::Kill);
    let (sealed, last) = (world.sealed, world.last);
    world.member = None;
    let (mut in_snap, mut in_wal, mut refused) = (0, 0, 0);
    for seed in 0..400 {
        let disk = world.disk.fork();
        let place = disk.flip_bit(seed).unwrap();
        let opened = open(&disk, SEGMENT_BYTES, IDENTITY, &Begin::Bootstrap(cluster()), false);
        if place.starts_with("/member/snap/") {
            in_snap += 1;
            assert!(opened.is_err(), "{place}");
            continue;
        }
        in_wal += 1;
        let Ok(opened) = opened else {
            refused += 1;
            continue;
        };
        assert_eq!((opened.applied, hashes(&opened.store)), (sealed, hashes(&state_at(sealed))));
        let found = opened.log.last_index().unwrap();
        assert!(found <= last, "{place}");
        let entries = match found > sealed {
            true => opened
                .log
                .entries(sealed + 1, found + 1, None, GetEntriesContext::empty(false))
                .unwrap(),
            false => Vec::new(),
        };
        assert!(entries.iter().zip(sealed + 1..).all(|(found, index)| *found == entry(index)));
    }
    assert!(in_snap > 50 && in_wal > 50 && refused > 20, "{in_snap} {in_wal} {refused}");
}

/// A disk that fails has a log as before: whoever cannot look must not say there is none.
#[test]
fn a_disk_that_fails_is_what_a_start_complains_of() {
    let (disk, begin) = (SimDisk::new(), Begin::Bootstrap(cluster()));
    drop(open(&disk, SEGMENT_BYTES, IDENTITY, &begin, false).unwrap());
    let mut refused = 0;
    for operations in 0.. {
        disk.fail_after(operations);
        let opened = open(&disk, SEGMENT_BYTES, IDENTITY, &begin, false).map(drop);
        disk.kill();
        let Err(error) = opened else { break };
        assert!(error.to_string().contains("simulated failure"), "{operations}: {error}");
        refused += 1;
    }
    assert!(refused > 5, "the disk has failed {refused} times");
}
