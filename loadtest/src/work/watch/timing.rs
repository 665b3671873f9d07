//! The common clock of putters and watchers, and the stretches of time that are told apart.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::driver::Window;

/// A clock, and the phases of the measured window.
#[derive(Debug)]
pub(super) struct Timing {
    /// Moments in values count from here.
    epoch: Instant,
    /// Lengths of all phases but the last, which goes on until the window ends.
    lengths: Vec<Duration>,
    /// Where the phases begin, in nanoseconds since the epoch, and where the last one ends.
    bounds: Vec<AtomicU64>,
}

impl Timing {
    /// A clock whose window is not known yet. The window will be cut behind each of `lengths`.
    pub(super) fn new(lengths: Vec<Duration>) -> Self {
        let bounds = (0..lengths.len() + 2).map(|_| AtomicU64::new(u64::MAX)).collect();
        Self { epoch: Instant::now(), lengths, bounds }
    }

    /// Number of phases.
    pub(super) fn phases(&self) -> usize {
        self.lengths.len() + 1
    }

    /// Makes the window known.
    pub(super) fn set(&self, window: Window) {
        let mut begin = window.begin;
        for (bound, length) in self.bounds.iter().zip(&self.lengths) {
            bound.store(self.since_epoch(begin), Ordering::Relaxed);
            begin += *length;
        }
        self.bounds[self.lengths.len()].store(self.since_epoch(begin), Ordering::Relaxed);
        let end = self.since_epoch(window.end.max(begin));
        self.bounds[self.phases()].store(end, Ordering::Relaxed);
    }

    /// Forgets the window: what comes is not measured until the next one is known.
    pub(super) fn forget(&self) {
        self.bounds.iter().for_each(|bound| bound.store(u64::MAX, Ordering::Relaxed));
    }

    /// A moment in nanoseconds since the epoch.
    pub(super) fn since_epoch(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.epoch);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Now, in nanoseconds since the epoch.
    pub(super) fn now(&self) -> u64 {
        self.since_epoch(Instant::now())
    }

    /// The moment that many nanoseconds after the epoch.
    pub(super) fn moment(&self, since_epoch_ns: u64) -> Instant {
        self.epoch + Duration::from_nanos(since_epoch_ns)
    }

    /// Where a phase begins; `u64::MAX` as long as nobody knows. The one behind the last begins
    /// where the window ends.
    pub(super) fn begin(&self, phase: usize) -> u64 {
        self.bounds[phase].load(Ordering::Relaxed)
    }

    /// The phase a moment lies in, if any.
    pub(super) fn phase(&self, since_epoch_ns: u64) -> Option<usize> {
        let begun = (0..=self.phases()).take_while(|phase| since_epoch_ns >= self.begin(*phase));
        begun.count().checked_sub(1).filter(|phase| *phase < self.phases())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_lie_in_phases() {
        let second = Duration::from_secs(1);
        let timing = Timing::new(vec![second, 2 * second]);
        assert_eq!(timing.phase(timing.now()), None, "the window is not known");
        let start = timing.epoch + second;
        timing.set(Window::new(start, second, 4 * second, false));
        let at = |tenths: u64| timing.phase(tenths * 100_000_000);
        assert_eq!([at(0), at(19), at(20), at(29)], [None, None, Some(0), Some(0)]);
        assert_eq!([at(30), at(49), at(50), at(59)], [Some(1), Some(1), Some(2), Some(2)]);
        assert_eq!(at(60), None);
        assert_eq!(timing.since_epoch(timing.moment(77)), 77);
        timing.forget();
        assert_eq!(timing.phase(2_000_000_000), None);
    }
}
