//! The time that counts for leases.

/// A clock that leaves out the times at which the member stood still: stopped,
/// starved, or frozen with its machine. Whoever wanted to keep a lease alive
/// then could not, so those times are no fault of theirs.
#[derive(Debug)]
pub(super) struct LeaseClock {
    /// A longer silence is a standstill.
    stall_ms: u64,
    last_ms: u64,
    /// The length of all standstills.
    lost_ms: u64,
}

impl LeaseClock {
    pub(super) fn new(stall_ms: u64, now_ms: u64) -> Self {
        Self { stall_ms, last_ms: now_ms, lost_ms: 0 }
    }

    /// The time that counts, at `now_ms` of the real clock. Must be asked
    /// several times in every `stall_ms` while the member runs.
    pub(super) fn at(&mut self, now_ms: u64) -> u64 {
        let now_ms = now_ms.max(self.last_ms);
        let silence_ms = now_ms - self.last_ms;
        if silence_ms > self.stall_ms {
            self.lost_ms += silence_ms;
        }
        self.last_ms = now_ms;
        now_ms - self.lost_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_does_not_count() {
        let mut clock = LeaseClock::new(1500, 1000);
        assert_eq!(clock.at(2500), 2500);
        assert_eq!(clock.at(3_602_500), 2500, "an hour in which nothing was heard");
        assert_eq!(clock.at(3_603_000), 3000);
        assert_eq!(clock.at(3_602_000), 3000, "it never goes back");
    }
}
