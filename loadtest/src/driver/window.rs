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
    /// The run has a budget of calls, which warm-up calls do not use up. Then only calls that
    /// began in the window count, so that the budget is met to the call. Without a budget those
    /// count that ended in it: as many as are cut off at its end are then let in at its start.
    pub(crate) budgeted: bool,
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
    pub(crate) fn new(
        start: Instant,
        warmup: Duration,
        duration: Duration,
        budgeted: bool,
    ) -> Self {
        let begin = start + warmup;
        Self { start, begin, end: begin + duration, budgeted }
    }

    /// How a call between two moments is counted.
    pub(crate) fn counted(&self, begun: Instant, ended: Instant) -> Counted {
        if ended < self.begin || (self.budgeted && begun < self.begin) {
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

    fn moment(window: &Window, ms: u64) -> Instant {
        window.start + Duration::from_millis(ms)
    }

    fn window(budgeted: bool) -> Window {
        let second = Duration::from_secs(1);
        Window::new(Instant::now(), second, 2 * second, budgeted)
    }

    #[test]
    fn a_call_counts_by_when_it_ended() {
        let window = window(false);
        let until = |ms| window.counted(window.start, moment(&window, ms));
        assert_eq!(until(999), Counted::No);
        assert_eq!(until(1000), Counted::Fully);
        assert_eq!(until(3000), Counted::Fully);
        assert_eq!(until(3001), Counted::LatencyOnly);
    }

    #[test]
    fn with_a_budget_it_counts_by_when_it_began_too() {
        let window = window(true);
        let from = |ms| window.counted(moment(&window, ms), moment(&window, 2000));
        assert_eq!(from(999), Counted::No);
        assert_eq!(from(1000), Counted::Fully);
    }
}
