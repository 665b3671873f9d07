//! Bugs on purpose: what the simulator is worth. Each is switched on in all members,
//! worlds are run one after the other until one shows that something is wrong, and what
//! it shows must have to do with the bug. The same worlds without it are well.
//!
//! `PLANTED=name` runs one bug alone, `SEEDS=n` runs more worlds than the usual ones.

use std::collections::BTreeSet;
use std::time::Instant;

use castd_sim::{Planted, Profile, Settings, run};

/// A bug and where it is looked for.
struct Case {
    bug: Planted,
    profile: Profile,
    /// Worlds within which it is found.
    within: u64,
    /// The promises that it may break.
    promises: &'static [&'static str],
}

const fn case(
    bug: Planted,
    profile: Profile,
    within: u64,
    promises: &'static [&'static str],
) -> Case {
    Case { bug, profile, within, promises }
}

const CASES: &[Case] = &[
    case(Planted::AcknowledgedBeforeSync, Profile::Disk, 300, &[]),
    case(Planted::PromisedBeforeWritten, Profile::Disk, 300, &[]),
    case(Planted::HardStateNotWritten, Profile::Wild, 300, &[]),
    case(Planted::ReadContextReused, Profile::Wild, 300, &[]),
    case(Planted::ReadUnconfirmed, Profile::Wild, 300, &[]),
    case(Planted::ReadNotAwaited, Profile::Wild, 300, &[]),
    case(Planted::AppliedOutOfOrder, Profile::Wild, 300, &[]),
    case(Planted::CheckpointAhead, Profile::Disk, 300, &[]),
    case(Planted::SnapshotWithoutIndex, Profile::Wild, 300, &[]),
    case(Planted::SnapshotWithoutMarker, Profile::Wild, 300, &[]),
    case(Planted::CompactionEatsLive, Profile::Wild, 300, &[]),
    case(Planted::CompactionOneTooFar, Profile::Wild, 300, &[]),
    case(Planted::DeletionForgotten, Profile::Wild, 300, &[]),
    case(Planted::DeletionEaten, Profile::Wild, 300, &[]),
    case(Planted::RevisionForgotten, Profile::Disk, 300, &[]),
    case(Planted::WatchSkipsAtSync, Profile::Wild, 300, &[]),
    case(Planted::WatchSkipsCompacted, Profile::Wild, 300, &[]),
    case(Planted::ProgressAheadOfEvents, Profile::Wild, 300, &[]),
    case(Planted::LeaseEndedByFollower, Profile::Wild, 300, &[]),
    case(Planted::LeaseNotRenewedByLeader, Profile::Wild, 300, &[]),
    case(Planted::LeaseRenewedUnconfirmed, Profile::Wild, 300, &[]),
    case(Planted::LeaseKeepsKeys, Profile::Wild, 300, &[]),
    case(Planted::LearnerCounts, Profile::Membership, 300, &[]),
    case(Planted::RemovedCounts, Profile::Membership, 300, &[]),
];

/// What was found of a bug.
struct Found {
    seeds: u64,
    promise: &'static str,
    text: String,
}

fn look_for(case: &Case) -> Option<Found> {
    let one = std::env::var("SEED").ok().and_then(|text| text.parse().ok());
    let seeds = one.map_or(1..=case.within, |one| one..=one);
    seeds.into_iter().find_map(|seed| {
        let mut settings = Settings::new(seed, case.profile);
        settings.planted = Some(case.bug);
        let problem = run(&settings).problems.into_iter().next()?;
        settings.planted = None;
        if let Some(other) = run(&settings).problems.first() {
            println!("{} seed {seed} does not count, being unwell without: {other}", case.profile);
            return None;
        }
        Some(Found { seeds: seed, promise: problem.promise, text: problem.text })
    })
}

#[test]
fn every_bug_is_found() {
    let only = std::env::var("PLANTED").ok();
    let mut missed = BTreeSet::new();
    println!("| bug | profile | seeds | promise |");
    println!("|---|---|---|---|");
    for case in CASES {
        let name = format!("{:?}", case.bug);
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let begun = Instant::now();
        match look_for(case) {
            Some(found) => {
                println!(
                    "| {name} | {} | {} | {} |  {:?}",
                    case.profile,
                    found.seeds,
                    found.promise,
                    begun.elapsed()
                );
                println!("    {}", found.text);
                if !case.promises.is_empty() && !case.promises.contains(&found.promise) {
                    missed.insert(format!("{name}: found as {}", found.promise));
                }
            }
            None => {
                println!(
                    "| {name} | {} | not in {} | |  {:?}",
                    case.profile,
                    case.within,
                    begun.elapsed()
                );
                missed.insert(name);
            }
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// Worlds without a bug of ours, over the same seeds.
#[test]
fn without_them_all_is_well() {
    let seeds = std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_u64);
    let mut bad = Vec::new();
    for profile in Profile::ALL {
        for seed in 1..=seeds {
            let outcome = run(&Settings::new(seed, profile));
            if let Some(problem) = outcome.problems.first() {
                let text: String = problem.to_string().chars().take(900).collect();
                println!("{profile} seed {seed}: {text}");
                bad.push((profile, seed));
            }
        }
    }
    assert!(bad.is_empty(), "{bad:?}");
}
