//! The measured stretch of a run: after the warm-up, until the clock or the budget ends it.

use std::time::{Duration, Instant};

/// When calls are made and when they count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// The first call goes out.
    pub(crate) start: Instant,
    /// The warm-up is over: calls that end from here on count.
    pub(crate) begin: Instant,
    /// No call goes out any more.
    pub(crate) end: Instant,
}

/// What becomes of a call's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Warm-up: not at all.
    No,
    /// In the rate and in the latencies.
    Fully,
    /// It went out in time and came back late: in the latencies alone, so that a server which
    /// stalls at the end does not look fast.
    LatencyOnly,
}

impl Window {
    /// A window that starts at `start`.
    pub(crate) fn new(start: Instant, warmup: Duration, duration: Duration) -> Self {
        let begin = start + warmup;
        Self { start, begin, end: begin + duration }
    }

    /// How a call that ended at `ended` is counted.
    pub(crate) fn counted(&self, ended: Instant) -> Counted {
        if ended < self.begin {
            Counted::No
        } else if ended <= self.end {
            Counted::Fully
        } else {
            Counted::LatencyOnly
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_by_when_it_ended() {
        let start = Instant::now();
        let window = Window::new(start, Duration::from_secs(1), Duration::from_secs(2));
        let after = |ms| window.counted(start + Duration::from_millis(ms));
        assert_eq!(after(999), Counted::No);
        assert_eq!(after(1000), Counted::Fully);
        assert_eq!(after(3000), Counted::Fully);
        assert_eq!(after(3001), Counted::LatencyOnly);
    }
}
