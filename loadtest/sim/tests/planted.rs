//! Bugs on purpose: what the simulator is worth. Each is switched on in all members, and
//! worlds are run one after the other until one breaks a promise; it must be one that has
//! to do with the bug, and the same world without the bug must be well.
//!
//! `PLANTED=name` looks for one bug alone, `SEED=n` in one world alone.

use std::time::Instant;

use castd_sim::{Planted, Profile, Settings, run};

/// A member notices itself that it has lost what it had promised to keep.
const ENDS: &str = "no process ends by itself";
const STARTS: &str = "a member starts again";
const AGREE: &str = "members agree";
const STORED: &str = "an acknowledged write is stored";
const SERVES: &str = "a mended cluster serves again";
const GROWS: &str = "revisions grow with time";
const LINEAR: &str = "linearizable";
const TELLS: &str = "a read tells the state of its revision";
const WATCH: &str = "watch";
const LEASE: &str = "a lease lives its time";
const LOCK: &str = "a lock has one holder";
const WHOLE: &str = "a lease ends with all its keys at once";
const FOLLOWS: &str = "each event follows from the one before";
const ONE: &str = "a term has one leader";
const COUNTS: &str = "raft counts the members there are";

/// A bug, where it is looked for, in how many worlds at most, and what it may break.
type Case = (Planted, Profile, u64, &'static [&'static str]);

/// The bounds are several times what it took, for the worlds change with the code.
const CASES: &[Case] = &[
    (Planted::AcknowledgedBeforeSync, Profile::Disk, 50, &[ENDS, STARTS, AGREE, STORED, ONE]),
    (Planted::PromisedBeforeWritten, Profile::Disk, 50, &[ENDS, STARTS, AGREE, STORED, ONE]),
    (Planted::HardStateNotWritten, Profile::Wild, 100, &[ONE]),
    (Planted::ReadContextReused, Profile::Wild, 800, &[GROWS, LINEAR]),
    (Planted::ReadUnconfirmed, Profile::Wild, 800, &[GROWS, LINEAR]),
    (Planted::ReadNotAwaited, Profile::Wild, 50, &[GROWS, LINEAR]),
    (Planted::AppliedOutOfOrder, Profile::Wild, 50, &[AGREE]),
    (Planted::CheckpointAhead, Profile::Disk, 50, &[AGREE, STARTS]),
    (Planted::SnapshotWithoutIndex, Profile::Wild, 50, &[SERVES, AGREE, STARTS]),
    (Planted::SnapshotWithoutMarker, Profile::Wild, 50, &[ENDS, STARTS]),
    (Planted::CompactionEatsLive, Profile::Wild, 50, &[TELLS, AGREE, WATCH, LINEAR]),
    (Planted::CompactionOneTooFar, Profile::Wild, 50, &[TELLS, AGREE, WATCH]),
    (Planted::DeletionForgotten, Profile::Wild, 800, &[AGREE, WATCH, TELLS, FOLLOWS]),
    (Planted::DeletionEaten, Profile::Wild, 400, &[WATCH, AGREE]),
    (Planted::WatchSkipsAtSync, Profile::Wild, 50, &[WATCH]),
    (Planted::WatchSkipsCompacted, Profile::Wild, 50, &[WATCH]),
    (Planted::ProgressAheadOfEvents, Profile::Wild, 50, &[WATCH]),
    (Planted::LeaseEndedByFollower, Profile::Wild, 50, &[LEASE, LOCK]),
    (Planted::LeaseNotRenewedByLeader, Profile::Wild, 50, &[LEASE, LOCK]),
    (Planted::LeaseKeepsKeys, Profile::Wild, 50, &[AGREE, WHOLE, LEASE, LOCK, FOLLOWS]),
    (Planted::LearnerCounts, Profile::Membership, 100, &[COUNTS, SERVES]),
    (Planted::RemovedCounts, Profile::Membership, 50, &[COUNTS, SERVES]),
];

/// The cases that are wished; all, if none is named.
fn wished(cases: &'static [Case]) -> impl Iterator<Item = &'static Case> {
    let only = std::env::var("PLANTED").ok();
    cases
        .iter()
        .filter(move |(bug, ..)| only.as_ref().is_none_or(|only| *only == format!("{bug:?}")))
}

/// Runs worlds until one shows the bug; its seed, and the promise that was broken.
fn look_for((bug, profile, within, _): &Case) -> Option<(u64, &'static str)> {
    let one = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
    let mut seeds = one.map_or(1..=*within, |one| one..=one);
    seeds.find_map(|seed| {
        let mut settings = Settings::new(seed, *profile);
        settings.planted = Some(*bug);
        let problem = run(&settings).problems.into_iter().next()?;
        settings.planted = None;
        if let Some(other) = run(&settings).problems.first() {
            println!("{profile} seed {seed} does not count, being unwell without: {other}");
            return None;
        }
        println!("    {problem}");
        Some((seed, problem.promise))
    })
}

#[test]
fn every_bug_is_found() {
    let mut missed = Vec::new();
    for case in wished(CASES) {
        let (bug, profile, within, promises) = case;
        let begun = Instant::now();
        match look_for(case) {
            Some((seed, promise)) => {
                println!("| {bug:?} | {profile} | {seed} | {promise} | {:?}", begun.elapsed());
                if !promises.contains(&promise) {
                    missed.push(format!("{bug:?} came out as {promise:?}"));
                }
            }
            None => missed.push(format!("{bug:?} was not found in {within} worlds")),
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

/// Takes a leader that was deposed while it stood still, and a holder that asks it just
/// then and never again: the grace that new leaders give hides it otherwise.
#[test]
#[ignore = "it takes thousands of worlds"]
fn a_rare_bug_is_found() {
    let case = (Planted::LeaseRenewedUnconfirmed, Profile::Wild, 10_000, &[][..]);
    let found = look_for(&case);
    assert!(found.is_some_and(|(_, promise)| [LEASE, LOCK].contains(&promise)), "{found:?}");
}

/// Worlds of the same seeds as above, without a bug of ours.
#[test]
fn without_them_all_is_well() {
    for profile in Profile::ALL {
        for seed in 1..=25 {
            let problems = run(&Settings::new(seed, profile)).problems;
            assert!(problems.is_empty(), "{profile} seed {seed}: {problems:?}");
        }
    }
}
