//! The shrinker: of a failure, what it does not need.
//!
//! A fault less changes everything that comes after it, so that a failure may go away by
//! chance with a fault that had nothing to do with it. What is left is therefore enough
//! for the failure, and not always the least that would be.

use std::collections::BTreeSet;

use crate::run::{Settings, run};
use crate::time::{Nanos, SECOND};

/// Lives of worlds are shortened in steps of this.
const SPAN_STEP: Nanos = SECOND / 10;

/// What came of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it failed, in the same way as before.
    pub fails: bool,
    /// When the world ended.
    pub ended: Nanos,
}

/// Something that is tried.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// What is run.
    pub settings: &'a Settings,
    /// Runs so far, this one not among them.
    pub runs: usize,
    /// Faults of the plan that it leaves.
    pub faults: usize,
}

/// Shrinks a failing seed: the faults left are enough for a problem of the same promise.
/// Gives the settings back as they are when nothing fails. `told` hears of every attempt
/// before it is made; there are at most `runs_max`.
pub fn shrink(failing: &Settings, runs_max: usize, mut told: impl FnMut(&Attempt<'_>)) -> Settings {
    let quiet = Settings { verbose: false, ..failing.clone() };
    let first = run(&quiet);
    let Some(promise) = first.problems.first().map(|problem| problem.promise) else {
        return failing.clone();
    };
    let start = Verdict { fails: true, ended: first.ended };
    shrink_with(&quiet, first.plan.len(), start, runs_max, |attempt| {
        told(attempt);
        let outcome = run(attempt.settings);
        let fails = outcome.problems.iter().any(|problem| problem.promise == promise);
        Verdict { fails, ended: outcome.ended }
    })
}

/// As [`shrink`], for anything that can fail. The plan has `faults`, and `first` is what
/// came of running it as it is.
pub fn shrink_with(
    failing: &Settings,
    faults: usize,
    first: Verdict,
    runs_max: usize,
    attempt: impl FnMut(&Attempt<'_>) -> Verdict,
) -> Settings {
    let kept = (0..faults).filter(|fault| !failing.without.contains(fault)).collect();
    let best = failing.clone();
    let ended = first.ended;
    let mut search = Search { best, kept, faults, ended, runs: 0, runs_max, attempt };
    search.end_early();
    search.drop_faults();
    search.end_early();
    search.shorten();
    search.drop_each();
    search.best
}

struct Search<A> {
    /// The least that is known to fail.
    best: Settings,
    /// The faults it has.
    kept: Vec<usize>,
    /// Faults of the whole plan.
    faults: usize,
    /// When the best ended.
    ended: Nanos,
    runs: usize,
    runs_max: usize,
    attempt: A,
}

impl<A: FnMut(&Attempt<'_>) -> Verdict> Search<A> {
    /// Tries; what fails is the best from now on.
    fn fails(&mut self, kept: &[usize], span: Nanos) -> bool {
        if self.runs >= self.runs_max {
            return false;
        }
        let without: BTreeSet<usize> =
            (0..self.faults).filter(|fault| !kept.contains(fault)).collect();
        let settings = Settings { without, span, ..self.best.clone() };
        let attempt = Attempt { settings: &settings, runs: self.runs, faults: kept.len() };
        let Verdict { fails, ended } = (self.attempt)(&attempt);
        self.runs += 1;
        if fails {
            self.best = settings;
            self.kept = kept.to_vec();
            self.ended = ended;
        }
        fails
    }

    /// What was to come after the problem did not matter.
    fn end_early(&mut self) {
        let span = (self.ended + 1).next_multiple_of(SPAN_STEP);
        if span < self.best.span {
            let kept = self.kept.clone();
            self.fails(&kept, span);
        }
    }

    /// Leaves out all faults, then halves of them, then quarters, down to single ones.
    fn drop_faults(&mut self) {
        if self.kept.is_empty() || self.fails(&[], self.best.span) {
            return;
        }
        let mut size = self.kept.len().div_ceil(2);
        while size > 1 {
            self.drop_chunks(size);
            size = size.div_ceil(2).min(self.kept.len());
        }
        self.drop_each();
    }

    /// Leaves out one fault at a time, until each is needed.
    fn drop_each(&mut self) {
        while self.kept.len() > 1 && self.drop_chunks(1) {}
    }

    /// Leaves out `size` faults at a time; whether any were not needed.
    fn drop_chunks(&mut self, size: usize) -> bool {
        let before = self.kept.len();
        let mut at = 0;
        while at < self.kept.len() && self.runs < self.runs_max {
            let end = (at + size).min(self.kept.len());
            let others = [&self.kept[..at], &self.kept[end..]].concat();
            if others.is_empty() || !self.fails(&others, self.best.span) {
                at = end;
            }
        }
        self.kept.len() < before
    }

    /// Has the world live for less long: half of it, or a quarter less, or an eighth...
    fn shorten(&mut self) {
        let mut less = self.best.span / 2;
        while less >= SPAN_STEP {
            let span = (self.best.span - less).next_multiple_of(SPAN_STEP);
            let kept = self.kept.clone();
            if span >= self.best.span || !self.fails(&kept, span) {
                less /= 2;
            }
            less = less.min(self.best.span / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::plan::{Plan, Profile};

    /// A shorter world has the first of the faults of a longer one, under the same numbers.
    #[test]
    fn a_shorter_plan_is_the_beginning_of_a_longer_one() {
        let mut faults = 0;
        for seed in 0..200 {
            let profile = Profile::ALL[seed as usize % Profile::ALL.len()];
            let begins = |span: Nanos| {
                let plan = Plan::draw(profile, &mut StdRng::seed_from_u64(seed), span, 3);
                plan.faults.into_iter().map(|planned| (planned.at, planned.fault))
            };
            let (shorter, longer) = (begins(7 * SECOND), begins(20 * SECOND));
            let begin: Vec<_> = longer.take(shorter.len()).collect();
            faults += begin.len();
            assert_eq!(shorter.collect::<Vec<_>>(), begin, "{seed} {profile}");
        }
        assert!(faults > 100, "{faults}");
    }
}
