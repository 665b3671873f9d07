//! The few numbers all threads of a run share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Calls made so far, and how many may still be made.
#[derive(Debug)]
pub(super) struct Shared {
    total: Option<u64>,
    taken: AtomicU64,
    done: AtomicU64,
    stop: Option<Arc<AtomicBool>>,
}

impl Shared {
    /// A run of `total` counted calls, or of as many as its time allows, or until `stop` is
    /// raised.
    pub(super) fn new(total: Option<u64>, stop: Option<Arc<AtomicBool>>) -> Self {
        Self { total, taken: AtomicU64::new(0), done: AtomicU64::new(0), stop }
    }

    /// Takes one call from the budget; `false` when it is used up.
    pub(super) fn take(&self) -> bool {
        self.total.is_none_or(|total| self.taken.fetch_add(1, Ordering::Relaxed) < total)
    }

    /// Whether somebody has ended the run.
    pub(super) fn stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    /// One more call has its answer.
    pub(super) fn add_done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls answered so far, warm-up included.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_exactly() {
        let shared = Shared::new(Some(3), None);
        let granted = (0..10).filter(|_| shared.take()).count();
        assert_eq!(granted, 3);
        assert!(Shared::new(None, None).take());
    }

    #[test]
    fn a_run_is_over_when_somebody_says_so() {
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Shared::new(None, Some(Arc::clone(&stop)));
        assert!(!shared.stopped());
        stop.store(true, Ordering::Relaxed);
        assert!(shared.stopped());
    }
}
