//! Keeps a flood of equal lines short.

use super::Level;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Lines of one kind written a second before most are dropped.
const FIRST: u64 = 100;
/// Of the lines after those, each so-manieth is written.
const THEREAFTER: u64 = 100;
/// How many kinds are told apart, at most.
const KINDS: usize = 1024;
const SECOND_MICROS: i64 = 1_000_000;

/// Counts lines by level and message, second by second. Two kinds may share a counter:
/// then both are dropped a little earlier.
pub(super) struct Sampler {
    counters: Box<[Counter]>,
}

#[derive(Default)]
struct Counter {
    ends_at: AtomicI64,
    count: AtomicU64,
}

impl Sampler {
    pub(super) fn new() -> Self {
        Self { counters: std::iter::repeat_with(Counter::default).take(KINDS).collect() }
    }

    /// Whether a line is to be written; `now` is in microseconds since 1970. What ends
    /// the process always is.
    pub(super) fn admits(&self, level: Level, message: &str, now: i64) -> bool {
        if level >= Level::Dpanic {
            return true;
        }
        let mut hasher = DefaultHasher::new();
        (level, message).hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % KINDS as u64).unwrap_or(0);
        let count = self.counters[index].next(now);
        count <= FIRST || (count - FIRST).is_multiple_of(THEREAFTER)
    }
}

impl Counter {
    /// Which line of its second this one is, from 1. Relaxed order is enough: a race
    /// between two seconds miscounts a few lines, no more.
    fn next(&self, now: i64) -> u64 {
        let ends_at = self.ends_at.load(Ordering::Relaxed);
        if now < ends_at {
            return self.count.fetch_add(1, Ordering::Relaxed) + 1;
        }
        self.count.store(1, Ordering::Relaxed);
        self.ends_at.store(now.saturating_add(SECOND_MICROS), Ordering::Relaxed);
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_thinned_and_a_new_second_starts_afresh() {
        let sampler = Sampler::new();
        let admitted = |from: i64, lines: i64| {
            (0..lines).filter(|i| sampler.admits(Level::Warn, "slow", from + i)).count()
        };
        assert_eq!(admitted(0, 1000), 100 + 9);
        assert_eq!(admitted(SECOND_MICROS, 50), 50);
        assert!((0..1000).all(|i| sampler.admits(Level::Fatal, "slow", i)));
    }
}
