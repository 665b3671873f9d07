//! The shrinker, on failures that are made up: what they need is known.

use std::collections::BTreeSet;

use castd_sim::{Nanos, Profile, SECOND, Settings, Verdict, shrink, shrink_with};

const FAULTS: usize = 24;

fn failing() -> Settings {
    Settings::new(7, Profile::Wild)
}

/// Shrinks a failure that needs these faults and so much time; the world goes on behind it.
/// Gives what came of it and the runs.
fn shrunk(start: &Settings, needed: &[usize], time: Nanos, runs_max: usize) -> (Settings, usize) {
    let first = Verdict { fails: true, ended: start.span + SECOND };
    let mut runs = 0;
    let least = shrink_with(start, FAULTS, first, runs_max, |attempt| {
        assert_eq!(attempt.runs, runs);
        assert_eq!(attempt.faults, FAULTS - attempt.settings.without.len());
        runs += 1;
        let there = |fault: &usize| !attempt.settings.without.contains(fault);
        let fails = needed.iter().all(there) && attempt.settings.span >= time;
        Verdict { fails, ended: attempt.settings.span + SECOND }
    });
    (least, runs)
}

fn all_but(needed: &[usize]) -> BTreeSet<usize> {
    (0..FAULTS).filter(|fault| !needed.contains(fault)).collect()
}

#[test]
fn what_is_needed_is_left() {
    for needed in [&[0][..], &[23], &[3, 11], &[0, 12, 23], &[5, 6, 7, 8]] {
        let (least, runs) = shrunk(&failing(), needed, 62 * SECOND / 10, 100);
        assert_eq!(least.without, all_but(needed), "{needed:?}");
        assert_eq!(least.span, 62 * SECOND / 10, "{needed:?}");
        assert!(runs < 100, "{needed:?}: {runs}");
        assert_eq!((least.seed, least.profile), (7, Profile::Wild));
    }
}

#[test]
fn nothing_is_needed() {
    let (least, runs) = shrunk(&failing(), &[], 0, 100);
    assert_eq!(least.without, all_but(&[]));
    assert!(least.span <= SECOND / 10, "{}", least.span);
    assert!(runs < 30, "{runs}");
}

#[test]
fn everything_is_needed() {
    let all: Vec<usize> = (0..FAULTS).collect();
    let start = failing();
    let (least, _) = shrunk(&start, &all, start.span, 1000);
    assert_eq!((&least.without, least.span), (&start.without, start.span));
}

#[test]
fn what_was_left_out_stays_out() {
    let start = Settings { without: [1, 2, 20].into(), ..failing() };
    let (least, _) = shrunk(&start, &[4], 5 * SECOND, 100);
    assert_eq!(least.without, all_but(&[4]));
}

#[test]
fn runs_are_bounded() {
    for runs_max in [0, 1, 7, 20] {
        let (least, runs) = shrunk(&failing(), &[3, 11], 6 * SECOND, runs_max);
        assert!(runs <= runs_max, "{runs} of {runs_max}");
        assert!(!least.without.contains(&3) && !least.without.contains(&11));
        assert!(least.span >= 6 * SECOND);
    }
}

/// The faults are needed only as long as both are there: leaving one out of two makes the
/// other one needless too, as it happens when everything behind a fault changes.
#[test]
fn whims_do_no_harm() {
    let first = Verdict { fails: true, ended: 30 * SECOND };
    let fails = |without: &BTreeSet<usize>| {
        without.contains(&9) != without.contains(&2) || without.is_empty()
    };
    let least = shrink_with(&failing(), FAULTS, first, 200, |attempt| Verdict {
        fails: fails(&attempt.settings.without),
        ended: 30 * SECOND,
    });
    assert!(fails(&least.without), "{:?}", least.without);
    assert_eq!(FAULTS - least.without.len(), 1);
}

#[test]
fn the_end_comes_with_the_problem() {
    let seen_at = 4 * SECOND + 1234;
    let mut spans = Vec::new();
    let first = Verdict { fails: true, ended: seen_at };
    let least = shrink_with(&failing(), FAULTS, first, 100, |attempt| {
        spans.push(attempt.settings.span);
        Verdict { fails: attempt.settings.span >= seen_at, ended: seen_at }
    });
    assert_eq!(spans[0], 41 * SECOND / 10);
    assert_eq!(least.span, 41 * SECOND / 10);
}

#[test]
fn what_does_not_fail_stays_as_it_is() {
    let settings = Settings { span: SECOND, ..Settings::new(3, Profile::Quiet) };
    let least = shrink(&settings, 100, |_| panic!("there is nothing to try"));
    assert_eq!((least.seed, least.span, least.without.len()), (3, SECOND, 0));
}
