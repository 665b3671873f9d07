//! Random histories with power cuts: what was acknowledged is there, in order, nothing is half
//! there, and nothing that was never written appears.

use proptest::prelude::*;

use super::*;
use crate::wal_writer::SnapshotMarker;

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    /// A group of requests: how many entries of which size in each, and how far back the first
    /// entry reaches (to replace uncommitted ones).
    Group { requests: Vec<(u64, usize)>, back: u64, commit: bool, sync: bool },
    /// Release up to a share of what is committed.
    Release { percent: u64 },
    /// Restart the log behind a snapshot this far beyond its end.
    Snapshot { ahead: u64 },
    /// Cut the power, perhaps in the middle of the next group; `seed` picks the sectors.
    Crash { seed: u64, in_group: Option<u64> },
    /// End the process; the page cache stays.
    Kill,
    /// End the process, and cut the power while the log is being opened again.
    CrashInOpen { operations: u64, seed: u64 },
    /// Close and open.
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let request = (0u64..4, 0usize..1200);
    let group =
        (prop::collection::vec(request, 1..6), 0u64..4, any::<bool>(), prop::bool::weighted(0.8))
            .prop_map(|(requests, back, commit, sync)| Step::Group {
                requests,
                back,
                commit,
                sync,
            });
    let crash = (any::<u64>(), prop::option::of(0u64..6))
        .prop_map(|(seed, in_group)| Step::Crash { seed, in_group });
    let step = prop_oneof![
        12 => group,
        2 => (0u64..=100).prop_map(|percent| Step::Release { percent }),
        1 => (0u64..20).prop_map(|ahead| Step::Snapshot { ahead }),
        3 => crash,
        1 => Just(Step::Kill),
        2 => (0u64..12, any::<u64>())
            .prop_map(|(operations, seed)| Step::CrashInOpen { operations, seed }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..60)
}

/// What the log should be: entry by entry, from the index behind `start`.
#[derive(Clone, Default)]
struct Model {
    start: u64,
    entries: Vec<Entry>,
    state: HardState,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let HardState { term, vote, commit } = self.state;
        write!(f, "behind {}, term {term}, vote {vote}, commit {commit}:", self.start)?;
        self.entries.iter().try_for_each(|e| write!(f, " {}.{}/{}", e.index, e.term, e.data.len()))
    }
}

impl Model {
    fn last(&self) -> u64 {
        self.start + self.entries.len() as u64
    }

    fn put(&mut self, request: &Append) {
        for entry in &request.entries {
            self.entries.truncate((entry.index - self.start - 1) as usize);
            self.entries.push(entry.clone());
        }
        if let Some(state) = &request.hard_state {
            self.state = *state;
        }
    }

    fn restart_behind(&mut self, index: u64) {
        *self = Self { start: index, entries: Vec::new(), state: self.state };
    }

    fn release(&mut self, index: u64) {
        let count = index.saturating_sub(self.start);
        self.entries.drain(..count as usize);
        self.start += count;
    }
}

struct World {
    disk: SimDisk,
    /// `None` while the process is down.
    wal: Option<Wal>,
    /// What the last sync covered.
    durable: Model,
    /// What was written behind it, one state after each request or part of one.
    since: Vec<Model>,
    term: u64,
}

impl World {
    fn new() -> Self {
        let disk = SimDisk::default();
        let wal = Some(create(&disk, 4096));
        Self { disk, wal, durable: Model::default(), since: Vec::new(), term: 1 }
    }

    fn now(&self) -> Model {
        self.since.last().unwrap_or(&self.durable).clone()
    }

    fn synced(&mut self) {
        self.durable = self.now();
        self.since.clear();
    }

    /// Every prefix of the request that a crash may leave.
    fn expect(&mut self, request: &Append) {
        let mut model = self.now();
        if let Some(state) = &request.hard_state {
            model.state = HardState { commit: model.state.commit, ..*state };
            self.since.push(model.clone());
        }
        for entry in &request.entries {
            let one = Append { entries: vec![entry.clone()], ..Append::default() };
            model.put(&one);
            self.since.push(model.clone());
        }
        model.put(request);
        self.since.push(model);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Group { requests, back, commit, sync } => {
                self.group(&requests, back, commit, sync);
            }
            Step::Release { percent } => self.release(percent),
            Step::Snapshot { ahead } => self.snapshot(ahead),
            Step::Crash { seed, in_group } => self.crash(seed, in_group),
            Step::Kill => {
                self.wal = None;
                self.disk.kill();
                self.recover();
            }
            Step::CrashInOpen { operations, seed } => {
                self.wal = None;
                self.disk.fail_after(operations);
                // Whether it opens or fails on the way: the power goes.
                drop(try_open(&self.disk, self.durable.start));
                self.disk.crash(seed);
                self.recover();
            }
            Step::Reopen => {
                self.wal = None;
                self.recover();
            }
        }
    }

    fn requests(&mut self, shape: &[(u64, usize)], back: u64, commit: bool) -> Vec<Append> {
        let mut model = self.now();
        if back > 0 {
            self.term += 1;
        }
        let mut back = back.min(model.last() - model.state.commit.max(model.start));
        let mut requests = Vec::new();
        for &(count, size) in shape {
            let first = model.last() + 1 - std::mem::take(&mut back);
            let entries: Vec<_> =
                (first..first + count).map(|i| entry(i, self.term, size)).collect();
            let mut request = Append { entries, ..Append::default() };
            model.put(&request);
            let reached = if commit { model.last() } else { model.state.commit };
            request.hard_state = Some(hard_state(self.term, 1, reached));
            model.put(&request);
            requests.push(request);
        }
        requests
    }

    fn group(&mut self, shape: &[(u64, usize)], back: u64, commit: bool, sync: bool) {
        for request in self.requests(shape, back, commit) {
            self.expect(&request);
            let Some(wal) = &mut self.wal else { return };
            let done = wal.append(&request);
            assert!(done.is_ok() || self.disk.is_failing(), "{done:?}");
            if done.is_err() {
                self.wal = None;
            }
        }
        self.finish(sync);
    }

    /// Writes and perhaps syncs the group. A failure ends the process.
    fn finish(&mut self, sync: bool) {
        let Some(wal) = &mut self.wal else { return };
        let written = wal.write();
        let done = written.and_then(|_| if sync { wal.sync() } else { Ok(()) });
        match done {
            Ok(()) if sync => self.synced(),
            Ok(()) => {}
            Err(error) => {
                assert!(self.disk.is_failing(), "{error}");
                self.wal = None;
            }
        }
    }

    fn release(&mut self, percent: u64) {
        let model = &mut self.durable;
        let index = model.start + model.state.commit.saturating_sub(model.start) * percent / 100;
        model.release(index);
        for model in &mut self.since {
            model.release(index);
        }
        let Some(wal) = &mut self.wal else { return };
        if wal.release(index).is_err() {
            assert!(self.disk.is_failing());
            self.wal = None;
        } else if !wal.is_dirty() {
            self.synced();
        }
    }

    /// The state up to the marker is sealed before the marker is written, and the older sealed
    /// copy is kept until it is durable: so it is always written and synced alone here.
    fn snapshot(&mut self, ahead: u64) {
        self.finish(true);
        let index = self.now().last() + ahead;
        let marker = SnapshotMarker { index, term: self.term, ..SnapshotMarker::default() };
        let Some(wal) = &mut self.wal else { return };
        if wal.restart_behind(&marker).is_ok() {
            let mut model = self.now();
            model.restart_behind(index);
            self.since.push(model);
            self.finish(true);
        } else {
            self.wal = None;
        }
        assert!(self.wal.is_some() || self.disk.is_failing());
    }

    fn crash(&mut self, seed: u64, in_group: Option<u64>) {
        if let Some(operations) = in_group {
            self.disk.fail_after(operations);
            self.group(&[(3, 900), (2, 300), (1, 0)], 2, true, true);
        }
        self.wal = None;
        self.disk.crash(seed);
        self.recover();
    }

    /// Opens the log and checks that it is one of the states that may be.
    fn recover(&mut self) {
        let allowed: Vec<Model> =
            std::iter::once(&self.durable).chain(&self.since).cloned().collect();
        // A marker that was torn away or not: the sealed state follows what is in the log.
        let starts: std::collections::BTreeSet<u64> = allowed.iter().map(|m| m.start).collect();
        let opened = starts.iter().rev().find_map(|&start| {
            try_open(&self.disk, start).map(|found| (start, found)).map_err(|e| (start, e)).ok()
        });
        let Some((start, (wal, recovered))) = opened else {
            panic!("{:?}\n{allowed:#?}", try_open(&self.disk, self.durable.start).err());
        };
        let found = Model { start, entries: recovered.entries, state: recovered.hard_state };
        let least = self.durable.state.commit;
        let matching = allowed.iter().find(|model| {
            // A commit index is written at the end of its group: it may lag behind the entries.
            let most = model.state.commit.max(start);
            model.start == start
                && model.entries == found.entries
                && (model.state.term, model.state.vote) == (found.state.term, found.state.vote)
                && (least..=most).contains(&found.state.commit)
        });
        assert!(matching.is_some(), "{found:#?} is none of {allowed:#?}");
        self.durable = found;
        self.since.clear();
        self.wal = Some(wal);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_was_acknowledged_survives(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.step(Step::Crash { seed: 1, in_group: None });
    }
}
